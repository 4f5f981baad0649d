"""What is wrong with a request, and how the protocol says so."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from perfnb.demo.provider.answers import Message


class Problem(Exception):
    """An error answer in the protocol's shape."""

    def __init__(self, status: int, message: str, kind: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> web.Response:
        """Return the answer to send."""
        return web.json_response(self.body, status=self.status, headers=self.headers)


@web.middleware
async def as_answers(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer with the problem a handler raised."""
    try:
        response: web.StreamResponse = await handler(request)
    except Problem as problem:
        return problem.response()
    return response


async def read_body(request: web.Request, field: str, default_model: str | None = None) -> dict[str, Any]:
    """Return the request's JSON; raises Problem if it lacks ``field`` or a model."""
    try:
        body = await request.json()
    except ValueError:
        raise Problem(400, "The body is not JSON", "invalid_request_error") from None
    if not isinstance(body, dict) or body.get(field) is None:
        raise Problem(400, f"Missing required parameter: '{field}'.", "invalid_request_error")
    if not body.setdefault("model", default_model):
        raise Problem(400, "you must provide a model parameter", "invalid_request_error")
    return body


def messages_of(body: Mapping[str, Any], field: str) -> Sequence[Message]:
    """Return the messages of a chat, or what stands for them elsewhere, as messages."""
    given = body[field]
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise Problem(400, f"{field} must be a text or a list of messages", "invalid_request_error")
    if body.get("instructions"):
        given = [{"role": "system", "content": body["instructions"]}, *given]
    return given


def server_error() -> Problem:
    """Return what a provider says when it is its own fault."""
    return Problem(500, "The server had an error while processing your request. Sorry about that!", "server_error")
