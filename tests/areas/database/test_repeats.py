from pathlib import Path
from typing import Any

import pytest
from builders import answer, call, recording, request, span
from hypothesis import given
from hypothesis import strategies as st
from statement_rows import Counted, catalog, counted, key, query_span, requests, snapshots, traced

from perfnb.areas.database.loops import N_PLUS_ONE, PER_ID, Before, id_filter, origin_of, repeated
from perfnb.areas.database.relations import Relations, relations
from perfnb.attribution.objects import require_objects
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.sql import parsed

POSTS = "SELECT id, title, author_id FROM posts ORDER BY id DESC LIMIT %s"
AUTHOR = "SELECT id, name FROM authors WHERE id = %s"
COMMENTS = "SELECT id, body FROM comments WHERE post_id = %s"
AUTHORS = "SELECT id FROM authors ORDER BY name LIMIT %s"
SEARCH = "SELECT id FROM documents ORDER BY embedding <=> %s LIMIT %s"
DOCUMENT = "SELECT id, title, body FROM documents WHERE id = %s"
HISTORY = "SELECT role, content FROM messages WHERE session_id = %s ORDER BY id LIMIT %s"
BATCH = "SELECT id, name FROM authors WHERE id = ANY(%s)"
INSERT = "INSERT INTO words (word) VALUES (%s)"
SETTING = "SELECT value FROM switches WHERE name = %s"

TABLES = catalog(
    "table",
    {f"public.{name}": {"live_rows": rows} for name, rows in
     {"posts": 5000, "authors": 800, "comments": 9000, "documents": 3000, "messages": 700, "switches": 4, "tags": 900}.items()},
)  # fmt: skip
KEYS = catalog(
    "index",
    key("public.posts", "id") | key("public.authors", "id") | key("public.comments", "id") | key("public.documents", "id")
    | key("public.messages", "id") | key("public.switches", "name") | key("public.tags", "id"),
)  # fmt: skip
FOREIGN = catalog(
    "foreign_key",
    {
        "public.posts.author": {"table": "public.posts", "target": "public.authors", "columns": ["author_id"]},
        "public.comments.post": {"table": "public.comments", "target": "public.posts", "columns": ["post_id"]},
    },
)
CATALOG = TABLES + KEYS + FOREIGN

Query = tuple[str, int, float]


def judged(folder: Path, **tables: Any) -> set[str]:
    """Return which of the two causes are named."""
    said = {cause: answer(folder / cause, cause, **tables) for cause in (N_PLUS_ONE, PER_ID)}
    return {cause for cause, one in said.items() if isinstance(one, Finding)}


@pytest.mark.parametrize("with_catalog", [True, False])
@pytest.mark.parametrize(
    ("queries", "named"),
    [
        ([(POSTS, 1, 4), (AUTHOR, 10, 1)], N_PLUS_ONE),  # one each
        ([(POSTS, 1, 4), (COMMENTS, 10, 1)], N_PLUS_ONE),  # many each
        ([(POSTS, 1, 4), (AUTHOR, 5, 2)], N_PLUS_ONE),
        ([(POSTS, 1, 4), (AUTHOR, 4, 2)], None),  # fewer than a loop
        ([(SEARCH, 1, 4), (DOCUMENT, 12, 1)], PER_ID),  # the ids of a search in the same table
        ([(DOCUMENT, 12, 1)], PER_ID),  # the ids of another store
        ([(HISTORY, 1, 2), (DOCUMENT, 12, 1)], PER_ID),  # what was read before gives no ids
        ([(POSTS, 1, 4), (BATCH, 1, 3)], None),
        ([(POSTS, 1, 4), (BATCH, 8, 3)], None),  # batches, as many as there are
        ([(POSTS, 1, 4), (INSERT, 20, 1)], None),  # single-inserts' matter
        ([(SEARCH, 8, 4)], None),  # a search has no id
        ([("SELECT count(*) FROM posts", 12, 1)], None),  # frequent-statement's
        ([(POSTS, 1, 4), ("BEGIN", 12, 1), ("COMMIT", 12, 1)], None),
        ([(HISTORY, 1, 2), (HISTORY.replace("LIMIT", "OFFSET"), 9, 2)], None),  # nothing gives session ids: the same each time
    ],
)  # fmt: skip
def test_by_traces(tmp_path: Path, queries: list[Query], named: str | None, with_catalog: bool) -> None:
    rows = traced(12, *queries) | ({"catalog": CATALOG} if with_catalog else {})
    assert judged(tmp_path, **rows) == ({named} if named else set())


def test_rows_of_a_table_that_has_few_are_read_again(tmp_path: Path) -> None:
    """Twelve different ids can't be read from four rows: that is a cheap statement run too often."""
    rows = traced(12, (POSTS, 1, 4), (SETTING, 12, 1)) | {"catalog": CATALOG}
    assert judged(tmp_path, **rows) == set()
    assert isinstance(answer(tmp_path / "often", "frequent-statement", **rows), Finding)


