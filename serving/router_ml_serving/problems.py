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
from router_ml_serving.upstream import RefusedByUpstream

__all__ = ["BodyTooLarge", "ModelNotFound", "NoPermission", "WrongKey", "error_body", "install", "reply_to"]

log = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
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
    """What was asked for is switched off."""

    code = "forbidden"
    http_status = 403


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
    if isinstance(error, RefusedByUpstream):
        sent |= error.headers
    if isinstance(error, UpstreamError):
        status = error.status or (504 if error.kind == "timeout" else 502)
        if _is_error_object(error.body):
            return Response(error.body, status, headers=sent, media_type="application/json")
        body = error_body(str(error), status=status, code=f"upstream_{error.kind}")
    else:
        param = error.param if isinstance(error, RequestError) else None
        body = error_body(str(error), status=status, param=param, code=error.code)
    return Response(orjson.dumps(body), status, headers=sent, media_type="application/json")


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
        404: f"Unknown URL ({request.method} {request.url.path}); see /docs for what exists.",
        405: f"{request.method} is not allowed on {request.url.path}.",
    }
    body = error_body(messages.get(status, str(error.detail)), status=status, code=_HTTP_CODES.get(status))
    return Response(orjson.dumps(body), status, headers=error.headers, media_type="application/json")


async def _on_surprise(request: Request, error: Exception) -> Response:
    log.error("unexpected_error", extra={"path": request.url.path, "error": type(error).__name__})
    body = error_body("The router failed on this request; its log says why.", status=500, code="internal_error")
    return Response(orjson.dumps(body), 500, media_type="application/json")


def _is_error_object(body: bytes) -> bool:
    if not body:
        return False
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(parsed, dict) and "error" in parsed
