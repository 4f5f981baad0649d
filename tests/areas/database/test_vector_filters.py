from pathlib import Path
from typing import Any

import pytest
from builders import START, Row, answer, recording, span
from hypothesis import given
from hypothesis import strategies as st
from session_rows import session
from statement_rows import Counted, catalog, counted, requests, snapshots
from vector_rows import (
    BY_JSON,
    FILTERED,
    NEAR,
    SEARCH,
    WORKSPACE,
    collection,
    extension,
    index,
    settings,
    store_span,
    table,
)

from perfnb.areas.database.store_spans import fields_of, store_spans
from perfnb.finding import Clear, Finding

OTHER = counted("SELECT id FROM messages WHERE session_id = $1", calls=60, ms=1)
SLOW_JSON = counted(BY_JSON, calls=60, ms=40, rows=5)
BTREE = {"method": "btree", "opclass": "int8_ops", "name": "public.tenants"}


def judged(folder: Path, cause: str, one: Counted, objects: list[Row], **more: Any) -> Finding | Clear:
    return answer(folder, cause, statements=snapshots(one, OTHER), catalog=objects, requests=requests(60), **more)


@pytest.mark.parametrize(
    ("one", "objects", "field"),
    [
        (SLOW_JSON, table(), "a member of about"),
        (SLOW_JSON, table() + index(), "a member of about"),
        (SLOW_JSON, table(2_000), None),
        (SLOW_JSON, table() + index(key="(about ->> 'language'::text)", **BTREE), None),
        (SLOW_JSON, table() + index(key="(about ->> 'language'::text)", grown=0, **BTREE), "a member of about"),  # another's
        (SLOW_JSON, table() + index(key="(about ->> 'language'::text)", grown=0, later={"scans": None}, **BTREE), None),
        (SLOW_JSON, table() + index() + index(key="(about ->> 'language'::text)", grown=0, **BTREE), None),  # many rows meet it
        (SLOW_JSON, table() + index(key="(about -> 'language'::text)", **BTREE), "a member of about"),
        (SLOW_JSON, table() + index(key="lower(about ->> 'language'::text)", **BTREE), "a member of about"),
        (SLOW_JSON, table() + index(key="about", **BTREE | {"method": "gin"}), "a member of about"),
        (SLOW_JSON, table() + index(key="to_tsvector('simple'::regconfig, about ->> 'words'::text)", **BTREE | {"method": "gin"}), "a member of about"),
        (counted(BY_JSON.replace("about ->> $1", "(about->>$1)::int"), calls=60, ms=40), table() + index(key="(((about ->> 'year'::text))::integer)", **BTREE), None),
        (counted(BY_JSON.replace("about ->> $1 =", "lower(title) ="), calls=60, ms=40), table() + index(key="lower(title)", grown=0, **BTREE), None),
        (counted(BY_JSON.replace("about ->> $1 =", "lower(title) ="), calls=60, ms=40), table() + index(key="upper(title)", **BTREE), "a member of title"),
        (counted(BY_JSON, calls=60, ms=1, rows=5), table(), None),
        (counted(FILTERED, calls=60, ms=40, rows=5), table(), "tenant"),
        (counted(FILTERED, calls=60, ms=40, rows=5), table() + index(key="tenant", **BTREE), None),
        (counted(FILTERED, calls=60, ms=40, rows=5), table() + index(key="tenant", is_valid=False, **BTREE), "tenant"),
        (counted(FILTERED, calls=60, ms=40), table() + index(predicate="(tenant = 7)"), None),  # a partial index
        (counted("SELECT id FROM documents WHERE is_deleted = $1 ORDER BY embedding <=> $2 LIMIT 5", calls=60, ms=40), table(), None),
        (counted("SELECT id FROM documents WHERE tenant > $1 ORDER BY embedding <=> $2 LIMIT 5", calls=60, ms=40), table(), None),
        (counted("SELECT id FROM documents WHERE about @> $1 ORDER BY embedding <=> $2 LIMIT 5", calls=60, ms=40), table(), "about"),
        (counted("SELECT id FROM documents WHERE about @> $1 ORDER BY embedding <=> $2 LIMIT 5", calls=60, ms=40), table() + index(key="about", grown=0, **BTREE | {"method": "gin"}), None),
        (counted("SELECT id FROM documents WHERE about @> $1 ORDER BY embedding <=> $2 LIMIT 5", calls=60, ms=40), table() + index(key="about", **BTREE), "about"),
        (counted(SEARCH, calls=60, ms=40), table() + index(), None),
    ],
)  # fmt: skip
def test_unindexed_filter(tmp_path: Path, one: Counted, objects: list[Row], field: str | None) -> None:
    said = judged(tmp_path, "unindexed-filter", one, objects)
    assert isinstance(said, Finding) is (field is not None)
    if isinstance(said, Finding):
        assert f"filtered by {field}" in said.title
        assert "CREATE INDEX CONCURRENTLY ON public.documents" in said.remedy
        assert said.share > 0.9


