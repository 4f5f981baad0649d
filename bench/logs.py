"""How fast the seed's stage table comes out of a JSON-lines log: perfnb, the seed's jq pipeline, and bare DuckDB.

    python bench/logs.py [--lines 2000000] [--rounds 3] [--format json]

The log is like the seed's (C8, C9): four of six lines hold ``.context.pipeline_stage`` and ``execution_time_ms``. All in
one run, in turns: ``stages`` is perfnb's stage table straight from the file (count, mean, max, p50, p95, p99, bad lines
counted); ``import`` makes a recording of it (a span per step with time and request id, as Parquet) and asks that for the
table; ``duckdb`` is the query one writes by hand, ``duckdb declared`` the same told the two columns it needs and so the
least work DuckDB can do; ``jq`` is the seed's pipeline, which yields mean and max alone. Tables must agree.
"""

import argparse
import json
import math
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from perfnb.importing import import_files
from perfnb.importing import stages as stage_table
from perfnb.recording import Recording

Table = dict[str, tuple[float, float]]
"""Stage to mean and max, in ms."""

STAGES = (("query_rewriting", 230.0), ("retrieval", 1200.0), ("reranking", 150.0), ("generation", 2300.0))
JQ = (
    "jq 'select(.context.pipeline_stage) | {{stage: .context.pipeline_stage, time: .execution_time_ms}}' {0} | "
    "jq -s 'group_by(.stage) | map({{stage: .[0].stage, avg_time: (map(.time) | add / length), max_time: (map(.time) | max)}})'"
)
SELECT = (
    "SELECT context.pipeline_stage, count(*), avg(execution_time_ms), max(execution_time_ms), "
    "quantile_cont(execution_time_ms, [0.5, 0.95, 0.99]) FROM read_json('{0}'{1}) "
    "WHERE context.pipeline_stage IS NOT NULL GROUP BY 1"
)
DECLARED = (
    ", format = 'newline_delimited', columns = {context: 'STRUCT(pipeline_stage VARCHAR)', execution_time_ms: 'DOUBLE'}"
)
FROM_RECORDING = (
    "SELECT name, count(*) AS count, avg(duration_ms) AS mean, max(duration_ms) AS max, "
    "percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50, "
    "percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95, "
    "percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ms) AS p99 FROM spans GROUP BY name"
)
TIMES_JQ, TIMES_DUCKDB = 25, 1.5


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="perfnb-logs-") as folder:
        log = Path(folder) / "rag_modulo.log"
        _write(log, options.lines)
        result = _measure(log, options)
    print(json.dumps(result, indent=2) if options.format == "json" else _as_table(result))
    good = result["stages_against_duckdb"] <= TIMES_DUCKDB and (result["jq_against_stages"] or math.inf) >= TIMES_JQ
    return 0 if good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; jq, being slow, has one")
    parser.add_argument("--format", default="table", choices=("table", "json"))
    return parser.parse_args()


def _write(log: Path, lines: int) -> None:
    """Write requests of four stages and two other lines each."""
    chance, moment = random.Random(1), 1_790_000_000.0
    with log.open("w") as file:
        for number in range(lines):
            moment += chance.random() * 0.01
            head = (
                f'{{"timestamp": "{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%S.%fZ}", "level": "INFO", '
                '"logger": "rag_solution.services.search_service", '
            )
            context = f'"context": {{"request_id": "req_{number // 6:08x}", "user_id": "u{number % 97}"'
            if number % 6 < 4:
                stage, usual = STAGES[number % 6]
                took = chance.lognormvariate(0, 0.5) * usual
                tail = f', "pipeline_stage": "{stage}"}}, "execution_time_ms": {took:.3f}}}\n'
                file.write(f'{head}"message": "{stage} completed", {context}{tail}')
            else:
                file.write(f'{head}"message": "Search completed", {context}}}, "result_count": {number % 5}}}\n')


