"""Questions people ask a support desk for Python's standard library, made from its own documentation."""

import random
from collections.abc import Iterator
from functools import cache
from pydoc_data.topics import topics

from perfnb.demo.corpus import Passage, of_modules

# enough to ask about; reading all of the corpus would only make the start slower
MODULES = (
    "argparse", "bisect", "calendar", "collections", "configparser", "contextlib", "csv", "dataclasses", "datetime",
    "fractions", "functools", "heapq", "http", "json", "logging", "pathlib", "queue", "random", "shutil", "statistics",
    "string", "tempfile", "textwrap", "threading", "zipfile",
)  # fmt: skip
OPENINGS = (
    "What does {title} do, and when would I use it?",
    "How do I use {title}? My aim is this: {aim}",
    "Which call in {module} do I need to {aim}?",
    "I get an unexpected result from {title}. What exactly should it do?",
    "Is {title} the right choice if I want to {aim}?",
    "Please explain the arguments of {title} in plain words.",
)
DOCUMENT_CHARACTERS = 40_000
FOLLOW_UPS = (
    "And what does it return?",
    "Which errors can that raise?",
    "Is there a shorter way, with {title} perhaps?",
    "How does that compare to {title}?",
    "Can I do the same from several threads at once?",
    "What about {title}?",
)


def openings(seed: int) -> Iterator[str]:
    """Yield questions that stand alone, none twice before all were asked."""
    rng = random.Random(f"openings {seed}")
    while True:
        passages = list(of_modules(MODULES))
        rng.shuffle(passages)
        for passage in passages:
            yield _asked(rng.choice(OPENINGS), passage)


def follow_ups(seed: int) -> Iterator[str]:
    """Yield questions that go on from the one before."""
    rng = random.Random(f"follow-ups {seed}")
    passages = of_modules(MODULES)
    while True:
        yield _asked(rng.choice(FOLLOW_UPS), rng.choice(passages))


def conversation(seed: int, messages: int) -> list[tuple[str, str]]:
    """Return a past conversation as role and content, oldest first."""
    rng = random.Random(f"conversation {seed}")
    passages = of_modules(MODULES)
    said: list[tuple[str, str]] = []
    while len(said) < messages:
        passage = rng.choice(passages)
        said += [("user", _asked(rng.choice(OPENINGS), passage)), ("assistant", " ".join(passage.body.split())[:320])]
    return said[:messages]


@cache
def documents() -> tuple[tuple[str, str], ...]:
    """Return long documents as title and text, none of which the desk has: parts of the language reference."""
    text = "\n\n".join(topics[name].strip() for name in sorted(topics))
    parts = range(0, len(text) - DOCUMENT_CHARACTERS, DOCUMENT_CHARACTERS)
    return tuple(
        (f"Reference, part {at}", text[start : start + DOCUMENT_CHARACTERS]) for at, start in enumerate(parts, 1)
    )


def _asked(form: str, passage: Passage) -> str:
    aim = " ".join(passage.body.split(".")[0].split())[:90]
    return form.format(title=passage.title, module=passage.module, aim=aim[:1].lower() + aim[1:])
