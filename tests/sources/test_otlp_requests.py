"""Server spans that tell their request by nothing but their name."""

import pytest
from otlp_spans import rows, span


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("POST /agents/{agent_id}/messages", ("POST", "/agents/{agent_id}/messages", 200)),
        ("GET /users/42?q=secret", ("GET", "/users/{id}", 200)),
        ("POST", None),
        ("handle POST /chat", None),
        ("POST chat", None),
    ],
)
def test_a_name_may_tell_method_and_route(name: str, expected: tuple[str, str, int] | None) -> None:
    made = rows(span({"http.status_code": 200}, kind=2, name=name))["http_requests"]
    assert [(each["method"], each["route"], each["status_code"]) for each in made] == ([expected] if expected else [])


def test_a_clients_span_is_no_request() -> None:
    assert not rows(span({}, kind=3, name="POST /chat"))["http_requests"]
