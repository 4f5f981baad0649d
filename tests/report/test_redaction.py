"""What others must not read is replaced wherever it stands, and nothing else is."""

import html
import json
from pathlib import Path
from urllib.parse import quote

import pytest
import secrets_to_plant as planted
from hypothesis import assume, given
from hypothesis import strategies as st

from perfnb.report.prompts import CONTENT_ASKED_FOR, Prompts
from perfnb.report.redaction import PATTERNS, Redactor, secret_values

HOME, FOLDER = Path("/home/ada"), Path("/srv/shop")


def redactor(environment=None, prompts=None) -> Redactor:
    given = {"prompts": prompts} if prompts else {}
    return Redactor.here(environment=environment or {}, home=HOME, folder=FOLDER, **given)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://app:s3cr3t@db/shop", "postgresql://app:[password]@db/shop"),
        ("redis://:p@ss:word@cache:6379/0", "redis://:[password]@cache:6379/0"),
        ("postgresql://app:cut-sh…", "postgresql://app:[password]…"),
        ("host=db user=app password=s3cr3t dbname=shop", "host=db user=app password=[secret] dbname=shop"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": [secret], "n": 1}'),
        ("OPENAI_API_KEY=abcd1234", "OPENAI_API_KEY=[secret]"),
        ("?access_token=a1b2&x=1", "?access_token=[secret]&x=1"),
        ("Authorization: Bearer abc123def", "Authorization: Bearer [bearer token]"),
        ("authorization: Token abcdef", "authorization: [header]"),
        ("Cookie: session=abc; theme=dark", "Cookie: [header]"),
        ("key sk-abcdefgh12345678 used", "key [key] used"),
        ("sk-ab... was refused", "[key]... was refused"),
        ("AKIAABCDEFGHIJKLMNOP", "[key]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "[token]"),
        ("ask jo.doe+x@mail.example.co.uk now", "ask [e-mail] now"),
        ("jo%40example.org", "[e-mail]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\nend", "[private key]\nend"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut off", "[private key]"),
        ('File "/home/ada/app/main.py", line 3', 'File "~/app/main.py", line 3'),
        ("file:///srv/shop/main.py", "./main.py"),
        ("/home/grace/x and /Users/alan/y", "~/x and ~/y"),
    ],
)
def test_a_secret_is_replaced_by_its_kind(text, expected):
    assert redactor().text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "time to first token: 512 ms",
        "max_tokens=500, output_tokens=1200",
        "risk-assessment-of-the-whole-quarter and task-0123456789abcdef",
        "http://localhost:8000/v1/chat and http://localhost:8000...",
        "@app.get('/chat') and a matrix a @ b",
        "/srv/shopping/list and /srv/shop.old and x/srv/shop",
        "basic authentication, a bearer token, the password is asked for",
        "SELECT * FROM chunks WHERE tenant = $1 AND embedding <=> $2",
        "2026-09-21 14:13:20 UTC, p95 4.8 s",
        "perfnb record --upstream URL --listen PORT --app URL",
        "objective: first token within 500 ms (A36)",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    cleaner = redactor()
    assert cleaner.text(text) == text
    assert sum(cleaner.counts.values()) == 0


@pytest.mark.parametrize("name", planted.TEXTS)
def test_each_planted_secret_is_gone_and_counted(name):
    cleaner = redactor(planted.ENVIRONMENT)
    text = cleaner.text(planted.TEXTS[name])
    assert not [secret for secret in planted.SECRETS if secret in text]
    assert sum(cleaner.counts.values()) >= 1


@given(st.text(), st.sampled_from(sorted(planted.TEXTS)), st.text())
def test_a_secret_between_any_other_text_is_gone(before, name, after):
    text = redactor(planted.ENVIRONMENT).text(f"{before} {planted.TEXTS[name]} {after}")
    assert not [secret for secret in planted.SECRETS if secret in text]


@given(st.text(alphabet=st.sampled_from("abc:/@.=\"'<>&%- sk-ey1234[]{}\n"), max_size=200))
def test_redacting_twice_changes_nothing_more(text):
    cleaner = redactor(planted.ENVIRONMENT)
    once = cleaner.text(text)
    assert cleaner.text(once) == once


@given(st.text(min_size=6, max_size=40).filter(lambda value: value.strip() == value and value.isprintable()))
def test_a_secret_variable_is_found_in_every_spelling(value):
    cleaner = redactor({"SERVICE_TOKEN": value})
    assume(cleaner.values and value not in "[environment secret]")  # an everyday word, or the one that stands in
    for spelled in (value, quote(value, safe=""), html.escape(value), json.dumps(value)[1:-1], repr(value)[1:-1]):
        assert spelled not in cleaner.text(f"x{spelled}y")


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("OPENAI_API_KEY", "abcdefgh", True),
        ("DB_PASSWORD", "abcdefgh", True),
        ("GITHUB_TOKEN", "abcdefgh", True),
        ("DB_PASSWORD", "short", False),
        ("API_KEY", "disabled", False),
        ("HOME", "/home/someone", False),
        ("KEYBOARD", "qwertz-layout", False),
        ("MONKEY_BUSINESS", "bananas-galore", False),
    ],
)
def test_variables_are_secret_by_name(name, value, is_secret):
    assert (value in secret_values({name: value})) is is_secret


