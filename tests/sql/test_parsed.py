"""Statements as apps and object-relational mappers make them, and what is read of each."""

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.sql import Column, Join, Statement, parsed


def read(sql: str) -> Statement:
    found = parsed(sql)
    assert found is not None, sql
    return found


def conditions(sql: str) -> list[tuple[str, str, str]]:
    return [(each.table, each.column, each.operator) for each in read(sql).filters]


# who made it, statement, kind, tables, conditions, order (column, descends), limit
REAL = [
    (
        "Django",
        'SELECT "shop_order"."id", "shop_order"."status" FROM "shop_order" INNER JOIN "auth_user" ON '
        '("shop_order"."user_id" = "auth_user"."id") WHERE ("auth_user"."email" = %s AND "shop_order"."status" IN '
        '(%s, %s) AND NOT "shop_order"."is_deleted") ORDER BY "shop_order"."created" DESC LIMIT 21',
        "select",
        ("shop_order", "auth_user"),
        [("auth_user", "email", "="), ("shop_order", "status", "in"), ("shop_order", "is_deleted", "is false")],
        [("created", True)],
        "21",
    ),
    (
        "Django exists",
        'SELECT 1 AS "a" FROM "django_session" WHERE ("django_session"."expire_date" > %s AND '
        '"django_session"."session_key" = %s) LIMIT 1',
        "select",
        ("django_session",),
        [("django_session", "expire_date", ">"), ("django_session", "session_key", "=")],
        [],
        "1",
    ),
    (
        "SQLAlchemy on psycopg",
        "SELECT users.id AS users_id, users.name AS users_name \nFROM users \nWHERE lower(users.email) = "
        "%(lower_1)s::VARCHAR AND users.deleted_at IS NULL ORDER BY users.created_at DESC \n LIMIT %(param_1)s::INTEGER",
        "select",
        ("users",),
        [("users", "email", "="), ("users", "deleted_at", "is null")],
        [("created_at", True)],
        "%(param_1)s",
    ),
    (
        "SQLAlchemy on asyncpg",
        "SELECT c.id, anon_1.n FROM chat.sessions AS c LEFT OUTER JOIN (SELECT m.session_id AS session_id, count(*) AS n "
        "FROM chat.messages AS m WHERE m.role = $1::VARCHAR GROUP BY m.session_id) AS anon_1 ON c.id = "
        "anon_1.session_id WHERE c.user_id = $2::UUID ORDER BY c.last_active_at NULLS LAST",
        "select",
        ("chat.sessions", "chat.messages"),
        [("chat.sessions", "user_id", "="), ("chat.messages", "role", "=")],
        [("last_active_at", False)],
        "",
    ),
    (
        "SQLAlchemy many inserts",
        "INSERT INTO messages (id, body) SELECT p0::UUID, p1::TEXT FROM (VALUES (%(id__0)s, %(body__0)s, 0), "
        "(%(id__1)s, %(body__1)s, 1)) AS imp_sen(p0, p1, sen_counter) ORDER BY sen_counter RETURNING messages.id",
        "insert",
        ("messages",),
        [],
        [],
        "",
    ),
    (
        "Rails",
        'SELECT "posts".* FROM "posts" WHERE "posts"."user_id" = $1 AND "posts"."published" = $2 ORDER BY "posts"."id" '
        'ASC LIMIT $3 /*application:Shop,controller:posts*/',
        "select",
        ("posts",),
        [("posts", "user_id", "="), ("posts", "published", "=")],
        [("id", False)],
        "$3",
    ),
    (
        "Rails update",
        'UPDATE "posts" SET "title" = $1, "updated_at" = $2 WHERE "posts"."id" = $3',
        "update",
        ("posts",),
        [("posts", "id", "=")],
        [],
        "",
    ),
    (
        "Prisma",
        'SELECT "public"."Post"."id", "public"."Post"."authorId" FROM "public"."Post" WHERE ("public"."Post"."authorId" '
        'IN ($1,$2,$3) AND "public"."Post"."title"::text ILIKE $4) ORDER BY "public"."Post"."createdAt" DESC LIMIT $5 '
        "OFFSET $6",
        "select",
        ("public.Post",),
        [("public.Post", "authorId", "in"), ("public.Post", "title", "ilike")],
        [("createdAt", True)],
        "$5",
    ),
    (
        "JDBC",
        "select t.id from tickets t where t.data ?? 'vip' and t.state = ? and t.opened between ? and ? for update skip locked",
        "select",
        ("tickets",),
        [("tickets", "data", "?"), ("tickets", "state", "="), ("tickets", "opened", "between")],
        [],
        "",
    ),
    (
        "kept by pg_stat_statements",
        "select id from events where kind in ($1 /*, ... */) and at > now() - interval $2 and not payload @> $3 "
        "order by at desc fetch first $4 rows only",
        "select",
        ("events",),
        [("events", "kind", "in"), ("events", "at", ">"), ("events", "payload", "not @>")],
        [("at", True)],
        "$4",
    ),
    (
        "queue",
        "WITH next AS (SELECT id FROM jobs WHERE state = $1 ORDER BY priority, id LIMIT $2 FOR UPDATE SKIP LOCKED) "
        "UPDATE jobs SET state = $3 FROM next WHERE jobs.id = next.id RETURNING jobs.*",
        "update",
        ("jobs",),
        [("jobs", "state", "=")],
        [],
        "",
    ),
    (
        "delete in batches",
        "DELETE FROM app.sessions WHERE ctid = ANY(ARRAY(SELECT ctid FROM app.sessions WHERE last_active_at < $1 LIMIT $2))",
        "delete",
        ("app.sessions",),
        [("app.sessions", "ctid", "in"), ("app.sessions", "last_active_at", "<")],
        [],
        "",
    ),
    (
        "pages by key",
        "SELECT * FROM logs WHERE (created_at, id) < ($1, $2) AND level = ANY($3) ORDER BY created_at DESC, id DESC LIMIT $4",
        "select",
        ("logs",),
        [("logs", "created_at", "<"), ("logs", "id", "<"), ("logs", "level", "in")],
        [("created_at", True), ("id", True)],
        "$4",
    ),
    (
        "full text",
        "SELECT id FROM docs WHERE body_tsv @@ plainto_tsquery($1, $2) AND name ~~* $3 AND (a = $4 OR b = $5)",
        "select",
        ("docs",),
        [("docs", "body_tsv", "@@"), ("docs", "name", "ilike"), ("docs", "a", "="), ("docs", "b", "=")],
        [],
        "",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "kind", "tables", "wanted", "order", "limit"), [row[1:] for row in REAL], ids=[row[0] for row in REAL])  # fmt: skip
