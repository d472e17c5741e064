"""What the OpenAPI document says about answers: one success per endpoint, and errors in OpenAI's shape."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

__all__ = ["ANTHROPIC_ERROR", "ERRORS", "answers", "object_with"]

Schema = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]

_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message"],
            "properties": {
                "message": {"type": "string"},
                "type": _TEXT_OR_NULL,
                "param": _TEXT_OR_NULL,
                "code": {"type": ["string", "integer", "null"]},
            },
        }
    },
}
ANTHROPIC_ERROR: Schema = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": "string"},
    },
}
# Of the endpoints that call upstreams, whose own statuses are handed on.
ERRORS: tuple[int | str, ...] = (400, 401, 403, 404, 413, 429, 502, 503, 504, "4XX", "5XX")
# Whoever sends too slowly, or headers without end, is refused before any endpoint is reached.
_EVERYWHERE = (408, 431, 500)
_RANGES = {"4XX": "The upstream's own refusal", "5XX": "No upstream could answer"}


def answers(
    *errors: int | str,
    reply: Schema | None = None,
    kind: str = "application/json",
    streamed: bool = False,
    error: Schema | None = None,
) -> Responses:
    """Return the answers of one endpoint, as an OpenAPI document lists them.

    Args:
        errors: Statuses of its errors, or ranges of them such as "5XX", beside those that every endpoint has.
        reply: JSON schema of the answer; None for any object.
        kind: Media type of the answer.
        streamed: Whether it may be a stream of events as well.
        error: JSON schema of an error; None for OpenAI's.
    """
    schema = {"type": "string"} if kind.startswith("text/") else reply or {"type": "object"}
    content: dict[str, Any] = {kind: {"schema": schema}}
    if streamed:
        content["text/event-stream"] = {"schema": {"description": "Server-sent events"}}
    found: Responses = {200: {"description": "The answer", "content": content}}
    for status in sorted({*errors, *_EVERYWHERE}, key=str):
        said = _RANGES[status] if isinstance(status, str) else HTTPStatus(status).phrase
        # Refusals from below the endpoints are always in OpenAI's shape.
        shape = _ERROR if error is None else error if status in errors else {"anyOf": [_ERROR, error]}
        found[status] = {"description": said, "content": {"application/json": {"schema": shape}}}
    return found


def object_with(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object that has these keys at least; `properties` says more about some of them."""
    return {"type": "object", "required": list(required), "properties": properties}
