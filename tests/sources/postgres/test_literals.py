import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.sources.postgres.literals import plan_without_literals, without_literals

CASES = [
    ("SELECT * FROM t WHERE a = 'x''y' AND b = 5", "SELECT * FROM t WHERE a = ? AND b = ?"),
    ("SELECT $1, t1.c2, $12", "SELECT $1, t1.c2, $12"),
    (r"SELECT E'it\'s', e'\\', 'c:\'", "SELECT ?, ?, ?"),
    ("SELECT $$body 'x' $1$$, $tag$ $$ $tag$ FROM t", "SELECT ?, ? FROM t"),
    ("SELECT B'01', x'1F', N'n', U&'\\0041', 0x1F, 1_000, .5, 1., 1e-3, 0b11", "SELECT " + ", ".join("?" * 10)),
    ("SELECT 1..10, a[1:2]", "SELECT ?..?, a[?:?]"),
    ('SELECT "it\'s 5" FROM "a""b"', 'SELECT "it\'s 5" FROM "a""b"'),
    ("SELECT a -- 'secret'\n, b /* 5 /* nested */ 6 */ FROM t", "SELECT a , b FROM t"),
    ("/* a */ SELECT 1", "SELECT ?"),
    ("SELECT 'cut off in the mid", "SELECT ?"),
    ("SELECT a /* cut off 'x'", "SELECT a"),
    ("SELECT $q$ cut off", "SELECT ?"),
    ("SELECT a -> 'key' ? 'b' FROM t", "SELECT a -> ? ? ? FROM t"),
    ("SELECT '[1,2]'::vector(3) <-> $1::halfvec(1536)", "SELECT ?::vector(3) <-> $1::halfvec(1536)"),
    ("SELECT CAST(a AS numeric(10, 2)), '5'::date", "SELECT CAST(a AS numeric(10, 2)), ?::date"),
    ("SELECT f(5), g (10,2)", "SELECT f(?), g (?,?)"),
    ("SELECT\n\n  a,\tb", "SELECT a, b"),
    ("SELECT 'über', größe1 FROM straße", "SELECT ?, größe1 FROM straße"),
    ("SELECT a$1, a$$b, 'x'", "SELECT a$1, a$$b, ?"),
    ("SELECT * FROM t WHERE id = %(id)s AND x = %s AND y = :name", "SELECT * FROM t WHERE id = %(id)s AND x = %s AND y = :name"),
    ("SET work_mem = '64MB'", "SET work_mem = ?"),
    ("ALTER ROLE a PASSWORD 'hunter2'", "ALTER ROLE a PASSWORD ?"),
    ("SELECT a FROM t LIMIT 40 OFFSET 80", "SELECT a FROM t LIMIT 40 OFFSET ?"),
    ("SELECT a FROM t limit  7;", "SELECT a FROM t limit 7;"),
    ("SELECT 'LIMIT 5', xlimit 5 FROM t LIMIT 5.5", "SELECT ?, xlimit ? FROM t LIMIT ?"),
    ("SELECT a FROM t LIMIT 12345678", "SELECT a FROM t LIMIT ?"),
    ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), CASES, ids=range(len(CASES)))
def test_what_is_a_value_goes_and_what_is_a_name_stays(sql: str, expected: str) -> None:
    assert without_literals(sql) == expected


PIECES = st.sampled_from(
    ["'", '"', "$", "$$", "$a$", "/*", "*/", "--", "\n", "\\", "E'", "::", "AS", "(", ")", ",", ".", "1", "$1", "0x", "e",
     "?", " ", "vector", "é", "_", "x'", "U&", "SubPlan 1", "LIMIT ", "+", "\x00", "\x85", "2e", "\ud800"]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(PIECES).map("".join), st.text(alphabet="'\"$a1/*-\\e:( )\n"))


@given(TEXTS)
def test_any_text_is_taken_and_a_second_time_changes_nothing(text: str) -> None:
    once = without_literals(text)
    assert without_literals(once) == once


SECRETS = st.text(alphabet=string.ascii_lowercase, min_size=6).map(lambda text: f"qz{text}zq")


@given(
    SECRETS,
    st.sampled_from(["'{}'", "E'{}'", "'a''{}'", "$${}$$", "$t${}$t$", "'{}", "$t${}", "/* {} */", "-- {}", "/* {}"]),
    st.lists(st.sampled_from(["SELECT", "a", '"b c"', ",", "$1", "5", "'x'", "/* c */", "::text", "=", "\n"])),
)
def test_no_secret_is_left_wherever_it_stands(secret: str, quoted: str, before: list[str]) -> None:
    assert secret not in without_literals(" ".join([*before, quoted.format(secret)]))


@given(
    st.integers(min_value=10**5), st.sampled_from(["{}", "-{}", "({})", "={}", "a={},", "{}.5", "{}e5", "1{}", "'x'{}"])
)
def test_no_number_is_left(number: int, form: str) -> None:
    assert str(number) not in without_literals("SELECT a FROM t WHERE " + form.format(number))


def test_a_plan_keeps_its_shape_and_loses_its_values() -> None:
    plan = [
        {
            "Query Text": "SELECT * FROM t WHERE name = 'Ann'",
            "Query Parameters": "$1 = 'Ann'",
            "Query Identifier": -5,
            "Settings": {"work_mem": "64MB"},
            "Plan": {
                "Node Type": "Seq Scan",
                "Relation Name": "t 1",
                "Alias": "t_1",
                "Actual Rows": 2.5,
                "Filter": "((name = 'Ann'::text) AND (NOT (hashed SubPlan 1)) AND (id = $0))",
                "Sort Key": ["((a + 5)) DESC"],
                "Something New": "(x = 'Bob')",
                "Plans": [{"Node Type": "Result", "Subplan Name": "InitPlan 1 (returns $0)"}],
            },
        }
    ]
    made = plan_without_literals(plan)
    assert made == [
        {
            "Query Text": "SELECT * FROM t WHERE name = ?",
            "Query Identifier": -5,
            "Settings": {"work_mem": "64MB"},
            "Plan": {
                "Node Type": "Seq Scan",
                "Relation Name": "t 1",
                "Alias": "t_1",
                "Actual Rows": 2.5,
                "Filter": "((name = ?::text) AND (NOT (hashed SubPlan 1)) AND (id = $0))",
                "Sort Key": ["((a + ?)) DESC"],
                "Something New": "(x = ?)",
                "Plans": [{"Node Type": "Result", "Subplan Name": "InitPlan 1 (returns $0)"}],
            },
        }
    ]
    assert plan_without_literals(made) == made
    assert "Ann" not in json.dumps(made)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_plan_is_taken_and_a_second_time_changes_nothing(plan: object) -> None:
    once = plan_without_literals(plan)
    assert plan_without_literals(once) == once
