"""Prices: a million calls in seconds, and our list beside litellm's.

    python bench/prices.py [--calls 1000000] [--rounds 5] [--litellm FILE] [--format json]

``perfnb`` prices a recording of calls in SQL, with rates looked up once for each model, tier and quarter of an hour;
``genai-prices`` is its ``calc_price``, called for each of a sample of the same calls. Both in one run, in turns; what is
printed is seconds a million calls and their ratio, and both must come to the same dollars.

The comparison needs litellm's price file: of an installed litellm, or of a wheel or JSON named by ``--litellm``
(``pip download --no-deps litellm`` is enough, it is not imported). Every model that both lists price by token is
compared, input, output, cache reads and writes; differences are told apart by why they are there.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
from genai_prices import Usage, calc_price

from perfnb.attribution import prepare
from perfnb.attribution.money import prepare_money, spent_usd
from perfnb.prices import Prices, Rates
from perfnb.recording import Recording

PRICE_FILE = "litellm/model_prices_and_context_window_backup.json"
MODELS = (
    ("openai", "gpt-5-mini"),
    ("openai", "gpt-4o-2024-08-06"),
    ("openai", "text-embedding-3-small"),
    ("anthropic", "claude-sonnet-4-5"),
    ("aws", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
    ("google", "gemini-2.5-pro"),
)
START = 1_790_000_000_000_000_000
SAMPLE = 1000
PROVIDERS = {
    "openai": "openai",
    "azure": "azure",
    "anthropic": "anthropic",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "gemini": "google",
    "vertex_ai-language-models": "google",
    "mistral": "mistral",
    "xai": "x-ai",
    "deepseek": "deepseek",
    "groq": "groq",
    "cohere_chat": "cohere",
    "voyage": "voyageai",
}
PARTS = {
    "input": ("input_usd", "input_cost_per_token"),
    "output": ("output_usd", "output_cost_per_token"),
    "cache read": ("cache_read_usd", "cache_read_input_token_cost"),
    "cache write": ("cache_write_usd", "cache_creation_input_token_cost"),
}


def main() -> int:
    options = _options()
    made: dict[str, Any] = {"list": Prices().version, "speed": speed(options.calls, options.rounds)}
    price_file = _price_file(options.litellm)
    if price_file is not None:
        made["litellm"] = compare(price_file)
    print(json.dumps(made, indent=2) if options.format == "json" else _text(made))
    return 0 if made["speed"]["same_dollars"] else 1


def speed(calls: int, rounds: int) -> dict[str, Any]:
    """Return seconds a million calls, ours and the peer's, and whether the dollars agree."""
    with tempfile.TemporaryDirectory(prefix="perfnb-prices-") as folder:
        recording = _recording(Path(folder), calls)
        prepare(recording)
        sample = recording.query(f"SELECT * FROM llm_calls ORDER BY call_id LIMIT {SAMPLE}").to_dict("records")
        ours, theirs = [], []
        for turn in range(rounds):
            ours.append(_seconds(lambda turn=turn: _price(recording, turn)) / calls * 1e6)
            theirs.append(_seconds(lambda: [_peer(call) for call in sample]) / len(sample) * 1e6)
        peer = sum(_peer(call) for call in sample)
        priced = recording.query("SELECT call_id, cost_usd FROM priced_calls").set_index("call_id")["cost_usd"]
        mine = sum(priced[call["call_id"]] for call in sample)
        total = spent_usd(recording)
        recording.close()
    ratios = [theirs[turn] / ours[turn] for turn in range(rounds)]
    return {
        "calls": calls,
        "perfnb_s_per_million": round(statistics.median(ours), 2),
        "genai_prices_s_per_million": round(statistics.median(theirs), 1),
        "times_faster": round(statistics.median(ratios), 1),
        "times_faster_range": [round(min(ratios), 1), round(max(ratios), 1)],
        "spent_usd": round(total, 2),
        "same_dollars": abs(mine - peer) <= 1e-9 * max(peer, 1e-9),
    }


def _recording(folder: Path, calls: int) -> Recording:
    recording = Recording.create(folder / "million.perfnb")
    (recording.path / "llm_calls").mkdir()
    names = ", ".join(f"('{provider}', '{model}')" for provider, model in MODELS)
    with duckdb.connect() as connection:
        connection.execute(
            f"""
            COPY (
                WITH models AS (SELECT row_number() OVER () - 1 AS id, * FROM (VALUES {names}) AS m(provider, model))
                SELECT 'call' || lpad(CAST(i AS VARCHAR), 9, '0') AS call_id, 'proxy' AS source, m.provider,
                       'chat' AS operation, '/v1/chat/completions' AS path, m.model AS request_model,
                       m.model AS response_model, {START} + i * 80_000_000 AS start_time, 900.0 AS duration_ms,
                       200 AS status_code, 'prompt' || i AS prompt_digest,
                       CAST(hash(i) % 300_000 AS BIGINT) AS input_tokens,
                       CAST(hash(i) % 300_000 / 3 AS BIGINT) AS cache_read_tokens, 0 AS cache_write_tokens,
                       CASE WHEN m.id = 2 THEN 0 ELSE CAST(hash(i + 7) % 2000 AS BIGINT) END AS output_tokens
                FROM range({calls}) AS r(i) JOIN models m ON m.id = r.i % {len(MODELS)}
            ) TO '{recording.path / "llm_calls" / "made.parquet"}' (FORMAT parquet)
            """
        )
    return recording


