"""A temporary copy of some of a table's rows, on which other indexes are built, measured and dropped."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import psycopg

from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.tuner.build import lists_for
from perfnb.tuner.engines.base import Filter
from perfnb.tuner.engines.pgvector import DEFAULTS, PgvectorTable, connected
from perfnb.tuner.engines.pgvector_shape import OPERATORS, Shape
from perfnb.tuner.setting import Family
from perfnb.tuner.tuning import Candidate

COPY = "perfnb_copy"
BUILD_TIMEOUT_MS = 600_000
MOST_DIMENSIONS = {"vector": 2000, "halfvec": 4000, "bit": 64_000}
OPCLASS_ENDS = {distance: end for end, (_, distance) in OPERATORS.items()}


@dataclass(frozen=True)
class Plan:
    """An index to build: ``ddl`` has ``{table}`` and ``{column}`` where it is to be built, ``own_ddl`` is for the user."""

    name: str
    title: str
    ddl: str
    own_ddl: str
    shape: Shape
    filters: tuple[Filter | None, ...]
    has_ladder: bool = True


class Copy:
    """Rows of a table in a temporary one, for as long as a ``with`` block lasts.

    Raises NotPermitted where temporary tables may not be made (a standby, a role without the right), and WrongUse where
    not even a thousand rows fit into ``most_bytes``.
    """

    def __init__(
        self, source: PgvectorTable, filters: Sequence[Filter], *, most_rows: int, most_bytes: int, seed: int
    ) -> None:
        self.notes: list[str] = []
        self._source, self._given = source, filters
        self._bytes_each = 4 * source.column.dimensions + 64
        self._rows = min(most_rows, most_bytes // self._bytes_each)
        self._seed = seed
        if self._rows < 1000:
            raise WrongUse("a copy of a thousand rows is larger than allowed", hint="most_bytes=…")

    def __enter__(self) -> Self:
        self._connection = connected(self._source.dsn, self._source.connect)
        try:
            self._fill()
        except psycopg.Error as error:
            self._connection.close()
            hint = "the role needs TEMPORARY on the database, which must be no standby"
            raise NotPermitted(str(error).partition("\n")[0], hint=hint) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()  # the temporary table goes with the session

    def _fill(self) -> None:
        source = self._source
        total = max(1, source.describe().rows)
        percent = min(100.0, 100.0 * self._rows / total)
        passes = "".join(
            f", coalesce({each.condition}, false) AS passes_{at}" for at, each in enumerate(self._given, 1)
        )
        self._connection.execute(f"SET statement_timeout = {BUILD_TIMEOUT_MS}")
        self._connection.execute(
            f"CREATE /* perfnb */ TEMP TABLE {COPY} AS SELECT {source.shape.row_id} AS row_id,"
            f" {source.column.column} AS embedding{passes} FROM {source.column.table}"
            f" TABLESAMPLE BERNOULLI ({percent}) REPEATABLE ({self._seed}) LIMIT {self._rows}"
        )
        self._connection.execute(f"ANALYZE {COPY}")
        self.rows = self._one(f"SELECT count(*) FROM {COPY}")
        self.filters = [self._copied(at, each) for at, each in enumerate(self._given, 1)]
        if self.rows < total:
            self.notes.append(
                f"candidates were measured on a copy of {self.rows:,} of {total:,} rows: recall falls as rows grow"
            )

    def _copied(self, at: int, given: Filter) -> Filter:
        rows = self._one(f"SELECT count(*) FROM {COPY} WHERE passes_{at}")
        return Filter(given.title, f"passes_{at}", rows, self.rows)

    def _one(self, statement: str) -> int:
        row = self._connection.execute(statement).fetchone()
        return int(row[0]) if row else 0

    @property
    def _shape(self) -> Shape:
        return replace(
            self._source.shape,
            table=COPY,
            column="embedding",
            key="",
            key_operator="",
            key_query="",
            rerank=False,
            row_id="row_id",
        )

    def plans(self, name: str, filter_column: str | None) -> list[Plan]:
        """Return the indexes that a candidate's name stands for: one, or one for each filter; none where it can't be."""
        if self._why_never(name):
            return []
        match name:
            case "partial":
                return [self._partial(each) for each in self.filters]
            case "filter index":
                return [self._by_filter(each, filter_column) for each in self.filters]
            case "halfvec":
                return [self._halves()]
            case "binary":
                return [self._bits()]
        return [self._whole(name)]

    def why_not(self, name: str) -> str:
        """Return why a candidate has no plan."""
        return self._why_never(name) or "it needs a filter: filter_column=… or filters=[…]"

    def _why_never(self, name: str) -> str:
        kind, dimensions = self._source.column.type, self._source.column.dimensions
        most = {"halfvec": "halfvec", "binary": "bit"}.get(name, kind)
        if kind not in ("vector", "halfvec"):
            return f"not for columns of type {kind}"
        if name == "halfvec" and kind == "halfvec":
            return "the column is halfvec already"
        if name == "binary" and self._source.distance not in ("cosine", "inner product", "l2"):
            return f"bits say little about {self._source.distance}"
        if not dimensions and name in ("halfvec", "binary"):
            return "the column has no fixed number of dimensions"
        if name != "filter index" and dimensions > MOST_DIMENSIONS[most]:
            return f"an index holds at most {MOST_DIMENSIONS[most]} dimensions of a {most}"
        return ""

    def _whole(self, name: str) -> Plan:
        index = self._source.index
        now = index.options if index else {}
        if name == "ivfflat":
            method, options, title = "ivfflat", {"lists": lists_for(self.rows)}, "IVFFlat, lists = rows / 1000"
        elif name == "denser":
            method, options = "hnsw", {"m": 32, "ef_construction": 200}
            title = "HNSW with m 32, ef_construction 200"
        else:
            method = index.method if index else "hnsw"
            options, title = {**DEFAULTS[method], **now}, f"{method} as it is, built anew after the data"
        told = ", ".join(f"{key} = {value}" for key, value in options.items())
        ddl = f"USING {method} ({{column}} {self._opclass(self._source.column.type)}) WITH ({told})"
        if method == "ivfflat":
            own = ddl.replace(f"lists = {options['lists']}", f"lists = {lists_for(self._source.describe().rows)}")
        return Plan(
            name,
            title,
            ddl,
            own if method == "ivfflat" and name == "ivfflat" else ddl,
            self._shape,
            (None, *self.filters),
        )

    def _opclass(self, kind: str) -> str:
        return f"{kind}_{OPCLASS_ENDS[self._source.distance]}"

    def _halves(self) -> Plan:
        size = self._source.column.dimensions
        ddl = f"USING hnsw (({{column}}::halfvec({size})) {self._opclass('halfvec')})"
        shape = replace(
            self._shape, key=f"(embedding::halfvec({size}))", key_operator=self._shape.operator,
            key_query=f"{{}}::vector::halfvec({size})",
        )  # fmt: skip
        return Plan("halfvec", "HNSW on 16-bit floats: half the size", ddl, ddl, shape, (None, *self.filters))

    def _bits(self) -> Plan:
        size, kind = self._source.column.dimensions, self._source.column.type
        ddl = f"USING hnsw ((binary_quantize({{column}})::bit({size})) bit_hamming_ops)"
        shape = replace(
            self._shape, key=f"(binary_quantize(embedding)::bit({size}))", key_operator="<~>",
            key_query=f"binary_quantize({{}}::{kind})::bit({size})", rerank=True,
        )  # fmt: skip
        return Plan(
            "binary",
            "HNSW on one bit a dimension, the nearest ranked again by full vectors",
            ddl,
            ddl,
            shape,
            (None, *self.filters),
        )

    def _partial(self, each: Filter) -> Plan:
        ddl = f"USING hnsw ({{column}} {self._opclass(self._source.column.type)}) WHERE "
        own = f"{ddl}(the filter)"
        return Plan(
            f"partial ({each.title})",
            "HNSW over the rows that meet the filter alone",
            f"{ddl}{each.condition}",
            own,
            self._shape,
            (each,),
        )

    def _by_filter(self, each: Filter, column: str | None) -> Plan:
        own = f"({column})" if column and each.title.startswith(column) else "(the columns of the filter)"
        title = "btree by the filter, and an exact scan of what it leaves"
        return Plan(
            f"filter index ({each.title})", title, f"({each.condition})", own, self._shape, (each,), has_ladder=False
        )

    @contextlib.contextmanager
    def built(self, plan: Plan) -> Iterator[tuple[PgvectorTable, Candidate]]:
        """Build the index, and drop it at the end. Raises NotReachable where it takes too long or fails."""
        name = "perfnb_candidate"
        began = time.monotonic()
        try:
            self._connection.execute(f"CREATE INDEX {name} ON {COPY} {plan.ddl.format(column='embedding')}")
            self._connection.execute(f"ANALYZE {COPY}")
        except psycopg.Error as error:
            raise NotReachable(
                f"{plan.name} could not be built: {str(error).partition(chr(10))[0]}", hint="fewer rows"
            ) from None
        took_s = time.monotonic() - began
        try:
            engine = Built.of(self._connection, plan, self._source.distance)
            ddl = f"CREATE INDEX CONCURRENTLY ON {self._source.column.table} {plan.own_ddl.format(column=self._source.column.column)}"
            size = self._one(f"SELECT pg_relation_size('{name}')")
            yield engine, Candidate(plan.name, plan.title, ddl, self.rows, took_s, size)
        finally:
            if not self._connection.closed:
                self._connection.execute(f"DROP INDEX IF EXISTS {name}")


class Built(PgvectorTable):
    """A copy with a candidate index."""

    _plan: Plan

    @classmethod
    def of(cls, connection: "psycopg.Connection[Any]", plan: Plan, distance: str) -> Self:
        """Return the copy, searched as the candidate wants it."""
        made = cls.on(connection, COPY, "embedding", distance, plan.shape)
        made._plan = plan
        made._use_all()
        return made

    def _use_all(self) -> None:
        if self._plan.has_ladder and self.indexes:
            self.index = self.indexes[0]

    def families(self, limit: int, condition: Filter | None) -> tuple[Family, ...]:
        """Return the settings to try; none for a btree."""
        if not self._plan.has_ladder:
            return ()
        return super().families(limit, condition)
