"""What providers say they counted and charged: their usage and cost exports as rows of ``bills``.

OpenAI's dashboard exports CSV (``completions_usage``, ``embeddings_usage``, ``cost``); its organization API answers the
same in JSON pages of time buckets, and so does Anthropic's Admin API. OpenAI counts cached tokens inside the input,
Anthropic beside it: here they are inside, as everywhere in a recording.

Source: types of openai 3.52 (admin/organization/usage_*_response.py), an export of 2025-10; Anthropic's Admin API
reference (usage_report/messages; cost_report, whose amounts are cents as text)
"""

import csv
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from perfnb.prompts.digest import Digester
from perfnb.sources.otlp.usage import count
from perfnb.sources.times import as_nanoseconds

Row = dict[str, Any]

_USAGE, _COSTS = "num_model_requests", "amount_value"


class BadBill(ValueError):
    """Raised for a line of an export that makes no sense."""


def is_csv(head: Iterable[bytes]) -> bool:
    """Tell whether the first line of ``head`` is the header of an OpenAI export, by commas or tabs."""
    names = set(_header(next(iter(head), b"")))
    return "start_time" in names and bool(names & {_USAGE, _COSTS})


def is_page(document: Any) -> bool:
    """Tell whether ``document`` is a page of time buckets, or a bucket by itself."""
    return any(
        isinstance(bucket.get("results"), list) and ("starting_at" in bucket or bucket.get("object") == "bucket")
        for bucket in _buckets(document)
    )


class Reader:
    """Turns lines of exports into rows; one for each file, so that lines alike within it stay apart."""

    def __init__(self, digester: Digester, clock: Callable[[], int] = time.time_ns) -> None:
        self._digester = digester
        self._alike: Counter[str] = Counter()
        self._imported = clock()

    def csv_rows(self, lines: Iterable[bytes]) -> Iterator[tuple[int, Row | BadBill]]:
        """Yield number and row of each line of an OpenAI export; days without use are passed over."""
        texts = (line.decode("utf-8-sig", "replace").strip("\r\n") for line in lines)
        header = next(texts, "")
        names, delimiter = _header(header.encode()), _delimiter(header)
        for number, text in enumerate(texts, 2):
            try:
                values = next(csv.reader([text], delimiter=delimiter), [])
            except csv.Error as error:
                yield number, BadBill(str(error))
                continue
            given = {name: value for name, value in zip(names, values, strict=False) if value.strip()}
            if given.keys() - {"start_time", "end_time", "start_time_iso", "end_time_iso"}:
                yield number, self._tried(lambda given=given: _csv_facts(given))  # type: ignore[misc]

    def page_rows(self, document: Any) -> Iterator[Row | BadBill]:
        """Yield a row for each result in a page of an organization API's answer."""
        for bucket in _buckets(document):
            results = bucket.get("results")
            for result in results if isinstance(results, list) else ():
                yield self._tried(lambda bucket=bucket, result=result: _page_facts(bucket, result))  # type: ignore[misc]

    def _tried(self, facts: Callable[[], Row]) -> Row | BadBill:
        try:
            row = facts()
        except (BadBill, ValueError, OverflowError) as error:
            return BadBill(str(error))
        about = "|".join(str(row.get(name)) for name in _ABOUT) + "|" + str(row.pop("whose"))
        self._alike[about] += 1
        project = row["project"]
        return row | {
            "project": self._digester.digest(project) if project else None,
            "line_digest": self._digester.digest(f"{about}|{self._alike[about]}"),
            "imported": self._imported,
        }


_ABOUT = ("source", "provider", "time", "end_time", "model", "item", "service_tier", "project")


def _csv_facts(given: Mapping[str, str]) -> Row:
    tier = "batch" if given.get("batch", "").lower() == "true" else given.get("service_tier")
    times = {"time": as_nanoseconds(given.get("start_time")), "end_time": as_nanoseconds(given.get("end_time"))}
    whose = [given.get(name) for name in ("user_id", "api_key_id", "organization_id")]
    row = {"provider": "openai", "project": given.get("project_id"), "service_tier": tier, "whose": whose} | times
    if _COSTS in given:
        return row | _charged(given[_COSTS], given.get("amount_currency"), given.get("line_item"))
    return row | _counted(given)


