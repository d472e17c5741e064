"""Errors as clients see them: OpenAI's body `{"error": {message, type, param, code}}`, whatever went wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from router_ml.errors import RequestError, RouterError, UpstreamError
from router_ml_serving.disconnect import ClientGone
from router_ml_serving.failures import CircuitOpen, RefusedByUpstream

__all__ = [
    "CLIENT_CLOSED_REQUEST",
    "BodyTooLarge",
    "ModelNotFound",
    "NoPermission",
    "RateLimited",
    "TierNotAllowed",
    "WrongKey",
    "WrongTenant",
    "answer_to",
    "error_body",
    "install",
    "reply_to",
]

log = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# What nginx logs for a client that hung up; nobody receives it.
CLIENT_CLOSED_REQUEST = 499
_STATUS_OF_KIND = {"timeout": 504, "open": 503}
_HTTP_CODES = {404: "unknown_url", 405: "method_not_allowed"}


class BodyTooLarge(RequestError):
    """The request body is longer than `serving.max_body_bytes`."""

    code = "request_too_large"
    http_status = 413


class ModelNotFound(RequestError):
    """The `model` of a request names neither a router, a tier nor an upstream model."""

    code = "model_not_found"
    http_status = 404


class WrongKey(RouterError):
    """The key of a request is missing or wrong."""

    code = "invalid_api_key"
    http_status = 401


class NoPermission(RouterError):
    """What was asked for is switched off, or not for whoever asks."""

    code = "forbidden"
    http_status = 403


class WrongTenant(RouterError):
    """A request names another tenant than its key belongs to."""

    code = "wrong_tenant"
    http_status = 403


class TierNotAllowed(RouterError):
    """A request names a tier that its tenant may not use, or not now."""

    code = "tier_not_allowed"
    http_status = 403


class RateLimited(RouterError):
    """A tenant has asked for more per minute than its rules allow.

    Args:
        message: Which limit, and when to come back.
        headers: `retry-after` and the `x-ratelimit-*` headers of OpenAI's service.
    """

    code = "rate_limit_exceeded"
    http_status = 429

    def __init__(self, message: str, *, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


def error_body(message: str, *, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return OpenAI's error object for a message and an HTTP status."""
    kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def reply_to(error: RouterError, headers: Mapping[str, str] | None = None) -> Response:
    """Turn an error into the response a client gets; an upstream's own error body is handed on as it was.

    Args:
        error: What happened.
        headers: Further response headers, such as the router's own.
    """
    sent = dict(headers or {})
    status = error.http_status
    if isinstance(error, RefusedByUpstream | CircuitOpen | RateLimited):
        sent |= error.headers
    if isinstance(error, UpstreamError):
        status = error.status or _STATUS_OF_KIND.get(error.kind, 502)
        if _is_error_object(error.body):
            return Response(error.body, status, headers=sent, media_type="application/json")
        body = error_body(str(error), status=status, code=f"upstream_{error.kind}")
    else:
        param = error.param if isinstance(error, RequestError) else None
        body = error_body(str(error), status=status, param=param, code=error.code)
    return Response(orjson.dumps(body), status, headers=sent, media_type="application/json")


def answer_to(error: Exception, path: str) -> Response:
    """Turn whatever went wrong in an endpoint into the response a client gets; what nobody foresaw is logged.

    Args:
        error: What happened.
        path: Where, for the log.
    """
    if isinstance(error, RouterError):
        return reply_to(error)
    if isinstance(error, ClientGone):
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    # Of the exception the log keeps the stack and not the message, which may quote the prompt (logs.py).
    log.error("unexpected_error", exc_info=error, extra={"path": path, "error": type(error).__name__})
    body = error_body("The router failed on this request; its log says why.", status=500, code="internal_error")
    return Response(orjson.dumps(body), 500, media_type="application/json")


def install(app: FastAPI) -> None:
    """Answer every error of an application in OpenAI's shape."""
    app.add_exception_handler(RouterError, _on_router_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_surprise)


async def _on_router_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RouterError)  # noqa: S101  registered for this class only
    return reply_to(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for this class only
    status = error.status_code
    messages = {
        404: f"Unknown URL ({request.method} {request.url.path}); docs/service.md lists what exists.",
        405: f"{request.method} is not allowed on {request.url.path}.",
    }
    body = error_body(messages.get(status, str(error.detail)), status=status, code=_HTTP_CODES.get(status))
    return Response(orjson.dumps(body), status, headers=error.headers, media_type="application/json")


async def _on_surprise(request: Request, error: Exception) -> Response:
    return answer_to(error, request.url.path)


def _is_error_object(body: bytes) -> bool:
    if not body:
        return False
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    # Clients look for a message in it: an error that is a bare word is put into words by us.
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return isinstance(error, dict) and isinstance(error.get("message"), str)