def test_real_statements(
    sql: str,
    kind: str,
    tables: tuple[str, ...],
    wanted: list[tuple[str, str, str]],
    order: list[tuple[str, bool]],
    limit: str,
) -> None:
    found = read(sql)
    assert found.kind == kind
    assert found.tables == tables
    assert conditions(sql) == wanted
    assert [(each.column, each.is_descending) for each in found.order_by] == order
    assert found.limit_parameter == limit
    assert found.has_limit is bool(limit)


# statement, column, operator, plain, descends, limit, expression
NEAREST = [
    ("SELECT id FROM docs ORDER BY embedding <=> %s::vector LIMIT %s", "embedding", "<=>", True, False, "%s", ""),
    ("SELECT id FROM docs ORDER BY embedding <-> ? LIMIT ?", "embedding", "<->", True, False, "?", ""),
    ("SELECT id FROM docs ORDER BY e <#> $1 LIMIT $2", "e", "<#>", True, False, "$2", ""),
    ("SELECT id FROM docs ORDER BY e <+> %(q)s LIMIT 5", "e", "<+>", True, False, "5", ""),
    ("SELECT id FROM docs ORDER BY $1 <-> e LIMIT 5", "e", "<->", True, False, "5", ""),
    ("SELECT id FROM docs ORDER BY e OPERATOR(public.<=>) $1 LIMIT $2", "e", "<=>", True, False, "$2", ""),
    ("SELECT id, e <=> $1 AS d FROM docs ORDER BY d LIMIT $2", "e", "<=>", True, False, "$2", ""),
    ("SELECT id, e <=> $1 AS d FROM docs ORDER BY 2 LIMIT $2", "e", "<=>", True, False, "$2", ""),
    ("SELECT id, 1 - (e <=> $1) AS s FROM docs ORDER BY s DESC LIMIT $2", "e", "<=>", False, True, "$2", ""),
    ("SELECT id FROM docs ORDER BY e <=> $1 DESC LIMIT $2", "e", "<=>", True, True, "$2", ""),
    ("SELECT id FROM docs ORDER BY e <=> $1", "e", "<=>", True, False, "", ""),
    ("SELECT id FROM docs ORDER BY cosine_distance(e, $1) LIMIT $2", "e", "<=>", False, False, "$2", ""),
    ("SELECT id FROM docs ORDER BY (e <-> $1) + $2 LIMIT $3", "e", "<->", False, False, "$3", ""),
    ("SELECT x.id FROM (SELECT id, e <=> $1 AS d FROM docs) x ORDER BY x.d LIMIT $2", "e", "<=>", True, False, "$2", ""),
    ("WITH n AS (SELECT id, e <=> $1 AS d FROM docs ORDER BY d LIMIT 50) SELECT id FROM n", "e", "<=>", True, False, "50", ""),
    ("SELECT id FROM docs ORDER BY e::halfvec(3) <-> $1::halfvec(3) LIMIT 1", "e", "<->", True, False, "1", "CAST(e AS halfvec(3))"),
    ("SELECT id FROM docs ORDER BY binary_quantize(e)::bit(8) <~> $1 LIMIT 9", "e", "<~>", True, False, "9", "CAST(binary_quantize(e) AS BIT(8))"),
    ("SELECT id FROM docs ORDER BY e <%> $1 LIMIT 9", "e", "<%>", True, False, "9", ""),
    ("SELECT a.id FROM docs a, docs b WHERE b.id = $1 ORDER BY a.e <-> b.e LIMIT 3", "e", "<->", False, False, "3", ""),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "column", "operator", "plain", "descends", "limit", "expression"), NEAREST)