def test_a_loop_is_not_named_frequent_as_well(tmp_path: Path) -> None:
    rows = traced(12, (POSTS, 1, 4), (AUTHOR, 30, 1)) | {"catalog": CATALOG}
    assert isinstance(answer(tmp_path, "frequent-statement", **rows), Clear)


def counters(*statements: Counted, **tables: Any) -> dict[str, Any]:
    return {"statements": snapshots(*statements), "requests": requests(60), "catalog": CATALOG} | tables


def at(text: str, per_request: float, rows: float = 1, ms: float = 0.5) -> Counted:
    return counted(text.replace("%s", "$1", 1).replace("%s", "$2"), calls=round(60 * per_request), ms=ms, rows=rows)


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        ([at(POSTS, 1, 12, 4), at(AUTHOR, 12)], N_PLUS_ONE),
        ([at(POSTS, 1, 20, 4), at(AUTHOR, 12)], N_PLUS_ONE),  # an ORM asks for each author once
        ([at(POSTS, 1, 3, 4), at(AUTHOR, 12)], PER_ID),  # three rows can't give twelve ids
        ([at(SEARCH, 1, 12, 4), at(DOCUMENT, 12)], PER_ID),
        ([at(DOCUMENT, 12)], PER_ID),
        ([at(POSTS, 1, 12, 4), at(AUTHOR, 4.5)], None),
        ([at(POSTS, 1, 12, 4), at(COMMENTS, 12, rows=7)], N_PLUS_ONE),  # as many calls as posts
        ([at(POSTS, 1, 40, 4), at(COMMENTS, 12, rows=7)], None),  # rows of a list, and nothing counts them
        ([at(POSTS, 1, 40, 4), at(AUTHOR, 12), at(AUTHORS, 1, 12, 1)], PER_ID),  # twelve authors, twelve calls
        ([at(POSTS, 1, 12, 4), at(AUTHOR, 12, ms=0.01)], None),  # not felt
        ([at(HISTORY, 1, 12, 4), at(DOCUMENT, 12)], PER_ID),
    ],
)
def test_by_counters(tmp_path: Path, statements: list[Counted], named: str | None) -> None:
    assert judged(tmp_path, **counters(*statements)) == ({named} if named else set())


def test_counters_are_said_to_be_less_certain(tmp_path: Path) -> None:
    said = answer(tmp_path, N_PLUS_ONE, **counters(at(POSTS, 1, 12, 4), at(AUTHOR, 12)))
    assert isinstance(said, Finding)
    assert "12.0 calls for each of 60 requests, 1.0 rows a call: from counters" in said.evidence[0]
    assert said.estimate is None


def test_what_is_found_names_requests_and_what_gives_the_ids(tmp_path: Path) -> None:
    rows = traced(12, (POSTS, 1, 4), (AUTHOR, 10, 8)) | {"catalog": CATALOG}
    said = answer(tmp_path, N_PLUS_ONE, **rows)
    assert isinstance(said, Finding)
    assert said.title == "A request reads authors by id 10 times, one row after another"
    assert said.share == pytest.approx(80 / 84)
    assert said.evidence[0] == "12 requests run it 10 times (median, 10 to 10), 80.0 ms together"
    assert "ORDER BY id DESC LIMIT %s; a foreign key binds the two tables" in said.evidence[2]
    assert "27% of the users' wait" in said.evidence[3]
    assert set(said.exemplars) <= {row["request_id"] for row in rows["requests"]}
    assert (said.estimate and said.estimate.before, said.estimate and said.estimate.low) == (300.0, 228.0)


def test_where_nothing_gives_the_ids_the_other_cause_is_mentioned(tmp_path: Path) -> None:
    said = answer(tmp_path, PER_ID, **traced(12, (DOCUMENT, 12, 1)))
    assert isinstance(said, Finding)
    assert said.evidence[2].endswith("it is n-plus-one")


def test_a_loop_in_a_loop(tmp_path: Path) -> None:
    """Posts, their comments, and each comment's author: interleaved, as an ORM does it."""
    rows: dict[str, Any] = {"requests": [], "spans": []}
    for turn in range(6):
        trace, start = f"{turn:032x}", turn * 1000.0
        rows["requests"].append(request(start, 600, trace_id=trace))
        rows["spans"].append(query_span(POSTS, start, 3, trace=trace, name="posts"))
        for post in range(6):
            moment = start + 10 + post * 60
            rows["spans"].append(query_span(COMMENTS, moment, 2, trace=trace, name=f"c{post}"))
            for author in range(3):
                rows["spans"].append(
                    query_span(AUTHOR, moment + 10 + author * 5, 2, trace=trace, name=f"a{post}-{author}")
                )
    frame = repeated(recording(tmp_path, catalog=CATALOG, **rows)).set_index("table")
    assert frame["cause"].to_dict() == {"comments": N_PLUS_ONE, "authors": N_PLUS_ONE}
    assert frame["turns"].to_dict() == {"comments": 6, "authors": 18}


