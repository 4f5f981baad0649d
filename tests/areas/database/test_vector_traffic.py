from pathlib import Path
from typing import Any

import pytest
from builders import Row, answer, call, embedding, request
from statement_rows import Counted, catalog, counted, requests, snapshots, traced
from vector_rows import SEARCH, collection, index, store_span, table

from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

INSERT = "INSERT INTO documents (title, body, embedding) VALUES (%s, %s, %s::vector)"
ALL = "INSERT INTO documents (title, body, embedding) SELECT %s, b, e::vector FROM unnest(%s::text[], %s::text[]) AS p (b, e)"
TURN = "INSERT INTO messages (session_id, content) VALUES (%s, %s)"


@pytest.mark.parametrize(
    ("queries", "named"),
    [
        (((INSERT, 12, 10),), True),
        (((INSERT, 3, 10),), False),
        (((INSERT, 12, 0.1),), False),  # not felt
        (((ALL, 1, 60),), False),
        (((ALL, 12, 10),), False),  # twelve documents, each in one statement
        (((TURN, 12, 10),), False),  # no vectors in it
        (((INSERT, 1, 60), (TURN, 2, 5)), False),  # a chat that remembers each turn
    ],
)
def test_single_inserts_by_trace(tmp_path: Path, queries: tuple[tuple[str, int, float], ...], named: bool) -> None:
    said = answer(tmp_path, "single-inserts", catalog=table() + index(), **traced(6, *queries))
    assert isinstance(said, Finding) is named
    if isinstance(said, Finding):
        assert said.symptom == "latency"
        assert said.estimate is not None
        assert said.estimate.low < said.estimate.high < said.estimate.before


def commits(count: int) -> list[Row]:
    return [
        {"time": row["time"], "source": "postgres", "entity": "database desk", "metric": "commits", "value": value}
        for row, value in zip(catalog("database", {"desk": {}}), (1000, 1000 + count), strict=True)
    ]


ONE = INSERT.replace("%s", "$1")
OTHER_ONE = ONE.replace("title, ", "")


def ran(**calls: int) -> list[Counted]:
    """Return statements beside the inserts: so many BEGIN, COMMIT, selects, resets of asyncpg's pool …"""
    texts = {
        "begin": ("BEGIN",), "commit": ("COMMIT",), "select": ("SELECT title FROM documents WHERE id = $1",),
        "reset": ("SELECT pg_advisory_unlock_all()", "CLOSE ALL", "UNLISTEN *", "RESET ALL"),
        "update": ("UPDATE documents SET title = $1 WHERE id = $2",),
    }  # fmt: skip
    return [counted(text, calls=count, ms=0.01) for name, count in calls.items() for text in texts[name]]


@pytest.mark.parametrize(
    ("inserts", "beside", "committed", "named"),
    [
        ([(ONE, 200, 1)], {}, 200, True),
        ([(ONE, 200, 1)], {}, 10, False),
        ([(ONE, 200, 40)], {}, 200, False),  # many rows each
        ([(ONE, 20, 1)], {}, 20, False),
        ([(ONE, 200, 1)], {"begin": 200, "commit": 200}, 200, True),
        ([(ONE, 200, 1)], {"begin": 4, "commit": 4}, 4, False),
        ([(ONE, 200, 1)], {"select": 900}, 1100, True),
        ([(ONE, 200, 1)], {"select": 900, "begin": 2, "commit": 2}, 902, False),  # sent together, beside selects
        ([(ONE, 200, 1)], {"select": 300, "reset": 500}, 1000, True),
        ([(ONE, 200, 1)], {"select": 300, "reset": 300, "begin": 2, "commit": 2}, 602, False),
        ([(ONE, 200, 1)], {"select": 200, "begin": 200, "commit": 200}, 200, False),  # one in each, or all in one
        ([(ONE, 92, 1), (OTHER_ONE, 94, 1)], {"select": 2000, "reset": 2255, "begin": 100, "commit": 209}, 4300, False),
        ([(ONE, 92, 1), (OTHER_ONE, 94, 1)], {"select": 2000}, 2186, True),
        ([(ONE, 200, 1)], {"update": 40}, 200, True),  # 160 of 200 at the least
        ([(ONE, 200, 1)], {"update": 41}, 200, False),
        ([(ONE, 200, 1)], {}, None, False),  # nobody counted commits
    ],
)  # fmt: skip
def test_single_inserts_by_counters(
    tmp_path: Path, inserts: list[tuple[str, int, float]], beside: dict[str, int], committed: int | None, named: bool
) -> None:
    made = [counted(text, calls=calls, ms=3, rows=rows) for text, calls, rows in inserts]
    samples = [] if committed is None else commits(committed)
    said = answer(
        tmp_path, "single-inserts", statements=snapshots(*made, *ran(**beside)), catalog=table(), samples=samples
    )
    assert isinstance(said, Finding) is named
    if isinstance(said, Finding):
        assert said.symptom == "database time"
        assert f"{committed:,} transactions were committed" in said.evidence[1]