def milvus_searches(expression: str, count: int = 6) -> list[Row]:
    return [
        store_span("search", turn * 100, 40, trace=f"{turn:032x}", system="milvus", db__milvus__search__filter=expression,
                   db__milvus__search__collection_name="docs", db__milvus__search__limit=10, db__milvus__search__result_count=10)
        for turn in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "spans", "named"),
    [
        ({"slow_filters": ["lang"]}, [], True),
        ({"slow_filters": ["lang"], "fields": {"lang": "keyword"}}, [], False),  # indexed since
        ({"slow_filters": ["lang"], "points": 900}, [], False),
        ({}, [], False),
        ({"engine": "milvus"}, milvus_searches('meta["lang"] == "en"'), True),
        ({"engine": "milvus", "fields": {"meta": "inverted"}}, milvus_searches('meta["lang"] == "en"'), False),
        ({"engine": "milvus", "fields": {"tenant": "inverted"}}, milvus_searches("tenant == 7"), False),
        ({"engine": "milvus"}, milvus_searches(""), False),
        ({"engine": "qdrant"}, milvus_searches("tenant == 7"), False),  # another store's traces
    ],
)
def test_payload_fields_without_an_index(tmp_path: Path, facts: dict[str, Any], spans: list[Row], named: bool) -> None:
    said = answer(tmp_path, "unindexed-filter", catalog=collection(**facts), spans=spans)
    assert isinstance(said, Finding) is named


@pytest.mark.parametrize(
    ("expression", "fields"),
    [
        ("tenant == 7", {"tenant"}),
        ('meta["lang"] == "en" and year > 2020', {"meta", "year"}),
        ('not (a in [1, 2]) or b like "x%"', {"a", "b"}),
        ("meta['lang']['region'] != 'eu == us'", {"meta"}),
        ("", set()),
        ("json_contains(tags, 'a')", set()),
    ],
)
def test_the_fields_of_a_filter(expression: str, fields: set[str]) -> None:
    assert fields_of(expression) == fields


@given(st.text(alphabet="""abz_ ()[]"'=<>!?0189.andorilk""", max_size=60))
def test_any_filter_is_read_and_gives_names_alone(expression: str) -> None:
    assert all(name.isidentifier() and name in expression for name in fields_of(expression))


def search(rows: float, *, query: str = SEARCH, calls: int = 60) -> Counted:
    return counted(query, calls=calls, ms=3, rows=rows)


ROLE = catalog("role_setting", {"app": {"settings": {"hnsw.ef_search": "100"}}})
OWN_SETTING = counted("SET hnsw.ef_search = $1", calls=60, ms=0.01, rows=0)


