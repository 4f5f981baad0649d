"""Importing perfnb loads none of the heavy packages; how long it takes is measured in bench/import_time.py."""

import subprocess
import sys

import pytest

HEAVY = {"duckdb", "ipywidgets", "pandas", "plotly"}


def loaded_by(code: str) -> set[str]:
    """Return which heavy packages a fresh interpreter has loaded after running ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return HEAVY & set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import perfnb",
        "import perfnb; perfnb.step('x'); perfnb.time_it",
        "from perfnb.recording import Writer",
        "import perfnb.sources, perfnb.target, perfnb.checklist",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded_by(code) == set()


def test_the_check_sees_a_heavy_package() -> None:
    assert "duckdb" in loaded_by("import duckdb")
