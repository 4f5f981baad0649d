import pytest
from multidict import CIMultiDict
from yarl import URL

from perfnb.sources.traffic.verbatim import way_out, without_hops


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ("https://api.openai.com/v1", "http://proxy.example:3128"),
        ("http://models.example", "http://other.example:3128"),
        ("https://inside.example", None),
        ("http://127.0.0.1:8000", None),
        ("http://localhost", None),
    ],
)
def test_the_environments_proxy_is_used_where_it_is_meant_to(
    monkeypatch: pytest.MonkeyPatch, upstream: str, expected: str | None
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://other.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert way_out(URL(upstream)) == expected


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ([("A", "1"), ("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")], ["A"]),
        ([("A", "1"), ("connection", "close, X-Hop"), ("x-hop", "1"), ("TE", "trailers")], ["A"]),
        ([("Transfer-Encoding", "chunked"), ("Set-Cookie", "a"), ("Set-Cookie", "b")], ["Set-Cookie", "Set-Cookie"]),
        ([("Authorization", "Bearer x"), ("Upgrade", "h2c")], ["Authorization"]),
    ],
)
def test_headers_of_one_connection_are_left_out(sent: list[tuple[str, str]], left: list[str]) -> None:
    headers = CIMultiDict(sent)
    without_hops(headers)
    assert [name for name, _ in headers.items()] == left
