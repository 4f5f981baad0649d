import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.areas.database.refusals import KINDS, kind_of
from perfnb.sources.otlp import texts

ASKED = "Dear desk my name is Ottilie Brandwein and I owe 4711 crowns what now"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://ann:pw@host:8080/a/b?q=Ottilie&page=2#top", "https://host:8080/a/b?q=…&page=…"),
        ("http://host/search?q=Ottilie+Brandwein", "http://host/search?q=…"),
        ("/search?Ottilie", "/search?…"),
        ("/search?my+name=x&a[0]=1", "/search?…&a[0]=…"),
        ("/search/my%20name%20is/x", "/search/…/x"),
        ("/search/my+name/x", "/search/…/x"),
        ("postgresql://ann:pw@db:5432/desk", "postgresql://db:5432/desk"),
        ("http://127.0.0.1:80/v1/chat/completions", "http://127.0.0.1:80/v1/chat/completions"),
        ("/chat/{id}", "/chat/{id}"),
        ("/users/6f9619ff-8b86-d011-b42d-00c04fc964ff?", "/users/6f9619ff-8b86-d011-b42d-00c04fc964ff?"),
        ("/fragen/Größe/1", "/fragen/…/1"),
        ("my name is/x", None),
    ],
)
def test_addresses_keep_names_of_parameters_and_no_values(given: str, expected: str | None) -> None:
    assert texts.address(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("SELECT id FROM users WHERE name = 'Ottilie'", "SELECT id FROM users WHERE name = ?"),
        ("/* by:app */ (SELECT a FROM b WHERE c=4711)", "(SELECT a FROM b WHERE c=?)"),
        ("WITH x AS (SELECT 'Ottilie') SELECT * FROM x", "WITH x AS (SELECT ?) SELECT * FROM x"),
        ("INSERT INTO notes (text) VALUES ('Ottilie owes')", "INSERT INTO notes (text) VALUES (?)"),
        ("UPDATE users SET name='Ottilie' WHERE id=%s", "UPDATE users SET name=? WHERE id=%s"),
        ("SELECT pg_advisory_lock($1) AS taken", "SELECT pg_advisory_lock($1) AS taken"),
        ("SELECT 1", "SELECT ?"),
        ("SET app.user = 'Ottilie'", "SET app.user = ?"),
        ("BEGIN", "BEGIN"),
        ("EXPLAIN (ANALYZE, FORMAT JSON) SELECT a FROM b WHERE c = 4711", "EXPLAIN (ANALYZE, FORMAT JSON) SELECT a FROM b WHERE c = ?"),
        ("CREATE UNIQUE INDEX i ON t (a)", "CREATE UNIQUE INDEX i ON t (a)"),
        ("COPY t (a, b) FROM STDIN", "COPY t (a, b) FROM STDIN"),
        ("SHOW server_version", "SHOW server_version"),
        ("COMMIT", "COMMIT"),
        ("GET cache:answers", "GET cache:answers"),
        ("SET answer:1 The order was shipped", "SET answer:1 …"),
        ("HSET user:1 name Ottilie", "HSET user:1 …"),
        ('GET my+name+is', "GET …"),
        ('color == "red" and size > 3', "color == ? and size > 3"),
        ("MATCH (n:Person {name: 'Ottilie'}) RETURN n", "MATCH (n:Person {name: ?}) RETURN n"),
        (ASKED, None),
        ("Update my address to the one below please", None),
        ("Select the best passages for my question", None),
        ("Show me my orders please", None),
        ("Explain with simple words where my order is", None),
        ("Create a table for my orders", None),
        ("Set my order to late", None),
        ("Begin with the part about my crowns and then go on", None),
    ],
)  # fmt: skip
def test_statements_hold_no_values_and_language_is_none(given: str, expected: str | None) -> None:
    assert texts.statement(given) == expected


PYTHON = f"""Traceback (most recent call last):
  File "/app/main.py", line 12, in answer
    raise ValueError(question)
psycopg.errors.QueryCanceled: {ASKED}
    {ASKED}

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/app/main.py", line 40, in <module>
    await run()
    ^^^^^^^^^^^
app.errors.AnswerError: no answer to
  {ASKED}
"""
NODE = f"""Error: {ASKED}
    at answer (/app/desk.js:12:5)
    at async Desk.run (file:///app/main.mjs:3:1)
    at /app/x.js:1:2"""
