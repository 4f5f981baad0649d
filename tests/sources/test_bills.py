"""Usage and cost exports of providers: real shapes in, rows out; nothing in a file can break an import."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.errors import WrongUse
from perfnb.importing import import_files
from perfnb.prompts.digest import Digester
from perfnb.recording import Recording
from perfnb.sources import bills

DAY = 1_759_622_400  # 2025-10-05, UTC
HOUR = "start_time,end_time,start_time_iso,end_time_iso"
USAGE = (
    f"{HOUR},project_id,num_model_requests,user_id,api_key_id,model,batch,service_tier,input_tokens,output_tokens,"
    "input_cached_tokens,input_uncached_tokens\n"
    f"{DAY},{DAY + 86400},2025-10-05T00:00:00+00:00,2025-10-06T00:00:00+00:00,proj_1,10.0,user-1,key_1,"
    "gpt-4o-2024-08-06,FALSE,default,59200.0,10646.0,5760.0,53440.0\n"
    f"{DAY},{DAY + 86400},2025-10-05T00:00:00+00:00,2025-10-06T00:00:00+00:00,proj_1,2.0,user-1,key_1,"
    "gpt-4o-2024-08-06,TRUE,default,1000.0,100.0,0.0,1000.0\n"
    f"{DAY + 86400},{DAY + 172800},2025-10-06T00:00:00+00:00,2025-10-07T00:00:00+00:00,,,,,,,,,,,\n"
)
COSTS = (
    f"{HOUR},amount_value,amount_currency,line_item,project_id,organization_id,organization_name\n"
    f'{DAY},{DAY + 86400},a,b,0.8958740000000000,usd,"gpt-5-mini-2025-08-07, cached input",,org-1,Personal\n'
    f"{DAY},{DAY + 86400},a,b,-0.25,usd,,,org-1,Personal\n"
    f"{DAY + 86400},{DAY + 172800},a,b,,,,,,\n"
)
OPENAI_USAGE = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": DAY,
            "end_time": DAY + 86400,
            "results": [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": 1000,
                    "output_tokens": 500,
                    "input_cached_tokens": 800,
                    "input_cache_write_tokens": 100,
                    "num_model_requests": 5,
                    "model": "gpt-5-mini-2025-08-07",
                    "batch": None,
                    "project_id": "proj_1",
                    "service_tier": "flex",
                },
                {"object": "organization.usage.embeddings.result", "input_tokens": 16, "num_model_requests": 2},
            ],
        }
    ],
    "has_more": False,
}
OPENAI_COSTS = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": DAY,
            "end_time": DAY + 86400,
            "results": [
                {
                    "object": "organization.costs.result",
                    "amount": {"value": 0.06, "currency": "usd"},
                    "line_item": "gpt-5-mini-2025-08-07, output",
                    "project_id": None,
                },
                {"object": "organization.costs.result", "amount": {"value": 3, "currency": "eur"}, "line_item": "x"},
            ],
        }
    ],
}
CLAUDE_USAGE = {
    "data": [
        {
            "starting_at": "2025-10-05T00:00:00Z",
            "ending_at": "2025-10-06T00:00:00Z",
            "results": [
                {
                    "uncached_input_tokens": 1500,
                    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
                    "cache_read_input_tokens": 200,
                    "output_tokens": 600,
                    "model": "claude-sonnet-4-5-20250929",
                    "service_tier": "batch",
                    "workspace_id": "wrkspc_1",
                }
            ],
        }
    ],
}
CLAUDE_COSTS = {
    "data": [
        {
            "starting_at": "2025-10-05T00:00:00Z",
            "ending_at": "2025-10-06T00:00:00Z",
            "results": [
                {
                    "currency": "USD",
                    "amount": "123.5",
                    "description": "Claude Sonnet 4.5 Usage - Input Tokens",
                    "model": "claude-sonnet-4-5-20250929",
                    "token_type": "uncached_input_tokens",
                }
            ],
        }
    ],
}


@pytest.fixture
def made(tmp_path: Path) -> Recording:
    return Recording.create(tmp_path / "made.perfnb")


def rows(made: Recording, tmp_path: Path, content: str, name: str = "export") -> list[dict[str, Any]]:
    (tmp_path / name).write_text(content)
    imported = import_files(made, [tmp_path / name])
    found = made.query("SELECT * FROM bills ORDER BY time, item, requests DESC")
    assert imported.rows["bills"] == len(found)
    return [{key: None if value != value else value for key, value in row.items()} for row in found.to_dict("records")]


def part(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


TOKENS = ("requests", "input_tokens", "cache_read_tokens", "output_tokens")


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_openais_usage_csv(made: Recording, tmp_path: Path, delimiter: str, start: str) -> None:
    plain, batch = rows(made, tmp_path, start + USAGE.replace(",", delimiter))
    assert part(plain, "provider", "model", "source", "service_tier") == (
        "openai",
        "gpt-4o-2024-08-06",
        "usage",
        "default",
    )
    assert part(plain, *TOKENS) == (10, 59200, 5760, 10646)
    assert part(plain, "time", "end_time") == (DAY * 10**9, (DAY + 86400) * 10**9)
    assert part(batch, "service_tier", *TOKENS) == ("batch", 2, 1000, 0, 100)
    assert plain["charged_usd"] is None


def test_openais_cost_csv(made: Recording, tmp_path: Path) -> None:
    charged, credit = rows(made, tmp_path, COSTS)
    assert part(charged, "model", "item", "charged_usd", "source") == (
        "gpt-5-mini-2025-08-07", "gpt-5-mini-2025-08-07, cached input", pytest.approx(0.895874), "costs",
    )  # fmt: skip
    assert part(credit, "model", "charged_usd") == (None, pytest.approx(-0.25))
    assert charged["requests"] is None


@pytest.mark.parametrize("indent", [None, 2])
def test_openais_usage_api(made: Recording, tmp_path: Path, indent: int | None) -> None:
    chat, embeddings = rows(made, tmp_path, json.dumps(OPENAI_USAGE, indent=indent))
    assert part(chat, *TOKENS, "cache_write_tokens", "service_tier") == (5, 1000, 800, 500, 100, "flex")
    assert part(embeddings, *TOKENS, "model") == (2, 16, None, None, None)


def test_pages_a_line_each(made: Recording, tmp_path: Path) -> None:
    pages = [OPENAI_USAGE, CLAUDE_USAGE, *OPENAI_USAGE["data"]]  # type: ignore[misc]
    assert len(rows(made, tmp_path, "\n".join(json.dumps(page) for page in pages))) == 5


def test_openais_costs_api_and_another_currency_is_refused(made: Recording, tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text(json.dumps(OPENAI_COSTS))
    imported = import_files(made, [tmp_path / "costs.json"])
    assert imported.bad[0].reason == "charged in eur, not in US dollars"
    assert made.query("SELECT model, charged_usd FROM bills").to_dict("records") == [
        {"model": "gpt-5-mini-2025-08-07", "charged_usd": 0.06}
    ]


def test_anthropics_cached_tokens_are_put_inside_the_input(made: Recording, tmp_path: Path) -> None:
    (row,) = rows(made, tmp_path, json.dumps(CLAUDE_USAGE))
    assert part(row, "provider", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens") == (
        "anthropic", 3200, 200, 1500, 600,
    )  # fmt: skip
    assert row["requests"] is None
    assert row["time"] == DAY * 10**9


def test_anthropics_costs_are_cents(made: Recording, tmp_path: Path) -> None:
    (row,) = rows(made, tmp_path, json.dumps(CLAUDE_COSTS))
    assert part(row, "charged_usd", "item", "model") == (
        pytest.approx(1.235), "Claude Sonnet 4.5 Usage - Input Tokens", "claude-sonnet-4-5-20250929",
    )  # fmt: skip


def test_no_id_of_a_project_user_or_key_is_written(made: Recording, tmp_path: Path) -> None:
    written = json.dumps(rows(made, tmp_path, USAGE), default=str)
    assert not any(secret in written for secret in ("proj_1", "user-1", "key_1"))


def test_lines_alike_in_one_file_stay_apart_and_a_file_read_again_has_the_same_digests(
    made: Recording, tmp_path: Path
) -> None:
    line = USAGE.splitlines()[1]
    twice = "\n".join([USAGE.splitlines()[0], line, line])
    first = {row["line_digest"] for row in rows(made, tmp_path, twice)}
    assert len(first) == 2
    import_files(made, [tmp_path / "export"])
    again = made.query("SELECT line_digest FROM bills")["line_digest"]
    assert (len(again), set(again)) == (4, first)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{DAY},{DAY + 86400},a,b,p,many,u,k,m,FALSE,default,1,1,1,1", "num_model_requests is 'many'"),
        (f"{DAY},{DAY + 86400},a,b,p,,u,k,m,FALSE,default,1,1,1,1", "num_model_requests is None"),
        (f"{DAY},{DAY},a,b,p,1,u\rv,k", "new-line character"),
        ("soon,later,a,b,p,1,u,k,m,FALSE,default,1,1,1,1", "soon"),
        (f",{DAY},a,b,p,1,u,k,m,FALSE,default,1,1,1,1", "no time"),
    ],
)
def test_a_bad_line_is_counted_and_the_rest_is_read(made: Recording, tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "usage.csv").write_text(USAGE + line + "\n")
    imported = import_files(made, [tmp_path / "usage.csv"])
    assert (imported.rows["bills"], imported.bad_lines) == (2, 1)
    assert said in imported.bad[0].reason
    assert imported.bad[0].line == 5


@pytest.mark.parametrize(
    "content", ["start_time,other\n1,2\n", "model,input_tokens\nx,1\n", '{"data": [{"results": 5}]}']
)
def test_what_is_no_export_is_not_taken_for_one(made: Recording, tmp_path: Path, content: str) -> None:
    (tmp_path / "other").write_text(content)
    with pytest.raises(WrongUse):
        import_files(made, [tmp_path / "other"])


DIGESTER = Digester(b"k" * 32, "digest")
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
results = st.dictionaries(
    st.sampled_from([
        "input_tokens", "num_model_requests", "uncached_input_tokens", "cache_creation", "amount", "currency", "model",
        "line_item", "batch", "service_tier", "output_tokens", "cache_read_input_tokens", "workspace_id", "description",
    ]),
    anything,
)  # fmt: skip
buckets = st.fixed_dictionaries(
    {"results": st.lists(results | anything, max_size=3)},
    optional={
        "object": st.just("bucket"),
        "starting_at": anything,
        "start_time": anything,
        "end_time": anything,
        "ending_at": anything,
    },
)
COLUMNS = {"time", "end_time", "provider", "source", "project", "line_digest", "imported"}


@given(st.fixed_dictionaries({"data": st.lists(buckets | anything, max_size=3) | anything}) | buckets | anything)
def test_any_document_gives_rows_or_reasons(document: Any) -> None:
    assert isinstance(bills.is_page(document), bool)
    for row in bills.Reader(DIGESTER, clock=lambda: 1).page_rows(document):
        if not isinstance(row, bills.BadBill):
            assert row.keys() >= COLUMNS
            assert row["time"] > 0


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8")), max_size=5), st.sampled_from([",", "\t"]))
def test_any_lines_give_rows_or_reasons(lines: list[str], delimiter: str) -> None:
    content = [USAGE.splitlines()[0].replace(",", delimiter), *lines]
    for number, row in bills.Reader(DIGESTER, clock=lambda: 1).csv_rows([line.encode() for line in content]):
        assert number > 1
        assert isinstance(row, bills.BadBill) or row["time"] > 0


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_head_can_be_looked_at(head: list[bytes]) -> None:
    assert bills.is_csv(head) in (True, False)


@given(
    requests=st.integers(0, 10**9), read=st.integers(0, 10**9), plain=st.integers(0, 10**9), out=st.integers(0, 10**9)
)
def test_what_is_written_is_what_was_counted(requests: int, read: int, plain: int, out: int) -> None:
    header = USAGE.splitlines()[0]
    line = f"{DAY},{DAY + 60},a,b,p,{requests}.0,u,k,m,FALSE,default,{plain + read}.0,{out}.0,{read}.0,{plain}.0"
    ((_, row),) = bills.Reader(DIGESTER).csv_rows([header.encode(), line.encode()])
    assert not isinstance(row, bills.BadBill)
    assert part(row, *TOKENS) == (requests, plain + read, read, out)