def test_a_loop_over_model_calls_is_none(tmp_path: Path) -> None:
    trace = "b" * 32
    spans = [query_span(DOCUMENT, 1000 * turn + 900, 20, trace=trace, name=f"q{turn}") for turn in range(8)]
    spans.append(span("POST /agent", 0, 9000, trace=trace, kind="SERVER", operation="server"))
    rows = {"spans": spans, "calls": [call(1000 * turn, 800, trace_id=trace) for turn in range(8)]}
    assert judged(tmp_path, requests=[request(0, 9000, trace_id=trace)], **rows) == set()


def test_two_requests_are_too_few(tmp_path: Path) -> None:
    assert judged(tmp_path, **traced(2, (POSTS, 1, 4), (AUTHOR, 10, 1))) == set()


def test_small_in_the_wait_is_not_severe(tmp_path: Path) -> None:
    said = answer(tmp_path, N_PLUS_ONE, **traced(12, (POSTS, 1, 4), (AUTHOR, 20, 0.5), ms=4000))
    assert isinstance(said, Finding)
    assert (said.severity, said.share > 0.5) == ("low", True)


@pytest.mark.parametrize("cause", [N_PLUS_ONE, PER_ID])
def test_requests_and_statements_are_both_needed(tmp_path: Path, cause: str) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path / "a", cause, requests=requests(9))
    with pytest.raises(NotMeasured):
        answer(tmp_path / "b", cause, statements=snapshots(at(AUTHOR, 12)))


@pytest.mark.parametrize("cause", [N_PLUS_ONE, PER_ID])
def test_clear_says_what_was_looked_at(tmp_path: Path, cause: str) -> None:
    said = answer(tmp_path, cause, **traced(12, (POSTS, 1, 4), (AUTHOR, 2, 1)))
    assert isinstance(said, Clear)
    assert said.examined.startswith("2 selects of requests, the most frequent 2.0 times a request")


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("SELECT * FROM authors WHERE tenant = $1 AND id = $2", "id"),
        ("SELECT * FROM comments c WHERE c.kind = $1 AND c.post_id = $2", "post_id"),
        ("SELECT * FROM authors WHERE (name = $1)", "name"),
        ("SELECT * FROM authors WHERE id IN ($1, $2)", None),
        ("SELECT * FROM authors WHERE id > $1", None),
        ("SELECT * FROM authors WHERE id = $1 OR name = $2", None),
        ("SELECT * FROM authors WHERE lower(name) = $1", None),
        ("SELECT * FROM authors", None),
        ("SELECT * FROM documents WHERE id = $1 ORDER BY embedding <-> $2", None),
    ],
)
def test_by_what_a_statement_names_rows(tmp_path: Path, text: str, column: str | None) -> None:
    statement = parsed(text)
    assert statement is not None
    made = id_filter(statement, relations(recording(tmp_path, catalog=CATALOG)))
    assert (made and made.column) == column


@given(rows=st.floats(0, 200), turns=st.integers(5, 100))
def test_a_parent_has_rows_enough(rows: float, turns: int) -> None:
    parent, child = parsed(POSTS), parsed(AUTHOR)
    assert parent
    assert child
    by_id = id_filter(child, Relations())
    assert by_id is not None
    origin = origin_of(by_id, [Before(parent, POSTS, rows)], Relations(), turns)
    assert origin is not None
    assert origin.cause == (N_PLUS_ONE if rows >= 0.8 * turns else PER_ID)


def test_relations_are_as_the_catalog_says(tmp_path: Path) -> None:
    made = recording(tmp_path, catalog=CATALOG)
    known = relations(made)
    assert known.name("authors") == known.name("public.authors") == "public.authors"
    assert known.is_key("authors", "id")
    assert not known.is_key("authors", "authors_id")
    assert known.target("posts", "author_id") == "public.authors"
    assert known.are_related("authors", "posts")
    assert not known.are_related("authors", "documents")
    assert (known.rows("authors"), known.rows("strangers")) == (800, None)
    assert len(require_objects(made, "table")) == 7


@pytest.mark.parametrize(
    ("column", "is_key"), [("id", True), ("uuid", True), ("author_id", True), ("post_id", False), ("name", False)]
)
def test_keys_are_guessed_by_their_names_where_there_is_no_catalog(column: str, is_key: bool) -> None:
    assert Relations().is_key("authors", column) is is_key