def _page_facts(bucket: Mapping[str, Any], result: Any) -> Row:
    if not isinstance(result, Mapping):
        raise BadBill("a result is no object")
    is_anthropic = "starting_at" in bucket
    tier = "batch" if result.get("batch") is True else _text(result.get("service_tier"))
    row = {
        "provider": "anthropic" if is_anthropic else "openai",
        "time": as_nanoseconds(_start(bucket)),
        "end_time": as_nanoseconds(bucket.get("ending_at") or bucket.get("end_time")),
        "project": _text(result.get("workspace_id") or result.get("project_id")),
        "service_tier": tier,
        "whose": [_text(result.get(name)) for name in ("user_id", "api_key_id", "context_window", "inference_geo")],
    }
    amount = result.get("amount")
    if isinstance(amount, Mapping):
        return row | _charged(amount.get("value"), amount.get("currency"), _text(result.get("line_item")))
    if amount is not None:
        named = {"model": _text(result.get("model")), "item": _text(result.get("description"))}
        charged = _charged(amount, result.get("currency"), None)
        return row | charged | named | {"charged_usd": charged["charged_usd"] / 100}
    return row | (_counted_by_anthropic(result) if is_anthropic else _counted(result))


def _counted(given: Mapping[str, Any]) -> Row:
    if count(given.get(_USAGE)) is None:
        raise BadBill(f"{_USAGE} is {given.get(_USAGE)!r}")
    return {
        "source": "usage",
        "model": _text(given.get("model")),
        "requests": count(given[_USAGE]),
        "input_tokens": count(given.get("input_tokens")),
        "cache_read_tokens": count(given.get("input_cached_tokens")),
        "cache_write_tokens": count(given.get("input_cache_write_tokens")),
        "output_tokens": count(given.get("output_tokens")),
    }


def _counted_by_anthropic(given: Mapping[str, Any]) -> Row:
    plain, read = count(given.get("uncached_input_tokens")), count(given.get("cache_read_input_tokens")) or 0
    if plain is None:
        raise BadBill(f"uncached_input_tokens is {given.get('uncached_input_tokens')!r}")
    made = given.get("cache_creation")
    written = sum(count(value) or 0 for value in made.values()) if isinstance(made, Mapping) else 0
    return {
        "source": "usage",
        "model": _text(given.get("model")),
        "input_tokens": plain + read + written,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": count(given.get("output_tokens")),
    }


def _charged(value: Any, currency: Any, item: str | None) -> Row:
    """Return what a line charges; OpenAI's items are ``gpt-5-mini-2025-08-07, cached input``."""
    if str(currency or "usd").lower() != "usd":
        raise BadBill(f"charged in {currency}, not in US dollars")
    try:
        dollars = float(value)
    except (TypeError, ValueError):
        raise BadBill(f"amount is {value!r}") from None
    if not math.isfinite(dollars):
        raise BadBill(f"amount is {value!r}")
    model = item.partition(", ")[0] if item else None
    return {"source": "costs", "model": model, "item": item, "charged_usd": dollars}


def _buckets(document: Any) -> list[Mapping[str, Any]]:
    if not isinstance(document, Mapping):
        return []
    data = document.get("data", [document])
    return [each for each in data if isinstance(each, Mapping)] if isinstance(data, list) else []


def _start(bucket: Mapping[str, Any]) -> Any:
    return bucket.get("starting_at", bucket.get("start_time"))


def _header(line: bytes) -> list[str]:
    text = line.decode("utf-8-sig", "replace").strip()
    return [name.strip().strip('"') for name in text.split(_delimiter(text))]


def _delimiter(line: str) -> str:
    return "\t" if "\t" in line else ","


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None