def _measure(log: Path, options: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, Callable[[], Table]] = {
        "stages": lambda: _stages(log),
        "import": lambda: _import(log),
        "duckdb": lambda: _duckdb(SELECT.format(log, "")),
        "duckdb declared": lambda: _duckdb(SELECT.format(log, DECLARED)),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    tables: list[Table] = []
    for _ in range(options.rounds):
        for name, run in runs.items():
            taken[name].append(_timed(run, tables))
    if shutil.which("jq"):
        taken["jq"] = [_timed(lambda: _jq(log), tables)]
    for table in tables[1:]:
        assert _agree(table, tables[0]), (table, tables[0])
    seconds = {name: min(wall for wall, _ in each) for name, each in taken.items()}
    cpu = {name: min(spent for _, spent in each) for name, each in taken.items()}
    return {
        "lines": options.lines,
        "bytes": log.stat().st_size,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "cpu_seconds": {name: round(value, 3) for name, value in cpu.items()},
        **_ratios(seconds, ""),
        **_ratios(cpu, "cpu_"),
    }


def _ratios(seconds: dict[str, float], prefix: str) -> dict[str, float | None]:
    ratios: dict[str, float | None] = {}
    for name in ("stages", "import"):
        ratios[f"{prefix}jq_against_{name}"] = round(seconds["jq"] / seconds[name], 1) if "jq" in seconds else None
        for peer in ("duckdb", "duckdb declared"):
            ratios[f"{prefix}{name}_against_{peer.replace(' ', '_')}"] = round(seconds[name] / seconds[peer], 2)
    return ratios


def _timed(run: Callable[[], Table], tables: list[Table]) -> tuple[float, float]:
    """Return seconds by the clock, and of CPU time, which others on the machine change little."""
    started, spent = time.perf_counter(), _cpu()
    tables.append(run())
    return time.perf_counter() - started, _cpu() - spent


def _cpu() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _agree(one: Table, other: Table) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(a, b, rel_tol=1e-9) for stage in one for a, b in zip(one[stage], other[stage], strict=True)
    )


def _stages(log: Path) -> Table:
    found = stage_table(log)
    assert not found.lines.bad
    return {row[0]: (row[2], row[3]) for row in found.rows}


def _import(log: Path) -> Table:
    with (
        tempfile.TemporaryDirectory(prefix="perfnb-logs-") as folder,
        Recording.create(Path(folder) / "log.perfnb") as recording,
    ):
        assert not import_files(recording, [log]).bad_lines
        frame = recording.query(FROM_RECORDING)
    return {row["name"]: (row["mean"], row["max"]) for _, row in frame.iterrows()}


def _duckdb(sql: str) -> Table:
    with duckdb.connect() as connection:
        return {row[0]: (row[2], row[3]) for row in connection.execute(sql).fetchall()}


def _jq(log: Path) -> Table:
    shown = subprocess.run(JQ.format(log), shell=True, capture_output=True, check=True, text=True).stdout
    return {row["stage"]: (row["avg_time"], row["max_time"]) for row in json.loads(shown)}


def _as_table(result: dict[str, Any]) -> str:
    lines = [f"{result['lines']:,} lines, {result['bytes'] / 1e6:,.0f} MB", f"  {'':16} {'clock':>8}   {'CPU':>8}"]
    for name, taken in sorted(result["seconds"].items(), key=lambda each: each[1]):
        lines.append(f"  {name:16} {taken:8.2f} s {result['cpu_seconds'][name]:8.2f} s")
    for name in ("stages", "import"):
        for prefix, clock in (("", "by the clock"), ("cpu_", "in CPU time")):
            lines.append(
                f"{name}, {clock}: jq takes {result[f'{prefix}jq_against_{name}']} times as long; it takes "
                f"{result[f'{prefix}{name}_against_duckdb']} times as long as the DuckDB query, "
                f"{result[f'{prefix}{name}_against_duckdb_declared']} times with declared columns"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