JAVA = f"""java.lang.IllegalStateException: {ASKED}
\tat desk.Answer.of(Answer.java:12)
\tat desk.Main.main(Main.java:4)
Caused by: java.sql.SQLTimeoutException: {ASKED}
\t... 3 more"""
GO = f"""panic: {ASKED}

goroutine 1 [running]:
main.answer(...)
\t/app/desk.go:12 +0x1d"""


@pytest.mark.parametrize(
    ("trace", "kept"),
    [
        (PYTHON, ['File "/app/main.py", line 12, in answer', "raise ValueError(question)", "app.errors.AnswerError",
                  "line 40, in <module>"]),
        (NODE, ["answer (/app/desk.js:12:5)", "Desk.run (file:///app/main.mjs:3:1)", "/app/x.js:1:2"]),
        (JAVA, ["desk.Answer.of(Answer.java:12)", "java.lang.IllegalStateException", "java.sql.SQLTimeoutException"]),
        (GO, ["/app/desk.go:12"]),
    ],
)  # fmt: skip
def test_stack_traces_keep_frames_and_lose_messages(trace: str, kept: list[str]) -> None:
    found = texts.stack_trace(trace)
    assert found is not None
    assert not [each for each in kept if each not in found]
    assert "Ottilie" not in found
    assert "Dear desk" not in found


def test_a_text_without_frames_is_no_stack_trace() -> None:
    assert texts.stack_trace(f"Traceback\n File x\nValueError: {ASKED}") is None


@pytest.mark.parametrize(
    "name",
    ["GET /chat/{id}", "SELECT documents", "chat gpt-4o", "RunnableSequence", "haystack.component.run", "POST /chat http send",
     "invoke_agent docs desk", "ai.streamText.doStream my-function", "embed the question", "Crew: kickoff", "tools",
     "HTTP GET", "opentelemetry.instrumentation.asgi.middleware.Receive"],
)  # fmt: skip
def test_usual_names_of_spans_stay(name: str) -> None:
    assert texts.name(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"answer: {ASKED}", "answer …"),
        (ASKED, "(text) …"),
        ("Where is it?", "(text) …"),
        ("Hello, Ottilie", "(text) …"),
        ("GET /search?q=Ottilie", "GET /search?q=…"),
        ("http://ann:pw@host/a?b=c", "http://host/a?b=…"),
        ("SELECT a FROM b WHERE c = 'Ottilie'", "SELECT a FROM b WHERE c = ?"),
        ("x" * 101, "(text) …"),
        ("run(Ottilie owes 4711 crowns to the bank)", "run …"),
    ],
)
def test_names_that_hold_a_text_are_cut_before_it(name: str, expected: str) -> None:
    assert texts.name(name) == expected


@pytest.mark.parametrize(
    "said",
    [
        "couldn't get a connection after 10.00 sec",
        "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00",
        "Error code: 429 - slow down",
        "FATAL:  sorry, too many clients already",
        "status_code: 429, body: {'message': 'Rate limit reached for requests. Please try again in 7584ms.'}",
        "[Errno 111] Connect call failed ('127.0.0.1', 5432)",
    ],
)
def test_what_drivers_pools_and_providers_say_stays(said: str) -> None:
    assert texts.message(said) == said


REFUSALS = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind[0]), st.from_regex(re.compile(kind[1], re.IGNORECASE), fullmatch=True))
)


@given(REFUSALS)
def test_every_refusal_that_checks_know_is_still_recognised(refusal: tuple[str, str]) -> None:
    kind, wording = refusal
    found = texts.message(f"(driver.Error) {wording}\n[SQL: SELECT '{ASKED}']")
    assert found is not None
    assert kind_of(found) == kind
    assert "Ottilie" not in found


@pytest.mark.parametrize("said", [f"no answer to {ASKED}", "list index out of range", ASKED])
def test_other_messages_do_not(said: str) -> None:
    assert texts.message(said) is None


def test_quoted_texts_beside_a_known_message_are_hidden() -> None:
    found = texts.message(f"deadlock detected while storing '{ASKED}' [parameters: ({ASKED!r},)]\nDETAIL: {ASKED}")
    assert found == "deadlock detected while storing '…' "


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    for rule in (
        texts.token,
        texts.address,
        texts.label,
        texts.spaced,
        texts.sql,
        texts.statement,
        texts.stack_trace,
        texts.message,
    ):
        assert isinstance(rule(text), str | None)
    assert isinstance(texts.name(text), str)
    assert isinstance(texts.query(text), str)
    assert isinstance(texts.path(text), str)