@pytest.mark.parametrize(
    ("count", "ms", "calls", "named"),
    [
        (79, 300, 79, False),  # one a request: a turn of a chat is kept
        (79, 3500, 79, False),
        (20, 300, 200, True),
        (20, 300, 140, False),  # seven a request
        (20, 2000, 200, False),  # not felt: 30 ms of two seconds
    ],
)
def test_single_inserts_by_counters_beside_requests(
    tmp_path: Path, count: int, ms: float, calls: int, named: bool
) -> None:
    said = answer(
        tmp_path, "single-inserts", statements=snapshots(counted(ONE, calls=calls, ms=3)), catalog=table(),
        samples=commits(calls), requests=requests(count, ms=ms),
    )  # fmt: skip
    assert isinstance(said, Finding) is named


@pytest.mark.parametrize(("points", "named"), [(1, True), (100, False), (None, False)])
def test_single_inserts_into_a_store(tmp_path: Path, points: int | None, named: bool) -> None:
    made = traced(3)
    told = {} if points is None else {"qdrant__upsert__points_count": points}
    made["spans"] += [
        store_span("upsert", turn * 600 + 10 + 12 * n, 10, trace=f"{turn:032x}", **told)
        for turn in range(3)
        for n in range(12)
    ]
    assert isinstance(answer(tmp_path, "single-inserts", catalog=collection(), **made), Finding) is named


def test_inserts_that_nobody_saw_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "single-inserts", requests=requests(6))


NEAREST = SEARCH.replace("$1", "%s").replace("$2", "%s")


@pytest.mark.parametrize(
    ("queries", "pause_ms", "named"),
    [
        (((NEAREST, 6, 20),), 1, True),
        (((NEAREST, 1, 20),), 1, False),  # two, with the one below
        (((NEAREST, 6, 0.5),), 1, False),  # not felt
        (((NEAREST, 3, 20),), 60, False),  # something else comes between
        ((("SELECT body FROM documents WHERE id = %s", 6, 20),), 1, False),
    ],
)
def test_single_vector_searches(
    tmp_path: Path, queries: tuple[tuple[str, int, float], ...], pause_ms: float, named: bool
) -> None:
    made = traced(6, *queries, (NEAREST, 1, 0.1), pause_ms=pause_ms)
    said = answer(tmp_path, "single-vector-searches", catalog=table() + index(), **made)
    assert isinstance(said, Finding) is named


def test_searches_that_run_together_or_in_one_call_are_as_they_should_be(tmp_path: Path) -> None:
    made = traced(6)
    for turn in range(6):
        at, trace = turn * 600 + 10, f"{turn:032x}"
        made["spans"] += [store_span("query_points", at + n, 60, trace=trace, name=f"q{n}") for n in range(6)]
        made["spans"].append(
            store_span("query_batch", at + 90, 60, trace=trace, name="b", qdrant__query_batch__requests_count=6)
        )
    assert isinstance(answer(tmp_path, "single-vector-searches", catalog=collection(), **made), Clear)


def test_single_searches_of_a_store(tmp_path: Path) -> None:
    made = traced(6)
    made["spans"] += [
        store_span("query_points", turn * 600 + 10 + 31 * n, 30, trace=f"{turn:032x}", name=f"q{n}")
        for turn in range(6)
        for n in range(6)
    ]
    said = answer(tmp_path, "single-vector-searches", catalog=collection(), **made)
    assert isinstance(said, Finding)
    assert said.share == pytest.approx(6 * 150 / (6 * 300), rel=0.01)


def test_without_traces_searches_in_a_row_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(
            tmp_path, "single-vector-searches", statements=snapshots(counted(SEARCH, calls=9, ms=3)), catalog=table()
        )


def documents(
    count: int, texts: int, *, inputs: int = 1, ms: float = 40, pause: float = 5, together: bool = False
) -> dict[str, Any]:
    """Return uploads of ``count`` documents of so many texts each, with the embeddings calls made for them."""
    made: dict[str, list[Row]] = {"requests": [], "calls": []}
    for turn in range(count):
        at, trace = turn * 10_000, f"{turn:032x}"
        calls = -(-texts // inputs)
        made["requests"].append(request(at, calls * (ms + pause) + 50, trace_id=trace, route="/ingest", stream=False))
        made["calls"] += [
            embedding(at + 10 + (n * 0.5 if together else n * (ms + pause)), ms, inputs=inputs, trace_id=trace)
            for n in range(calls)
        ]
    return made


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (documents(4, 20), True),
        (documents(4, 20, inputs=10), False),
        (documents(4, 3), False),
        (documents(4, 20, together=True), False),  # sent side by side
        (documents(4, 20, pause=900), False),  # other work lies between
    ],
)
def test_unbatched_embeddings(tmp_path: Path, made: dict[str, Any], named: bool) -> None:
    said = answer(tmp_path, "unbatched-embeddings", **made)
    assert isinstance(said, Finding) is named
    if isinstance(said, Finding):
        assert said.share > 0.5
        assert said.exemplars