def _price(recording: Recording, turn: int) -> None:
    recording.derived("priced calls", dict).clear()
    prepare_money(recording, Prices())


def _peer(call: Mapping[str, Any]) -> float:
    usage = Usage(
        input_tokens=int(call["input_tokens"]),
        cache_read_tokens=int(call["cache_read_tokens"]),
        output_tokens=int(call["output_tokens"]),
    )
    at = datetime.fromtimestamp(call["start_time"] / 1e9, UTC)
    model, provider = call["response_model"], call["provider"]
    return float(calc_price(usage, model, provider_id=provider, genai_request_timestamp=at).total_price)


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Difference:
    """Where the lists differ for one model: part to our and their dollars a million tokens, and why."""

    provider: str
    model: str
    parts: Mapping[str, tuple[float, float]]
    why: str


def compare(price_file: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many models both lists price alike, by provider, and why the others differ."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    differences = []
    for provider, model, theirs in _priced_by_token(price_file):
        bands = Prices().rates(provider, model, at_ns=time.time_ns())
        found = _difference(provider, model, bands[0], theirs) if bands else None
        counts[provider]["litellm only" if not bands else "differ" if found else "same"] += 1
        differences += [found] if found else []
    return {
        "providers": {provider: dict(count) for provider, count in sorted(counts.items())},
        "reasons": dict(Counter(each.why for each in differences).most_common()),
        "differences": [vars(each) for each in differences],
    }


def _priced_by_token(price_file: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for name, entry in price_file.items():
        provider = PROVIDERS.get(entry.get("litellm_provider", ""))
        if provider and entry.get("mode") in ("chat", "responses", "embedding") and entry.get("input_cost_per_token"):
            prefix, slash, rest = name.partition("/")
            is_prefix = slash and prefix in (entry["litellm_provider"], "bedrock", "gemini", "azure", "voyage")
            yield provider, rest if is_prefix else name, entry


def _difference(provider: str, model: str, ours: Rates, theirs: Mapping[str, Any]) -> Difference | None:
    parts = {}
    for part, (mine, other) in PARTS.items():
        if (given := theirs.get(other)) is not None and abs(getattr(ours, mine) - given) > 0.005 * given + 1e-12:
            parts[part] = (round(getattr(ours, mine) * 1e6, 4), round(given * 1e6, 4))
    return Difference(provider, model, parts, _why(ours, parts, theirs)) if parts else None


def _why(ours: Rates, parts: Mapping[str, tuple[float, float]], theirs: Mapping[str, Any]) -> str:
    ratios = [their / mine for mine, their in parts.values() if mine]
    plain = round(ours.input_usd * 1e6, 4)
    if all(part.startswith("cache") and mine == plain for part, (mine, _) in parts.items()):
        return "genai-prices names no price for the cache, so its tokens are charged as plain input"
    if str(theirs.get("deprecation_date") or "9") < datetime.now(UTC).date().isoformat():
        return "the model is withdrawn, and the lists kept prices of different times"
    if "price of" in ours.source:
        return "genai-prices has no price at this cloud: the maker's is taken, and the source says so"
    if len(ratios) > 1 and max(ratios) - min(ratios) < 0.02:
        return "one price times a region's or an endpoint's surcharge, which the lists give to different names"
    return "the lists disagree"


def _price_file(given: Path | None) -> Mapping[str, Any] | None:
    spec = find_spec("litellm")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = given or next((Path(folder).parent / PRICE_FILE for folder in folders), None)
    if path is None:
        return None
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return dict(json.loads(wheel.read(PRICE_FILE)))
    return dict(json.loads(path.read_text()))


def _text(made: Mapping[str, Any]) -> str:
    fast = made["speed"]
    low, high = fast["times_faster_range"]
    lines = [
        made["list"],
        f"a million calls: {fast['perfnb_s_per_million']} s, calc_price for each {fast['genai_prices_s_per_million']} s: "
        f"{fast['times_faster']} times faster ({low} to {high}), {'the same' if fast['same_dollars'] else 'OTHER'} dollars",
    ]
    if "litellm" not in made:
        return "\n".join([*lines, "litellm is not here: lists were not compared (--litellm FILE)"])
    for provider, counts in made["litellm"]["providers"].items():
        lines.append(f"{provider}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    for why, count in made["litellm"]["reasons"].items():
        lines.append(f"\n{count} models: {why}")
        shown = [each for each in made["litellm"]["differences"] if each["why"] == why]
        for each in random.Random(0).sample(shown, min(8, len(shown))):
            parts = ", ".join(f"{part} {ours:g} / {theirs:g}" for part, (ours, theirs) in each["parts"].items())
            lines.append(f"  {each['provider']} {each['model']}: {parts} (ours / litellm, $ a million)")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000, help="calls in the recording")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--litellm", type=Path, help="litellm's wheel, or its price JSON")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