@pytest.mark.parametrize(
    ("one", "objects", "why"),
    [
        (search(40), table() + index(), "exactly the 40 rows that hnsw.ef_search allows"),
        (search(20), table() + index(), None),
        (search(39.5), table() + index(), None),
        (search(120), table() + index(), None),  # an iterative scan or an exact one
        (search(40), table() + index("ivfflat"), None),
        (search(40), table(), None),  # an exact search: LIMIT 40
        (search(40, calls=3), table() + index(), None),
        (search(40), table() + index() + ROLE, None),
        (search(100), table() + index() + ROLE, None),  # who set it may have set it to the LIMIT
        (search(60), table() + index() + settings(hnsw__ef_search=60), None),
        (search(40), table() + index() + settings(hnsw__iterative_scan="relaxed_order"), None),
        (
            search(40),
            table() + index() + settings(hnsw__iterative_scan="relaxed_order") + extension("0.7.4"),
            "exactly the 40 rows that hnsw.ef_search allows",
        ),
        (search(0.4, query=FILTERED), table() + index(), "0.4 rows on average of about 150"),
        (search(0, query=FILTERED), table() + index(), "0.0 rows"),
        (search(10, query=FILTERED), table() + index(), None),  # a whole number: its LIMIT, found
        (search(9.7, query=FILTERED), table(600) + index(), None),  # three rows meet it: there are no more
        (search(0.4, query=FILTERED), table() + index() + settings(hnsw__iterative_scan="strict_order"), None),
        (search(0.4, query=FILTERED), table(), None),
        (search(0.4, query=BY_JSON), table() + index(), "0.4 rows on average"),
        (search(3.5, query=BY_JSON), table() + index(), None),  # nobody knows how many meet it
        (search(0.4, query=NEAR), table() + index(), None),  # its bound on the distance leaves out the rest
        (search(40, query=NEAR), table() + index(), "exactly the 40 rows that hnsw.ef_search allows"),
        (search(15.3, query=WORKSPACE), table() + index(), None),  # all rows meet it, so it drops none
        (search(0.4, query=FILTERED), table(scanned=15, looked_up=45) + index(grown=0), None),  # not through the index
    ],
)
def test_missing_results(tmp_path: Path, one: Counted, objects: list[Row], why: str | None) -> None:
    said = judged(tmp_path, "missing-results", one, objects)
    assert isinstance(said, Finding) is (why is not None)
    if isinstance(said, Finding):
        assert why in said.title
        assert said.symptom == "results"
        assert said.share == 1.0
        assert said.severity == ("medium" if "allows" in why else "high")  # 40 may be what was asked for


def executed(limit: int, rows: int) -> Row:
    """Return the plan of the search as auto_explain logs it."""
    below = {"Node Type": "Index Scan", "Index Name": "documents_embedding", "Relation Name": "documents", "Plan Rows": 30_000, "Actual Rows": rows, "Actual Loops": 1}  # fmt: skip
    above = {"Node Type": "Limit", "Plan Rows": limit, "Actual Rows": rows, "Actual Loops": 1, "Plans": [below]}
    return {"time": START, "queryid": "1000", "query": SEARCH, "origin": "log", "plan": {"Plan": above}, "duration_ms": 3.0}  # fmt: skip


@pytest.mark.parametrize(("limit", "named"), [(120, True), (40, False)])
def test_a_plan_that_was_executed_tells_the_limit(tmp_path: Path, limit: int, named: bool) -> None:
    said = judged(tmp_path, "missing-results", search(40), table() + index(), plans=[executed(limit, 40)])
    assert isinstance(said, Finding) is named
    if isinstance(said, Finding):
        assert any("LIMIT is 120" in line for line in said.evidence)
        assert "exactly 40 of the 120 rows they ask for" in said.title
        assert said.severity == "high"