def test_a_question_is_embedded_alone_as_it_should_be(tmp_path: Path) -> None:
    calls, asked = [], []
    for turn in range(30):
        at, trace = turn * 1500, f"{turn:032x}"
        asked.append(request(at, 1200, trace_id=trace))
        calls += [embedding(at + 5, trace_id=trace), call(at + 60, 1000, trace_id=trace)]
    assert isinstance(answer(tmp_path, "unbatched-embeddings", calls=calls, requests=asked), Clear)


@pytest.mark.parametrize(("count", "named"), [(60, True), (12, False)])
def test_a_loader_without_requests(tmp_path: Path, count: int, named: bool) -> None:
    calls = [embedding(n * 30, 25, connection_id=3) for n in range(count)]
    assert isinstance(answer(tmp_path, "unbatched-embeddings", calls=calls), Finding) is named


def test_no_embeddings_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "unbatched-embeddings", calls=[call(0)])


def cut(*tokens: int, documents: int = 4) -> dict[str, Any]:
    """Return uploads of documents whose pieces have so many tokens."""
    made: dict[str, list[Row]] = {"requests": [], "calls": []}
    for turn in range(documents):
        at, trace = turn * 5000, f"{turn:032x}"
        made["requests"].append(request(at, 200, trace_id=trace, route="/ingest", stream=False))
        told = [{"role": "input", "digest": f"{turn}-{n}", "tokens": each} for n, each in enumerate(tokens)]
        made["calls"].append(
            embedding(at + 10, 90, inputs=len(tokens), trace_id=trace, messages=told, input_tokens=sum(tokens))
        )
    return made


@pytest.mark.parametrize(
    ("tokens", "how"),
    [
        ((24, 25, 22, 25, 25, 20, 24, 25, 23, 25), "little to go by"),
        ((150, 140, 150, 90, 150, 148, 150, 60, 150, 150), None),
        ((8, 30, 12, 90, 15, 40, 22, 60, 35, 120), None),  # short by nature, and of all lengths
        ((2400, 2500, 2300, 2500, 2500, 2000, 2400, 2500), "much at once"),
        ((1024, 1024, 900, 1024, 1024, 1024, 1024, 500), None),
    ],
)
def test_chunk_size_by_what_is_embedded(tmp_path: Path, tokens: tuple[int, ...], how: str | None) -> None:
    said = answer(tmp_path, "chunk-size", **cut(*tokens))
    assert isinstance(said, Finding) is (how is not None)
    if isinstance(said, Finding):
        assert how in said.title
        assert said.severity in ("medium", "high")


@pytest.mark.parametrize(("each", "named"), [(30, True), (125, False), (1800, True)])
def test_chunk_size_by_what_is_put_into_prompts(tmp_path: Path, each: int, named: bool) -> None:
    calls = [call(n * 1200, 1000, passages=4, passage_tokens=4 * each, input_tokens=5 * each) for n in range(20)]
    assert isinstance(answer(tmp_path, "chunk-size", calls=calls), Finding) is named


def test_whole_documents_beside_pieces_are_another_matter(tmp_path: Path) -> None:
    sizes = [{"role": "user", "tokens_of_passages": [40, 90, 3500, 3500, 3500]}]
    calls = [
        call(n * 1200, 1000, passages=5, passage_tokens=10_630, input_tokens=11_000, messages=sizes) for n in range(20)
    ]
    assert isinstance(answer(tmp_path, "chunk-size", calls=calls), Clear)


def excerpts(count: int, *, again: int = 1) -> dict[str, list[Row]]:
    """Return requests whose prompts hold three short excerpts, sent so many times with the calls of one request."""
    made: dict[str, list[Row]] = {"requests": [], "calls": []}
    for turn in range(count):
        at, trace = turn * 5000, f"{turn:032x}"
        made["requests"].append(request(at, 4000, trace_id=trace, stream=False))
        told = [{"role": "tool", "digest": f"answer {turn}", "tokens_of_passages": [30, 31, 32]}]
        given = {"trace_id": trace, "passages": 3, "passage_tokens": 93, "input_tokens": 700, "messages": told}
        made["calls"] += [call(at + 10 + n * 900, 800, **given) for n in range(again)]
    return made


@pytest.mark.parametrize(("count", "again", "named"), [(12, 1, True), (12, 3, True), (9, 1, None), (9, 4, None)])
def test_a_piece_that_is_sent_again_counts_once(tmp_path: Path, count: int, again: int, named: bool | None) -> None:
    made = excerpts(count, again=again)
    if named is None:
        with pytest.raises(NotMeasured):
            answer(tmp_path, "chunk-size", **made)
    else:
        assert isinstance(answer(tmp_path, "chunk-size", **made), Finding)


def test_excerpts_beside_whole_documents_are_not_how_documents_are_cut(tmp_path: Path) -> None:
    made = excerpts(12)
    told = [{"role": "system", "tokens_of_passages": [150, 8000]}]
    given = {"passages": 2, "passage_tokens": 8150, "input_tokens": 9000, "messages": told}
    made["calls"] += [call(100_000 + n * 1200, 1000, **given) for n in range(30)]
    assert isinstance(answer(tmp_path, "chunk-size", **made), Clear)


def test_questions_are_no_pieces(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "chunk-size", calls=[embedding(n * 100, inputs=1, input_tokens=12) for n in range(200)])
