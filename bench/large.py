"""A recording of 5 million spans: how long the overview and all slow checks take, and how much memory.

    python bench/large.py [--spans 5000000] [--format json]

The recording is made in SQL: traces of ten spans (server, stages, a statement, an embedding and a chat call), the calls
and the requests that the OTLP receiver would derive from them. The limits are the project's own: 10 s, 2 GB, two cores.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from perfnb import checklist
from perfnb.areas.slow import stages
from perfnb.recording import TABLES, Recording

SPANS_A_TRACE = 10
LIMIT_S, LIMIT_GB = 10, 2

_NAMES = ["POST /chat", "rewrite", "retrieve", "embeddings", "SELECT", "rerank", "generate", "chat", "POST", "store"]
_OPERATIONS = ["server", "step", "retrieval", "embeddings", "database", "step", "step", "chat", "http", "step"]
_PARENTS = [None, 0, 0, 2, 2, 0, 0, 6, 7, 0]
_STARTS_MS = [0, 5, 60, 62, 90, 120, 180, 185, 187, 1700]
_LENGTHS_MS = [1750, 50, 55, 25, 20, 50, 1500, 1490, 1480, 30]


def make(folder: Path, spans: int) -> Path:
    """Write the recording and return its path."""
    path = folder / "large.perfnb"
    Recording.create(path)
    traces = spans // SPANS_A_TRACE
    connection = duckdb.connect()
    connection.execute("SET memory_limit = '1500MB'")
    connection.execute(f"SET temp_directory = '{folder}'")
    lists = {
        "names": _NAMES, "operations": _OPERATIONS, "parents": _PARENTS, "starts": _STARTS_MS, "lengths": _LENGTHS_MS,
    }  # fmt: skip
    for name, values in lists.items():
        connection.execute(f"SET VARIABLE {name} = {values!r}".replace("None", "NULL"))
    start = "(1790000000000000000 + trace * 20000000 + CAST(getvariable('starts')[place] * 1e6 AS BIGINT))"
    length = "getvariable('lengths')[place] * (0.7 + (hash(trace) % 100) / 100.0)"
    source = f"FROM range({traces}) t(trace), range(1, {SPANS_A_TRACE + 1}) p(place)"
    _write(connection, path, "spans", f"""
        SELECT printf('%032x', trace) AS trace_id, printf('%016x', trace * 16 + place) AS span_id,
               CASE WHEN getvariable('parents')[place] IS NOT NULL
                    THEN printf('%016x', trace * 16 + getvariable('parents')[place] + 1) END AS parent_span_id,
               getvariable('names')[place] AS name, CASE place WHEN 1 THEN 'SERVER' WHEN 9 THEN 'CLIENT' ELSE 'INTERNAL' END AS kind,
               'app' AS service, getvariable('operations')[place] AS operation, {start} AS start_time,
               {length} AS duration_ms, 'OK' AS status, 'otlp' AS source,
               '{{"http.route": "/chat", "thread.id": ' || trace || '}}' AS attributes {source}""")  # fmt: skip
    _write(
        connection,
        path,
        "llm_calls",
        f"""
        SELECT printf('call%d-%d', trace, place) AS call_id, printf('%032x', trace) AS trace_id,
               printf('%016x', trace * 16 + place) AS span_id,
               printf('%016x', trace * 16 + getvariable('parents')[place] + 1) AS parent_span_id, 'span' AS source,
               getvariable('operations')[place] AS operation, 'gpt-5-mini' AS request_model, true AS stream,
               {start} AS start_time, {length} AS duration_ms, {length} * 0.3 AS time_to_first_token_ms,
               600 + trace % 300 AS input_tokens, 60 + trace % 40 AS output_tokens {source} WHERE place IN (4, 8)""",
    )
    _write(
        connection,
        path,
        "http_requests",
        f"""
        SELECT printf('request%d', trace) AS request_id, printf('%032x', trace) AS trace_id,
               printf('%016x', trace * 16 + 1) AS span_id, 'span' AS source, 'POST' AS method, '/chat' AS route,
               200 AS status_code, {start} AS start_time, {length} AS duration_ms {source} WHERE place = 1""",
    )
    return path


def _write(connection: duckdb.DuckDBPyConnection, path: Path, table: str, sql: str) -> None:
    columns = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in TABLES[table].types.items())
    empty = ", ".join(f"NULL AS {name}" for name in TABLES[table].types)
    (path / table).mkdir(exist_ok=True)
    target = path / table / "bench.parquet"
    connection.execute(
        f"COPY (SELECT {columns} FROM (SELECT {empty} WHERE false UNION ALL BY NAME {sql})) "
        f"TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
    )


def measure(path: Path) -> dict[str, float]:
    """Return seconds of overview and checks and the peak of memory in GB, in this process."""
    began = time.perf_counter()
    with Recording.open(path) as recording:
        stages.overview(recording)
        stages.percentiles(recording)
        overview = time.perf_counter() - began
        answers = checklist.run(recording, area="slow")
    return {
        "overview_s": overview,
        "total_s": time.perf_counter() - began,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "checks": len(answers.findings) + len(answers.clear) + len(answers.not_measured),
        "findings": len(answers.findings),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="time overview and slow checks on a large recording")
    parser.add_argument("--spans", type=int, default=5_000_000)
    parser.add_argument("--format", default="table", choices=("table", "json"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    with tempfile.TemporaryDirectory(prefix="perfnb-large-") as folder:
        path = make(Path(folder), options.spans)
        # a process of its own, so that making the recording does not count
        result = subprocess.run(
            [sys.executable, __file__, "--measure", str(path)], capture_output=True, text=True, check=True
        )
        size = sum(file.stat().st_size for file in path.rglob("*.parquet"))
    measured = json.loads(result.stdout) | {
        "spans": options.spans,
        "recording_mb": size / 2**20,
        "cores": os.cpu_count(),
    }
    if options.format == "json":
        print(json.dumps(measured))
    else:
        print(
            f"{options.spans:,} spans ({measured['recording_mb']:.0f} MB): overview {measured['overview_s']:.1f} s, with all "
            f"{measured['checks']} slow checks {measured['total_s']:.1f} s (limit {LIMIT_S} s), peak {measured['peak_gb']:.2f} GB (limit {LIMIT_GB} GB), "
            f"{measured['cores']} cores"
        )
    return 0 if measured["total_s"] <= LIMIT_S and measured["peak_gb"] <= LIMIT_GB else 1


if __name__ == "__main__":
    raise SystemExit(main())