def test_distances(
    sql: str, column: str, operator: str, plain: bool, descends: bool, limit: str, expression: str
) -> None:
    found = read(sql).distance
    assert found is not None
    assert (found.table, found.column, found.operator) == ("docs", column, operator)
    assert (found.is_plain, found.is_descending, found.has_limit) == (plain, descends, bool(limit))
    assert (found.limit_parameter, found.expression) == (limit, expression)


def test_filters_beside_a_distance_leave_out_the_distance_itself() -> None:
    sql = "SELECT id FROM docs d JOIN t ON t.id = d.tid WHERE d.tenant = $2 AND d.e <=> $1 < $3 ORDER BY d.e <=> $1 LIMIT $4"
    found = read(sql).distance
    assert found is not None
    assert [(each.table, each.column) for each in found.filters] == [("docs", "tenant")]
    assert found.joins == (Join(Column("t", "id"), Column("docs", "tid")),)
    inner = "SELECT id FROM (SELECT id, e <-> $1 AS d FROM docs WHERE tenant = $2) x ORDER BY d LIMIT $3"
    assert [each.column for each in read(inner).distance.filters] == ["tenant"]  # type: ignore[union-attr]


# statement, the conditions on the distance: operator and expression
BOUNDS = [
    ("SELECT id FROM docs WHERE t = $1 AND e <=> $2::vector < $3 ORDER BY e <=> $2::vector LIMIT $4", [("<", "e <=> CAST(? AS VECTOR)")]),
    ("SELECT id FROM docs WHERE 1 - (e <=> $1) >= $2 ORDER BY e <=> $1 LIMIT $3", [(">=", "1 - (e <=> ?)")]),
    ("SELECT id FROM docs WHERE $2 > (e <-> $1) ORDER BY e <-> $1 LIMIT $3", [("<", "e <-> ?")]),
    ("SELECT id FROM docs WHERE cosine_distance(e, $1) < $2 ORDER BY e <=> $1 LIMIT $3", [("<", "cosine_distance(e, ?)")]),
    ("SELECT id FROM docs WHERE e <=> $1 BETWEEN $2 AND $3 ORDER BY e <=> $1 LIMIT $4", [("between", "e <=> ?")]),
    ("SELECT x.id FROM (SELECT id, e <=> $1 AS d FROM docs ORDER BY d LIMIT $2) x WHERE x.d < $3", [("<", "")]),
    ("WITH n AS (SELECT id, 1 - (e <=> $1) AS s FROM docs ORDER BY e <=> $1 LIMIT 50) SELECT id FROM n WHERE s > $2", [(">", "")]),
    ("SELECT id FROM docs WHERE t = $1 ORDER BY e <=> $2 LIMIT $3", []),
    ("SELECT id FROM docs WHERE e IS NOT NULL ORDER BY e <=> $1 LIMIT $2", []),
    ("SELECT id, e <=> $1 AS d FROM docs WHERE age < $2 ORDER BY d LIMIT $3", []),
    ("SELECT o.id FROM docs o JOIN (SELECT max(e) AS e FROM other WHERE n < 4) x ON x.e = o.id ORDER BY o.e <-> $1 LIMIT 3", []),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "bounds"), BOUNDS)
