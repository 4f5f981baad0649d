from pathlib import Path

from perfnb.sources.traffic.policies.settings import KINDS, as_markdown

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "policies.md"


def test_the_page_about_policies_is_made_from_their_declarations() -> None:
    assert PAGE.read_text() == as_markdown(), "write it anew: PAGE.write_text(as_markdown())"
    assert all(f"| `{name}` |" in PAGE.read_text() for name in KINDS)
