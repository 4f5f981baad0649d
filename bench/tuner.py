"""Does the vector tuner's pick meet its recall target on queries it never saw, and with how many searches?

    python bench/tuner.py [--rows 20000] [--rounds 3] [--seed 7] [--target 0.95] [--data text gaussian] [--format json]

On two sets of 20,000 vectors, 128 dimensions each, in pgvector's HNSW (Postgres 18) and in Qdrant's own engine
(qdrant-edge), m 16:

- ``text``: embeddings made from real text, without a model: the standard library's sources in pieces of 600 characters,
  TF-IDF, truncated SVD (latent semantic analysis, fitted on the stored pieces alone). They are near each other where the
  texts share words, as embeddings are; they are no neural model's.
- ``gaussian``: independent numbers, the hardest case there is: no vector is near another.

Queries are pieces (vectors) that are not stored. Each round draws its own: 200 to choose on, 200 that the tuner holds
back, and 400 that it never sees, on which the pick is judged here. Beside it stands the full grid: every setting on all
200 queries, the cheapest whose recall reaches the target. ``searches`` counts exact ones, too, on both sides.
"""

import argparse
import itertools
import json
import re
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from scipy import sparse

from perfnb.demo.corpus import cut
from perfnb.demo.postgres import Postgres
from perfnb.tuner import EXACT, Engine, PgvectorTable, QdrantShard, Question, Setting, Tuning, tune
from perfnb.tuner.intervals import mean
from perfnb.tuner.measuring import Measuring, Pace

Matrix = npt.NDArray[np.float32]
DIMENSIONS = 128
K = 10
CHOOSING, HELD_BACK, UNSEEN = 200, 200, 400
LEAST_IN, MOST_IN = 3, 0.2
WORD = re.compile(r"[a-z][a-z0-9]{2,}")
PLACES = ("lib2to3", "site-packages", "test", "idlelib", "turtledemo")


def main() -> int:
    options = _options()
    found = []
    for data in options.data:
        stored, queries = vectors(data, options.rows, options.rounds * (CHOOSING + HELD_BACK + UNSEEN), options.seed)
        for make in (pgvector, qdrant):
            with make(stored) as engine:
                found += list(rounds(engine, queries, data, options))
    if options.format == "json":
        print(json.dumps({"schema": 1, "target": options.target, "rounds": found}, indent=1))
    else:
        print(as_table(found, options.target))
    return 0 if all(each["is_met"] for each in found) else 1


def rounds(engine: Engine, queries: Matrix, data: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what each round gave: the pick's recall on unseen queries, and the searches it took."""
    each = CHOOSING + HELD_BACK + UNSEEN
    for number in range(options.rounds):
        mine = queries[number * each : (number + 1) * each]
        tuning = tune(
            engine, mine[:-UNSEEN], k=K, target=options.target, choosing=CHOOSING, held_back=HELD_BACK, seed=number
        )
        grid, grid_searches = full_grid(engine, mine[:CHOOSING], options.target)
        yield told(engine, tuning, mine[-UNSEEN:], data, grid, grid_searches)
        print(f"{data}, {engine.describe().engine}, round {number + 1}: {tuning.pick}", file=sys.stderr)


def told(
    engine: Engine, tuning: Tuning, unseen: Matrix, data: str, grid: Setting | None, grid_searches: int
) -> dict[str, Any]:
    """Return one round as data."""
    assert tuning.pick is not None
    setting = setting_of(tuning)
    recall = mean(Measuring(engine, [Question(each) for each in unseen], K, None, pace()).recalls(setting, len(unseen)))
    made = tuning.searches + tuning.exact_searches
    return {
        "data": data, "engine": engine.describe().engine, "pick": str(setting), "grid_pick": str(grid),
        "recall": recall.value, "low": recall.low, "high": recall.high, "is_met": recall.value >= tuning.target,
        "held_back_recall": tuning.pick.point.recall, "is_proven": tuning.pick.is_proven,
        "searches": made, "of_grid": made / grid_searches, "seconds": tuning.seconds,
        "p50_ms": tuning.pick.point.p50_ms,
    }  # fmt: skip


def setting_of(tuning: Tuning) -> Setting:
    """Return the tuning's pick as it is searched with; where that is no index, the least setting that was enough."""
    assert tuning.pick is not None
    points = [
        each for each in tuning.points if each.part == "held back" and each.parameter and each.recall >= tuning.target
    ]
    point = tuning.pick.point if tuning.pick.settings else min(points, key=lambda each: each.value or 0, default=None)
    return Setting(point.family, point.parameter, point.value) if point else EXACT


def full_grid(engine: Engine, queries: Matrix, target: float) -> tuple[Setting | None, int]:
    """Return the cheapest setting whose mean recall reaches ``target``, by measuring all, and the searches that takes.

    Verifying the pick on held-back queries is counted in, as it is for the tuner.
    """
    paced = pace()
    measuring = Measuring(engine, [Question(each) for each in queries], K, None, paced)
    family = engine.families(K, None)[0]
    recalls = {each: measuring.recalls(each, len(queries)) for each in family.settings()}
    enough = (each for each, found in recalls.items() if np.mean(found) >= target)
    return next(enough, None), paced.made + 2 * HELD_BACK


def pace() -> Pace:
    import threading

    return Pace(threading.Event())


@contextmanager
def pgvector(stored: Matrix) -> Iterator[Engine]:
    """Yield the vectors in a Postgres of our own, with an HNSW index."""
    with (
        tempfile.TemporaryDirectory(prefix="perfnb-tuner-") as folder,
        Postgres(Path(folder) / "postgres.log") as server,
    ):
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute(f"CREATE TABLE pieces (id bigint PRIMARY KEY, embedding vector({DIMENSIONS}) NOT NULL)")
            with connection.cursor().copy("COPY pieces FROM STDIN") as copy:
                for number, vector in enumerate(stored):
                    copy.write_row((number, str(vector.tolist())))
            connection.execute("SET maintenance_work_mem = '256MB'")
            connection.execute("CREATE INDEX ON pieces USING hnsw (embedding vector_cosine_ops)")
        with PgvectorTable(server.dsn, "pieces") as table:
            yield table


@contextmanager
def qdrant(stored: Matrix) -> Iterator[Engine]:
    """Yield the vectors in a shard of Qdrant's engine."""
    import qdrant_edge as edge

    with tempfile.TemporaryDirectory(prefix="perfnb-tuner-") as folder:
        config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(DIMENSIONS, edge.Distance.Cosine),
            hnsw_config=edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=10, default_segment_number=1),
        )
        shard = edge.EdgeShard.create(f"{folder}/shard", config)
        points = [edge.Point(number, vector.tolist(), {}) for number, vector in enumerate(stored)]
        shard.update(edge.UpdateOperation.upsert_points(points))
        shard.optimize()
        yield QdrantShard(shard, dimensions=DIMENSIONS, build={"m": 16, "ef_construct": 100})
        shard.close()


