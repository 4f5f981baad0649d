"""What a reader gets from an app's answer: when the first usable content came, and whether the body reports an error.

Apps answer in many shapes; these rules know OpenAI's and Anthropic's events, and otherwise look for text under the usual
keys. An error is only what the body says outside its texts: an answer that talks about errors is none.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from perfnb.sources.traffic.encoding import Piece
from perfnb.sources.traffic.llm_answer import event_says_something
from perfnb.sources.traffic.sse import DONE, Event

# Events and messages of these names open a stream, keep it open or tell about it; a reader has nothing of them.
NO_CONTENT = re.compile(
    r"(start|status|ping|pong|meta|metadata|heartbeat|keep-?alive|open|connected|init|created|queued|in_progress|progress|"
    r"session|end|done|finish|usage|citations?|sources?|step|tool|error)([-_.].*)?",
    re.I,
)
CONTENT_KEYS = (
    "content", "text", "delta", "textDelta", "token", "answer", "message", "output", "response", "chunk", "data",
)  # fmt: skip
PROGRESS_KEYS = ("status", "stage", "step", "progress")  # beside one of these, "message" tells what is being done
_SEARCHED_DEPTH = 3
_CODE = re.compile(r"[A-Za-z][\w.:-]{0,63}")


def look_into(stream: Iterable[Event]) -> tuple[float | None, str | None]:
    """Return when the first event with content came, and what error the stream reports."""
    first, error = None, None
    for event in stream:
        body = as_json_value(event.data)
        if event.name == "error" or (isinstance(body, dict) and body.get("type") == "error"):
            error = error or error_in(body) or _code(body)
        else:
            error = error or error_in(body)
        if first is None and error is None and has_content(event):
            first = event.time
    return first, error


def has_content(event: Event) -> bool:
    """Tell whether a reader can use something in ``event``: text, and not only news of the stream itself."""
    if event.data == DONE or (event.name != "message" and NO_CONTENT.fullmatch(event.name)):
        return False
    body = as_json_value(event.data)
    if isinstance(body, dict):
        return event_says_something(event, body) or _has_text(body, _SEARCHED_DEPTH)
    if isinstance(body, list):
        return bool(body) and _has_text(body[0], _SEARCHED_DEPTH)
    return bool(body.strip()) if isinstance(body, str) else bool(event.data.strip())


def _has_text(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, list):
        return depth > 0 and any(_has_text(entry, depth - 1) for entry in value[:3])
    if not isinstance(value, dict) or depth == 0:
        return False
    kind = value.get("type") or value.get("event")
    if isinstance(kind, str) and NO_CONTENT.fullmatch(kind):
        return False
    is_progress = any(key in value for key in PROGRESS_KEYS)
    keys = (key for key in CONTENT_KEYS if not (is_progress and key == "message"))
    return any(_has_text(value.get(key), depth - 1) for key in keys)


def lines(pieces: Iterable[Piece]) -> Iterator[Event]:
    """Yield the lines of a JSON-lines body as events."""
    rest = b""
    for time, piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip():
                yield Event("message", line.decode("utf-8", "replace"), time)
    if rest.strip():
        yield Event("message", rest.decode("utf-8", "replace"), time)


def error_in(body: Any) -> str | None:
    """Return what a JSON body reports as an error: its code where it has one, else ``error``; None for a normal answer."""
    if not isinstance(body, dict):
        return None
    error, errors = body.get("error"), body.get("errors")
    if error not in (None, False, "", 0, [], {}):
        return _code(error)
    if isinstance(errors, list | dict | str) and errors:
        return _code(errors[0] if isinstance(errors, list) else errors)
    if body.get("success") is False or body.get("ok") is False:
        return _code(body)
    if isinstance(body.get("status"), str) and body["status"].lower() in ("error", "failed", "failure"):
        return _code(body)
    return None


def _code(error: Any) -> str:
    """Return a code that names the error; messages may quote what a person wrote, so they are not looked at."""
    if isinstance(error, dict):
        for key in ("code", "type", "error_type", "error_code"):
            if isinstance(error.get(key), str) and _CODE.fullmatch(error[key]):
                return str(error[key])
        return "error"
    return error if isinstance(error, str) and _CODE.fullmatch(error) and ("_" in error or error.islower()) else "error"


def as_json_value(data: str | bytes) -> Any:
    """Return what the JSON ``data`` holds; None where it is none."""
    try:
        return orjson.loads(data)
    except ValueError:
        return None
