"""The recipes' files as an app would use them."""

import importlib.util
from typing import Any

from perfnb.recipes import BOOK


class Book:
    """``book.NAME`` is the recipe's file, run anew for every test, as an app's own module would be."""

    def __getattr__(self, name: str) -> Any:
        spec = importlib.util.spec_from_file_location(f"copied_{name}", BOOK / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
