"""The public face: sorted, complete, documented, and lazy."""

import importlib
import inspect
import pkgutil

import pytest

import perfnb

PACKAGES = [perfnb.__name__, *(m.name for m in pkgutil.walk_packages(perfnb.__path__, "perfnb.") if m.ispkg)]


def in_order(name: str) -> tuple[int, str]:
    """Sort constants first, then classes, then functions, each alphabetically: what ruff asks for."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_every_name_is_there(name: str) -> None:
    package = importlib.import_module(name)
    names = getattr(package, "__all__", [])
    assert list(names) == sorted(set(names), key=in_order)
    for each in names:
        assert getattr(package, each) is not None


def test_the_face_is_what_the_readme_promises() -> None:
    assert perfnb.__all__ == ["open", "step", "time_it"]
    assert set(perfnb.__all__) <= set(dir(perfnb))


def test_public_names_of_the_face_are_documented() -> None:
    for name in perfnb.__all__:
        assert inspect.getdoc(getattr(perfnb, name))


def test_a_name_there_isnt_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = perfnb.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", [m.name for m in pkgutil.walk_packages(perfnb.__path__, "perfnb.")])
def test_every_module_says_what_it_is(module: str) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.loader is not None
    source = found.loader.get_source(module)  # type: ignore[attr-defined]
    assert source.lstrip().startswith(('"""', 'r"""')), "a module begins with what it is for"
