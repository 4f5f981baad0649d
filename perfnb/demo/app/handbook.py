"""The house's handbook for its support desk: rules that some apps put into every prompt, whatever is asked."""

from functools import cache
from pydoc_data.topics import topics

# the language reference stands for the house's own pages, as every machine has it
CHAPTERS = ("execmodel", "typesmapping", "attribute-access", "customization")


def handbook(characters: int) -> str:
    """Return the first ``characters`` of the handbook."""
    return f"House rules and background, for every answer:\n{_text()[:characters]}"


@cache
def _text() -> str:
    return "\n".join(" ".join(topics[name].split()) for name in CHAPTERS if name in topics)
