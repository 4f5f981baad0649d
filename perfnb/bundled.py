"""Where the notebooks and the sample recording are: in the checkout, or inside the installed package."""

from pathlib import Path

from perfnb.errors import NotReachable

PACKAGE = Path(__file__).parent


def bundled(name: str, *, package: Path = PACKAGE) -> Path:
    """Return the folder ``name`` ("notebooks" or "data") of the wheel or, failing that, of the checkout.

    Raises NotReachable where there is neither.
    """
    for folder in (package / "_bundled" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise NotReachable(f"this installation has no {name} folder", hint="pip install --force-reinstall perfnb")