def test_what_is_known_comes_before_what_may_be(tmp_path: Path) -> None:
    other = search(40, query=SEARCH.replace("title", "body"), calls=600)
    said = answer(
        tmp_path, "missing-results", statements=snapshots(search(40), other), requests=requests(60),
        catalog=table() + index(), plans=[executed(120, 40)],
    )  # fmt: skip
    assert isinstance(said, Finding)
    assert "exactly 40 of the 120 rows" in said.title
    assert said.severity == "high"


@pytest.mark.parametrize(("limit", "named"), [(120, True), (100, False)])
def test_where_ef_search_was_set_a_plan_tells_whether_the_limit_is_larger(
    tmp_path: Path, limit: int, named: bool
) -> None:
    plans = [executed(limit, 100)]
    said = judged(tmp_path, "missing-results", search(100), table() + index() + ROLE, plans=plans)
    assert isinstance(said, Finding) is named


WRITTEN = SEARCH.rpartition(" LIMIT ")[0] + " LIMIT {limit}"


@pytest.mark.parametrize("place", ["span", "session"])
@pytest.mark.parametrize(("limits", "named"), [((120,), True), ((40,), False), ((10, 40), False), ((10, 120), True)])
def test_the_text_of_a_statement_tells_the_limit(
    tmp_path: Path, limits: tuple[int, ...], named: bool, place: str
) -> None:
    texts = [WRITTEN.format(limit=limit) for limit in limits]
    seen: dict[str, list[Row]] = {
        "span": {"spans": [span("SELECT", 10 * turn, 5, trace="other", operation="database", statement=text)
                           for turn, text in enumerate(texts)]},
        "session": {"activity": [session(1000 * turn, 1, query=text) for turn, text in enumerate(texts)]},
    }[place]  # fmt: skip
    said = judged(tmp_path, "missing-results", search(40), table() + index(), **seen)
    assert isinstance(said, Finding) is named
    if isinstance(said, Finding):
        assert any("LIMIT is 120" in line for line in said.evidence)


def test_what_an_app_sets_for_itself_is_not_known(tmp_path: Path) -> None:
    said = answer(
        tmp_path, "missing-results", statements=snapshots(search(40), OWN_SETTING), requests=requests(60),
        catalog=table() + index(),
    )  # fmt: skip
    assert isinstance(said, Clear)


@pytest.mark.parametrize(("found", "named"), [(3, True), (10, False), (None, False)])
def test_traces_that_tell_limit_and_results(tmp_path: Path, found: int | None, named: bool) -> None:
    spans = [
        store_span("search", turn * 100, 40, trace=f"{turn:032x}", db__vector__query__top_k=10) | {"documents": found}
        for turn in range(6)
    ]
    said = answer(tmp_path, "missing-results", catalog=collection(), spans=spans)
    assert isinstance(said, Finding) is named


def test_spans_of_stores_tell_what_they_were_for(tmp_path: Path) -> None:
    spans = [
        store_span("query_points", 0, 5, trace="a", qdrant__query_points__collection_name="docs"),
        store_span("upsert", 9, 5, trace="a", qdrant__upsert__points_count=7),
        store_span("search_batch", 20, 5, trace="a", qdrant__search_batch__requests_count=3),
        store_span("get", 30, 5, trace="a", system="postgresql"),
    ]
    frame = store_spans(recording(tmp_path, spans=spans))
    assert frame["is_search"].tolist() == [True, False, True]
    assert frame["is_write"].tolist() == [False, True, False]
    assert frame["items"].iloc[1] == 7
    assert frame["requests"].tolist() == [1, 1, 3]
    assert frame["collection"].iloc[0] == "docs"


@pytest.mark.parametrize("cause", ["unindexed-filter", "missing-results"])
def test_vectors_that_nobody_searches_for(tmp_path: Path, cause: str) -> None:
    said = judged(
        tmp_path, cause, counted("SELECT title FROM documents WHERE id = $1", calls=60, ms=1), table() + index()
    )
    assert isinstance(said, Clear)
    assert said.examined
