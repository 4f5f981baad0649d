"""A room imports only from floors below it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "perfnb"

# Lowest first; rooms of one floor do not import each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("finding", "target", "steps", "bundled", "recording", "demo", "tokens", "sql"),
    ("objectives", "profiles", "prompts", "prices", "plans", "recipes"),
    ("sources", "attribution", "checklist"),
    ("widgets", "recorder", "importing", "doctor", "terminal", "budgets", "load", "estimates", "knobs"),
    ("trials", "tuner"),
    ("incident", "try_a_change"),
    ("areas",),
    ("report",),
    ("notebooks", "panels"),
    ("staging",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "perfnb"


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield perfnb modules that are imported for use; imports for type checkers alone bind nothing."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("perfnb"):
            yield from [f"perfnb.{name.name}" for name in node.names] if node.module == "perfnb" else [str(node.module)]
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("perfnb"))
        else:
            yield from imported(node)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in FLOOR, f"give {room} a floor"
    for module in imported(ast.parse(path.read_text())):
        below = room_of(module)
        if below not in (room, "__version__"):
            assert FLOOR[below] < FLOOR[room], f"{room} imports {below}"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "areas").glob("*/*.py")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_an_area_imports_no_other(path: Path) -> None:
    areas = {each.name for each in (PACKAGE / "areas").iterdir() if each.is_dir()}
    others = areas - {path.parent.name}
    for module in imported(ast.parse(path.read_text())):
        assert module.removeprefix("perfnb.areas.").partition(".")[0] not in others, module


def test_checks_and_measures_draw_nothing() -> None:
    shown = ("figures", "panel", "calculator", "vector_tuner")
    topics = [path for path in (PACKAGE / "areas").rglob("*.py") if path.stem not in shown]
    for path in topics:
        text = path.read_text()
        assert "import plotly" not in text, path
        assert "import ipywidgets" not in text, path
