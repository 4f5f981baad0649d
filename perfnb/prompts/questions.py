"""Find the question in a long prompt: what follows a marker such as ``Question:``."""

import re

LONGEST_QUESTION = 300
"""Characters of an announced question that are read."""
MOST_QUESTIONS = 3
"""Announced questions that are read, the last ones: templates show examples first."""

_ANNOUNCED = re.compile(
    r"^[ \t*#>-]*(?:(?:user|current|new|original|final|the|my|customer)(?:'s)?[ \t]+){0,2}"
    r"(?:question|query|q|user|human|request|input|task|message)(?:[ \t][^\n:]{0,20})?\**:\**[ \t]*\n{0,2}([^\n]+)",
    re.M | re.I,
)


def announced(text: str) -> tuple[str, ...]:
    """Return what ``text`` announces as a question or request, in order: the rest of the line, or the next one."""
    found = [match[1].strip()[:LONGEST_QUESTION] for match in _ANNOUNCED.finditer(text)]
    return tuple(filter(None, found[-MOST_QUESTIONS:]))