def vectors(data: str, rows: int, queries: int, seed: int) -> tuple[Matrix, Matrix]:
    """Return vectors to store and vectors to ask for, which are not among them."""
    rng = np.random.default_rng(seed)
    if data == "gaussian":
        drawn = rng.normal(size=(rows + queries, DIMENSIONS)).astype(np.float32)
        return drawn[:rows], drawn[rows:]
    texts = pieces(rows + queries)
    rng.shuffle(texts)
    return embedded(texts[:rows], texts[rows:])


def pieces(number: int) -> list[str]:
    """Return so many different pieces of the standard library's sources."""
    library = Path(sysconfig.get_path("stdlib"))
    files = (path for path in sorted(library.rglob("*.py")) if not set(path.relative_to(library).parts) & set(PLACES))
    more = sorted((library / "test").rglob("*.py"))
    texts = (path.read_text(errors="replace") for path in itertools.chain(files, more))
    found = dict.fromkeys(piece for text in texts for piece in cut(text) if len(WORD.findall(piece)) >= 20)
    if len(found) < number:
        raise SystemExit(f"the standard library here has {len(found)} pieces, {number} are needed: --rows, --rounds")
    return list(found)[:number]


def embedded(stored: list[str], asked: list[str]) -> tuple[Matrix, Matrix]:
    """Return both as unit vectors: TF-IDF and truncated SVD, fitted on ``stored``."""
    counts = [Counter(WORD.findall(text.lower())) for text in stored]
    in_pieces = Counter(word for each in counts for word in each)
    known = [word for word, times in in_pieces.items() if times >= LEAST_IN and times <= MOST_IN * len(stored)]
    places = {word: at for at, word in enumerate(sorted(known))}
    weights = np.array([np.log(len(stored) / in_pieces[word]) for word in sorted(known)])
    first = _weighted(counts, places, weights)
    axes = _axes(first)
    second = _weighted([Counter(WORD.findall(text.lower())) for text in asked], places, weights)
    return _units(first @ axes), _units(second @ axes)


def _weighted(counts: "list[Counter[str]]", places: dict[str, int], weights: npt.NDArray[np.float64]) -> Any:
    entries = [
        (row, places[word], times) for row, each in enumerate(counts) for word, times in each.items() if word in places
    ]
    rows, columns, times = (np.array(part) for part in zip(*entries, strict=True))
    values = (1 + np.log(times)) * weights[columns]
    matrix = sparse.csr_matrix((values, (rows, columns)), shape=(len(counts), len(places)))
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(lengths, 1e-12)) @ matrix


def _axes(matrix: Any, rounds: int = 3) -> npt.NDArray[np.float64]:
    """Return the leading right singular vectors (N. Halko, P. Martinsson and J. Tropp 2011)."""
    found = np.random.default_rng(1).normal(size=(matrix.shape[1], DIMENSIONS + 20))
    for _ in range(rounds):
        found = np.linalg.qr(matrix.T @ (matrix @ found))[0]
    _, _, rotation = np.linalg.svd(matrix @ found, full_matrices=False)
    return np.asarray(found @ rotation.T[:, :DIMENSIONS])


def _units(values: npt.NDArray[np.float64]) -> Matrix:
    lengths = np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return np.asarray(values / lengths, np.float32)


def as_table(found: list[dict[str, Any]], target: float) -> str:
    """Return the rounds as a table for the README."""
    lines = [
        "| vectors | engine | pick | recall@10 on unseen queries | searches, part of a full grid's | full grid's pick |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for each in found:
        sure = f"{each['recall']:.3f} ({each['low']:.3f} to {each['high']:.3f})"
        part = f"{each['searches']:,}, {each['of_grid']:.0%}"
        lines.append(f"| {each['data']} | {each['engine']} | {each['pick']} | {sure} | {part} | {each['grid_pick']} |")
    met = sum(each["is_met"] for each in found)
    lines.append(f"\n{met} of {len(found)} picks meet {target:g} on queries they never saw.")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7, help="of the vectors: another one draws others")
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--data", nargs="+", choices=("text", "gaussian"), default=["text", "gaussian"])
    parser.add_argument("--format", choices=("table", "json"), default="table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
