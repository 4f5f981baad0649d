"""Write what a benchmark measured into the README, between two marks."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def write_table(name: str, table: str) -> None:
    """Put ``table`` between ``<!-- name: begin -->`` and ``<!-- name: end -->``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = README.read_text()
    README.write_text(re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL))