def test_bounds_on_a_distance(sql: str, bounds: list[tuple[str, str]]) -> None:
    found = read(sql).distance
    assert found is not None
    assert [(each.operator, each.expression) for each in found.bounds] == bounds
    assert not {each.column for each in found.filters} & {"e", "d", "s"}


@pytest.mark.parametrize(
    "sql", ["SELECT id FROM docs ORDER BY name LIMIT 3", "SELECT e <=> $1 FROM docs WHERE id = $2"]
)
def test_no_distance_where_none_orders(sql: str) -> None:
    assert read(sql).distance is None


SAME = [
    ("SELECT * FROM t WHERE id = %s", "select *  from T where ID = $1"),
    ("SELECT a FROM t WHERE b IN (%s, %s, %s)", "SELECT a FROM t WHERE b IN ($1 /*, ... */)"),
    ('SELECT "t"."a" FROM "t" /*x*/', "SELECT t.a FROM t -- y"),
    ("INSERT INTO t (a) VALUES (%s), (%s)", "INSERT INTO t (a) VALUES ($1)"),
    ("SELECT a FROM t WHERE b > now() - interval '1 day' LIMIT 5", "SELECT a FROM t WHERE b > now() - interval $1 LIMIT $2"),
    ("SELECT a FROM t WHERE b = true AND c = -1", "SELECT a FROM t WHERE b = $1 AND c = $2"),
    ("SELECT a FROM t WHERE d >= date '2026-01-01'", "SELECT a FROM t WHERE d >= date $1"),
    ("SELECT a FROM t ORDER BY e <=> '[1,2]'::vector LIMIT 3", "SELECT a FROM t ORDER BY e <=> $1::vector LIMIT $2"),
    ("BEGIN", "BEGIN;"),
]  # fmt: skip
OTHER = [
    ("SELECT a FROM t ORDER BY 1", "SELECT a FROM t ORDER BY 2"),
    ("SELECT a::vector(3) FROM t", "SELECT a::vector(4) FROM t"),
    ("SELECT a FROM t WHERE b IS NULL", "SELECT a FROM t WHERE b IS TRUE"),
    ('SELECT a FROM "T"', "SELECT a FROM T"),
    ("SELECT a FROM t ORDER BY e <=> $1", "SELECT a FROM t ORDER BY e <-> $1"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "another"), SAME)
def test_shapes_that_are_one(one: str, another: str) -> None:
    assert read(one).shape == read(another).shape


@pytest.mark.parametrize(("one", "another"), OTHER)
def test_shapes_that_differ(one: str, another: str) -> None:
    assert read(one).shape != read(another).shape


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("BEGIN", "other"), ("SET x = $1", "other"), ("DISCARD ALL", "other"), ("VACUUM (ANALYZE) t", "other"),
        ("EXPLAIN SELECT 1", "other"), ("COPY t TO STDOUT", "other"), ("CREATE INDEX ON t (a)", "other"),
        ("DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT a FROM t", "select"), ("(SELECT 1) UNION SELECT 2", "select"),
        ("WITH gone AS (DELETE FROM t WHERE a = $1 RETURNING id) SELECT id FROM gone", "select"),
    ],
)  # fmt: skip
def test_kinds(sql: str, kind: str) -> None:
    assert read(sql).kind == kind