def test_the_password_of_an_address_in_any_variable_is_a_secret():
    assert secret_values({"SHOP_URL": "postgresql://app:p%40ssw0rd@db/shop"}) == ["p@ssw0rd"]


def test_data_is_walked_names_included_and_contents_go_as_a_whole():
    value = {
        "messages": [{"role": "user", "text": "hello"}],
        "n": 1,
        "list": [planted.TEXTS["API key"]],
        planted.E_MAIL: None,
    }
    cleaned = redactor().data(value)
    assert cleaned == {
        "messages": "[prompt text]",
        "n": 1,
        "list": ["openai.AuthenticationError: wrong key [key]."],
        "[e-mail]": None,
    }


def test_labels_of_a_figure_stay_although_their_name_is_text():
    assert redactor().data({"data": [{"text": ["a label"]}]}, keys=False) == {"data": [{"text": ["a label"]}]}


def test_contents_stay_where_they_were_asked_for():
    value = {"response_text": "the whole answer"}
    assert redactor(prompts=CONTENT_ASKED_FOR).data(value) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"user said: {planted.PROMPT}!", "user said: [prompt text]!"),
        ("cut: Please tell me why my invoice from Mar…", "cut: [prompt text] Mar…"),
        ("<td>invoice from march WAS charged twice</td>", "<td>[prompt text]</td>"),
        ("the invoice was charged", "the invoice was charged"),
        ("yes, hello", "yes, hello"),
        ("he wrote: refund order 4711.", "he wrote: [prompt text]."),
    ],
)
def test_texts_of_the_conversation_are_recognised_even_where_they_were_cut(text, expected):
    prompts = Prompts.of([planted.PROMPT, "yes", "hello", "Refund order 4711"])
    assert redactor(prompts=prompts).text(text) == expected


def test_texts_inside_recorded_json_are_recognised():
    recorded = json.dumps([{"role": "user", "parts": [{"type": "text", "content": planted.PROMPT}]}])
    assert planted.PROMPT not in redactor(prompts=Prompts.of([recorded])).text(planted.PROMPT)


@given(st.lists(st.text(alphabet="abc xyz,.", max_size=60), max_size=5), st.text(alphabet="abc xyz,.<>", max_size=200))
def test_hiding_never_loses_what_was_not_said(said, text):
    hidden, count = Prompts.of(said).hide(text, "\x00")
    assert (count == 0) == (hidden == text) or "\x00" in hidden
    assert all(part in text for part in hidden.split("\x00"))


def test_every_pattern_has_a_case_above():
    covered = {kind for kind in PATTERNS if any(PATTERNS[kind].search(text) for text in planted.TEXTS.values())}
    assert set(PATTERNS) - covered <= {"private key", "header"}
