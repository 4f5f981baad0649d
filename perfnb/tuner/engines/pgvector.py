"""pgvector: searches on a table of the user's own, in read-only transactions that end in a rollback."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import psycopg
from psycopg import Connection

from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.tuner.engines import pgvector_catalog as catalog
from perfnb.tuner.engines.base import NO_INDEX, Description, Filter, Question, Vector, as_percent, timed, values_for
from perfnb.tuner.engines.pgvector_shape import Shape, as_text, quoted
from perfnb.tuner.recall import Found
from perfnb.tuner.setting import Family, Setting, ladder

MOST_EF = 1000
MOST_PROBES = 32768
STATEMENT_TIMEOUT_MS = 120_000
MOST_VALUES = 10_000
ROUND_TRIPS = 20
EXACT = {"enable_indexscan": "off"}
DEFAULTS = {"hnsw": {"m": 16, "ef_construction": 64}, "ivfflat": {"lists": 100}}
REFUSED = (psycopg.ProgrammingError, psycopg.DataError, psycopg.errors.ReadOnlySqlTransaction)
Connect = Callable[..., "Connection[Any]"]


class PgvectorTable:
    """A vector column of a table. Use it in a ``with`` block, or close it.

    ``distance`` is what the app's searches order by (cosine, l2, inner product …); the index' own where none is named.
    Raises NotReachable, NotInstalled (no pgvector) or WrongUse (no such column, or no vectors in it).
    """

    def __init__(
        self,
        dsn: str,
        table: str,
        column: str = "embedding",
        *,
        distance: str | None = None,
        statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
        connect: Connect = psycopg.connect,
    ) -> None:
        self._connection = connected(dsn, connect)
        self._connection.read_only = True
        self._timeout_ms = statement_timeout_ms
        self.dsn, self.connect = dsn, connect
        try:
            self._setup(table, column, distance)
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def on(cls, connection: "Connection[Any]", table: str, column: str, distance: str, shape: Shape | None) -> Self:
        """Return a table seen through a connection that is there, searched by ``shape``: a temporary copy."""
        made = cls.__new__(cls)
        made._connection = connection
        made._timeout_ms = STATEMENT_TIMEOUT_MS
        made._setup(table, column, distance, shape)
        return made

    def _setup(self, table: str, column: str, distance: str | None, shape: Shape | None = None) -> None:
        self._plans: dict[tuple[Setting, str], str] = {}
        self._described: Description | None = None
        with self._transaction():
            self.versions = catalog.read_version(self._connection)
            self._connection.execute(
                "SELECT '[1]'::vector"
            )  # loads the library, without which its settings are unknown
            self.column = catalog.read_column(self._connection, table, column)
            self.indexes = catalog.read_indexes(self._connection, table, self.column)
        self.index = self._chosen(distance)
        self.shape, self.distance = catalog.shape_of(self.column, self.index, distance)
        self.shape = shape or self.shape

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def describe(self) -> Description:
        """Return what is tuned; counts the rows once."""
        if self._described is None:
            self._described = self._describe()
        return self._described

    def _describe(self) -> Description:
        with self._transaction():
            rows, unindexed, is_counted = catalog.count_rows(self._connection, self.column, self.distance)
        index = self.index
        return Description(
            engine=f"pgvector {self.versions[0]} on PostgreSQL {self.versions[1]}",
            name=self.column.name,
            rows=rows,
            dimensions=self.column.dimensions,
            distance=self.distance,
            index=f"{index.method} {index.name}" if index else None,
            unindexed=unindexed,
            build={**DEFAULTS[index.method], **index.options} if index else {},
            index_rows=index.rows if index and index.rows >= 0 else None,
            now=self._now(),
            round_trip_ms=(trip := self._round_trip_ms()),
            notes=(
                f"latency is seen from here: {trip:.2f} ms of it is the way to the server and back",
                *self._notes(is_counted),
            ),
        )

    def families(self, limit: int, condition: Filter | None) -> tuple[Family, ...]:
        """Return ``hnsw.ef_search`` or ``ivfflat.probes``, under a filter for each way of iterating.

        An index on bits has ``rerank``: how many rows are fetched by it and ranked again by their full vectors.
        """
        if self.index is None:
            return ()
        if self.shape.rerank:
            iterating = (("hnsw.iterative_scan", "relaxed_order"),) if condition and self._iterates else ()
            return (Family("re-ranked", "rerank", ladder(limit, MOST_EF), iterating),)
        now, method = self.current(limit), self.index.method
        extra = [now.value] if now and now.value else []
        if method == "hnsw":
            values = ladder(limit, MOST_EF, (each for each in extra if each >= limit))
        else:
            lists = {**DEFAULTS["ivfflat"], **self.index.options}["lists"]
            values = ladder(1, min(lists, MOST_PROBES), extra)
        if condition is None or not self._iterates:
            return (Family(method, _parameter(method), values),)
        modes = ("off", "relaxed_order", *(["strict_order"] if method == "hnsw" else []))
        name = f"{method}.iterative_scan"
        return tuple(Family(f"{method}, {mode}", _parameter(method), values, ((name, mode),)) for mode in modes)

    def current(self, limit: int) -> Setting | None:
        """Return the setting that a new session of this role has."""
        if self.index is None or self.shape.rerank:
            return None
        parameter = _parameter(self.index.method)
        return Setting(self.index.method, parameter, int(self._now().get(parameter, 0)))

    def sample(self, number: int, seed: int) -> list[Question]:
        """Return rows drawn at random, each with its vector."""
        rows = max(1, self.describe().rows)
        percent = min(100.0, 100.0 * (2 * number + 50) / rows)
        with self._transaction():
            found = self._connection.execute(
                f"SELECT /* perfnb */ id, vector FROM (SELECT {self.shape.row_id} AS id, {self.shape.column}::text AS vector"
                f" FROM {self.shape.table} TABLESAMPLE BERNOULLI (%s) REPEATABLE (%s)"
                f" WHERE {self.shape.column} IS NOT NULL) AS drawn ORDER BY md5(id || %s) LIMIT %s",
                (percent, seed, str(seed), number),
            ).fetchall()
        return [Question(_read(text), own) for own, text in found]

    def exact(self, vector: Vector, limit: int, condition: Filter | None) -> Found:
        """Return the true nearest rows, by a plan that was checked to hold no vector index."""
        statement = self.shape.exact(_where(condition))
        parameters = (as_text(vector), as_text(vector), limit)
        if self._used(Setting("exact scan"), statement, parameters, EXACT) != NO_INDEX:
            raise WrongUse(f"{self.column.name} can't be scanned without its index", hint="enable_seqscan must be on")
        with self._transaction(EXACT):
            return self._found(statement, parameters)

    def search(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> Found:
        """Return what the statement gives with ``setting``, which is read back from the same transaction."""
        statement, parameters = self._statement(vector, limit, setting, condition)
        with self._transaction(_settings(setting)):
            return self._found(statement, parameters)

    def uses(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> str:
        """Return the vector index in the statement's plan, or that there is none."""
        statement, parameters = self._statement(vector, limit, setting, condition)
        return self._used(setting, statement, parameters, _settings(setting))

    def filtered(self, condition: Any) -> Filter:
        """Return a WHERE clause with the rows that meet it; its values stay out of the title."""
        with self._transaction():
            row = self._connection.execute(
                f"SELECT /* perfnb */ count(*) FROM {self.shape.table} WHERE ({condition})"
            ).fetchone()
        rows = int(row[0]) if row else 0
        return Filter(
            f"a filter on {as_percent(rows / max(1, self.describe().rows))}", str(condition), rows, self.describe().rows
        )

    def filters(self, column: str, selectivities: Sequence[float]) -> list[Filter]:
        """Return ``column = ANY (…)`` for values of the column that about these parts of the rows hold."""
        name, total = quoted(column), self.describe().rows
        with self._transaction():
            rows = self._connection.execute(
                f"SELECT /* perfnb */ {name}::text, count(*) FROM {self.shape.table} WHERE {name} IS NOT NULL"
                " GROUP BY 1 ORDER BY 2 DESC LIMIT %s",
                (MOST_VALUES,),
            ).fetchall()
        counts = dict(rows)
        chosen = ((part, values_for(counts, total, part)) for part in selectivities)
        return [
            Filter(
                f"{column} on {as_percent(part)}", self._any(name, values), sum(counts[each] for each in values), total
            )
            for part, values in chosen
            if values
        ]

    def _any(self, name: str, values: Sequence[str]) -> str:
        literals = [psycopg.sql.Literal(value).as_string(self._connection) for value in values]
        return f"{name} = {literals[0]}" if len(literals) == 1 else f"{name} IN ({', '.join(literals)})"

    def _statement(
        self, vector: Vector, limit: int, setting: Setting, condition: Filter | None
    ) -> tuple[str, tuple[Any, ...]]:
        query = as_text(vector)
        if setting.is_exact:
            return self.shape.exact(_where(condition)), (query, query, limit)
        return self.shape.search(_where(condition)), self.shape.parameters(query, limit, setting.values.get("rerank"))

    def _found(self, statement: str, parameters: tuple[Any, ...]) -> Found:
        rows, ms = timed(lambda: self._connection.execute(statement, parameters, prepare=False).fetchall())
        return Found([row[0] for row in rows], [float(row[1]) for row in rows], ms)

    def _used(self, setting: Setting, statement: str, parameters: tuple[Any, ...], settings: Mapping[str, str]) -> str:
        known = self._plans.get((setting, statement))
        if known is None:
            with self._transaction(settings):
                row = self._connection.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters).fetchone()
            names = set(_indexes(row[0][0]["Plan"])) if row else set()
            known = next((each.name for each in self.indexes if each.name in names), NO_INDEX)
            self._plans[setting, statement] = known
        return known

    @contextlib.contextmanager
    def _transaction(self, settings: Mapping[str, str] | None = None) -> Iterator[None]:
        """Open a transaction with ``settings``, read-only and ended by a rollback. Raises WrongUse where one did not take."""
        try:
            with self._connection.transaction(force_rollback=True):
                self._set({"statement_timeout": f"{self._timeout_ms}ms", **(settings or {})})
                yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotPermitted(_line(error), hint="the role needs SELECT on the table") from None
        except psycopg.errors.QueryCanceled:
            raise NotReachable(
                "a search took too long", hint="statement_timeout_ms=…, or fewer rows by a filter"
            ) from None
        except REFUSED as error:
            raise WrongUse(
                _line(error), hint="a filter is a WHERE clause that reads, settings are as pgvector has them"
            ) from None
        except psycopg.OperationalError as error:
            raise NotReachable(f"Postgres went away: {_line(error)}", hint="what was measured is kept") from None

    def _set(self, settings: Mapping[str, str]) -> None:
        """Set for this transaction and read back from it: outside of one, SET LOCAL only warns and does nothing."""
        calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
        self._connection.execute(f"SELECT {calls}", [part for pair in settings.items() for part in pair])
        told = ", ".join("current_setting(%s)" for _ in settings)
        row = self._connection.execute(f"SELECT {told}", list(settings)).fetchone() or ()
        for (name, value), found in zip(settings.items(), row, strict=True):
            if found != value and name != "statement_timeout":  # that one is told in another unit
                raise WrongUse(f"{name} did not take {value}: it is {found}", hint="ask who else sets it")

    def _chosen(self, distance: str | None) -> "catalog.Index | None":
        usable = [each for each in self.indexes if each.is_valid and not each.predicate]
        same = [each for each in usable if distance is None or each.distance in (distance, "hamming")]
        return same[0] if same else None

    @property
    def _iterates(self) -> bool:
        return tuple(int(part) for part in self.versions[0].split(".")[:2]) >= (0, 8)

    def _now(self) -> dict[str, str]:
        if self.index is None:
            return {}
        names = [_parameter(self.index.method), *([f"{self.index.method}.iterative_scan"] if self._iterates else [])]
        with self._transaction():
            rows = [self._connection.execute("SELECT current_setting(%s, true)", (name,)).fetchone() for name in names]
        return {name: row[0] for name, row in zip(names, rows, strict=True) if row and row[0]}

    def _round_trip_ms(self) -> float:
        with self._transaction():
            taken = [timed(lambda: self._connection.execute("SELECT 1").fetchone())[1] for _ in range(ROUND_TRIPS)]
        return sorted(taken)[ROUND_TRIPS // 2]

    def _notes(self, is_counted: bool) -> Iterator[str]:
        if not is_counted:
            yield f"rows are the planner's estimate, null and zero vectors were not counted: more than {catalog.COUNTED_UP_TO:,} rows"
        for each in self.indexes:
            if each is self.index:
                continue
            if not each.is_valid:
                yield f"index {each.name} is invalid: no search uses it"
            elif each.predicate:
                yield f"index {each.name} is partial: give its predicate as a filter to measure it"
            elif each.distance != self.distance:
                yield f"index {each.name} orders by {each.distance}: searches by {self.distance} can't use it"
            else:
                yield f"index {each.name} is there, too; which one a search uses is in the column used"


def connected(dsn: str, connect: Connect = psycopg.connect) -> "Connection[Any]":
    """Return a connection in autocommit; raises NotReachable."""
    try:
        return connect(
            dsn, autocommit=True, application_name="perfnb tuner", connect_timeout=10, prepare_threshold=None
        )
    except psycopg.OperationalError as error:
        raise NotReachable(f"Postgres does not answer: {_line(error)}", hint="check the DSN") from None


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _parameter(method: str) -> str:
    return "hnsw.ef_search" if method == "hnsw" else "ivfflat.probes"


def _settings(setting: Setting) -> dict[str, str]:
    if setting.is_exact:
        return dict(EXACT)
    told = {name: str(value) for name, value in setting.values.items() if name != "rerank"}
    if "rerank" in setting.values:  # an index returns no more rows than ef_search
        told["hnsw.ef_search"] = str(min(MOST_EF, max(40, int(setting.values["rerank"]))))
    return told


def _where(condition: Filter | None) -> str:
    return "true" if condition is None else f"({str(condition.condition).replace('%', '%%')})"


def _indexes(plan: Mapping[str, Any]) -> Iterator[str]:
    if "Index Name" in plan:
        yield plan["Index Name"]
    for below in plan.get("Plans", ()):
        yield from _indexes(below)


def _read(text: str) -> list[float]:
    """Return the numbers of a dense vector as text; raises WrongUse for sparse ones and bits."""
    if not text.startswith("["):
        raise WrongUse("rows of this type can't be sampled as queries", hint="queries=[…]")
    return [float(value) for value in text[1:-1].split(",")]