@pytest.mark.parametrize(
    "sql", ["", "SELECT a FROM", "SELECT a FROM t; SELECT b FROM t", "SELECT a FROM t WHERE (", "x" * 40_000]
)
def test_what_cannot_be_read_is_none(sql: str) -> None:
    assert parsed(sql) is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_advisory_xact_lock($1); CREATE EXTENSION IF NOT EXISTS vector",
        "SELECT 1; DO ?",
        "WITH a AS (SELECT 1) VACUUM t",
    ],
)
def test_what_is_taken_for_a_command_is_passed_over_without_a_word(
    sql: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    parsed.cache_clear()
    assert parsed(sql) is None
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_others_that_read_with_sqlglot_are_still_warned(caplog: pytest.LogCaptureFixture) -> None:
    assert parsed("SELECT a FROM t") is not None
    logging.getLogger("sqlglot").warning("something else")
    assert [each.message for each in caplog.records] == ["something else"]


def test_what_is_written_selected_and_locked() -> None:
    gone = read("WITH gone AS (DELETE FROM a.t WHERE x = $1 RETURNING id) INSERT INTO u (id) SELECT id FROM gone")
    assert gone.kind == "insert"
    assert set(gone.written) == {"a.t", "u"}
    locked = read("SELECT t.*, count(*) OVER () FROM t FOR UPDATE")
    assert locked.selects_all
    assert locked.locks_rows
    assert not read("SELECT count(*) FROM t").selects_all
    assert read("SELECT t.a, b AS c, $1 FROM t").selected == (Column("t", "a"), Column("t", "b"))


def test_aggregates_of_all_rows_are_told_from_groups() -> None:
    whole, groups, windowed = (
        read(f"SELECT {what} FROM t WHERE a = $1 {group}").parts[0]
        for what, group in (("count(*)", ""), ("b, count(*)", "GROUP BY b"), ("sum(a) OVER ()", ""))
    )
    assert (whole.is_aggregate, groups.is_aggregate, windowed.is_aggregate) == (True, False, False)
    assert groups.group_by == (Column("t", "b"),)


def test_joins_of_where_on_and_using() -> None:
    pair = Join(Column("a", "x"), Column("b", "y"))
    assert read("SELECT 1 FROM a JOIN b ON a.x = b.y").joins == (pair,)
    assert read("SELECT 1 FROM a, b WHERE a.x = b.y AND b.z = $1").joins == (pair,)
    assert read("SELECT 1 FROM a JOIN b USING (x)").joins == (Join(Column("a", "x"), Column("b", "x")),)
    assert read("SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b WHERE a.x = b.y)").joins == (pair,)


def test_conditions_inside_or_are_not_required() -> None:
    found = {
        each.column: each.is_required for each in read("SELECT 1 FROM t WHERE a = $1 AND (b = $2 OR c = $3)").filters
    }
    assert found == {"a": True, "b": False, "c": False}


def test_a_column_without_prefix_among_several_tables_is_of_none() -> None:
    assert conditions("SELECT 1 FROM a JOIN b ON a.x = b.y WHERE z = $1") == [("", "z", "=")]


SECRET = "hunter2-🔑"


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT a FROM t WHERE b = '{SECRET}'", f"SELECT a FROM t WHERE b = E'\\'{SECRET}'",
        f"SELECT a FROM t WHERE coalesce(b, $q${SECRET}$q$) = $1", f"SELECT a FROM t -- {SECRET}",
        f"SELECT a FROM t ORDER BY b || '{SECRET}'", f"SET password = '{SECRET}'",
    ],
)  # fmt: skip
def test_no_string_is_kept(sql: str) -> None:
    assert SECRET not in repr(read(sql))


FRAGMENTS = ["SELECT", "FROM", "t", "WHERE", "a", "=", "$1", "%s", "?", "(", ")", "IN", "<=>", "ORDER BY", "LIMIT", ",", "'x'",
             "AND", "OR", "NOT", "JOIN", "ON", "/*", "*/", "--", "\n", '"', "$$", "::vector", "[1]", "WITH", "AS", "DELETE", ";"]  # fmt: skip


@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(FRAGMENTS), max_size=25).map(" ".join)))
def test_anything_is_read_or_is_none(sql: str) -> None:
    found = parsed(sql)
    assert found is None or isinstance(found, Statement)


NAMES = st.from_regex(r"[a-z_]{2,8}x", fullmatch=True)


@given(NAMES, st.lists(NAMES, min_size=1, max_size=4, unique=True), st.sampled_from(["$", "%s", "?", ":n", "%(n)s"]))
def test_every_style_of_parameter_reads_the_same(table: str, columns: list[str], style: str) -> None:
    def written(mark: str) -> str:
        marks = [f"${at + 1}" if mark == "$" else re.sub("n", f"n{at}", mark) for at in range(len(columns))]
        wanted = " AND ".join(f"{name} = {value}" for name, value in zip(columns, marks, strict=True))
        return f"SELECT {columns[0]} FROM {table} WHERE {wanted} ORDER BY {columns[-1]} DESC"

    found, plain = read(written(style)), read(written("$"))
    assert found == plain
    assert [each.column for each in found.filters] == columns


@given(NAMES, NAMES)
def test_a_shape_has_its_own_shape(table: str, column: str) -> None:
    shape = read(f"SELECT {column} FROM {table} WHERE {column} IN (%s, %s) AND {column} <> 5 LIMIT 3").shape
    assert read(shape).shape == shape
