"""Answers to the client while the upstream is still talking: streams passed through, streams held, and hang-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from ulid import ULID

from router_ml.errors import RouterError, UpstreamError
from router_ml.schema import Attempt
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.disconnect import ClientGone, unless_gone
from router_ml_serving.exchange import Exchange, OpenStream
from router_ml_serving.inbound import Json, Shape, StreamVoice, Turn
from router_ml_serving.inbound.chat import ChatShape
from router_ml_serving.problems import answer_to, error_body, reply_to
from router_ml_serving.wire import Usage

__all__ = ["StreamedReply", "refusal", "router_headers", "turn_of", "usage_on_bill"]

_CHAT = ChatShape()
_FACTS = ("tier", "model", "decision_id", "policy_version", "attempts", "overhead_ms", "reason")
_HEADERS = {f"x-router-{name.replace('_', '-')}": name for name in _FACTS} | {"x-model-router-selected-model": "model"}
_MAX_HEADER_CHARS = 300


def router_headers(facts: Json) -> dict[str, str]:
    """Return the `x-router-` headers for the facts of an exchange, safe to send (printable ASCII)."""
    return {header: _ascii(str(facts[name])) for header, name in _HEADERS.items()}


def turn_of(exchange: Exchange, attempt: Attempt | None, shape: Shape, asked: Json) -> Turn:
    """Return what an answer in a client's API refers to.

    Args:
        exchange: The request and its decision.
        attempt: The attempt whose answer is given; None while it is not known.
        shape: The client's API.
        asked: The body in that API.
    """
    facts = exchange.facts(attempt)
    ignored = shape.ignored(asked)
    return Turn(asked, {**facts, "ignored": ignored} if ignored else facts)


def usage_on_bill(attempt: Attempt) -> Usage | None:
    """Return the tokens that an attempt was billed for; they are estimates where the upstream does not count."""
    if attempt.input_tokens is None or attempt.output_tokens is None:
        return None
    return Usage(attempt.input_tokens, attempt.output_tokens, attempt.cached_tokens)


def refusal(error: RouterError, exchange: Exchange | None, shape: Shape) -> Response:
    """Return an error in the client's API.

    Args:
        error: What happened.
        exchange: The request and its decision, as far as there is one.
        shape: The client's API.
    """
    found = reply_to(error, router_headers(exchange.facts()) if exchange else None)
    request_id = _request_id(exchange) if exchange else f"req_{ULID()}"
    raw = bytes(found.body)
    body = shape.error(raw, found.status_code, request_id)
    if body is raw:
        return found
    headers = {name: value for name, value in found.headers.items() if name != "content-length"}
    return Response(body, found.status_code, headers={**headers, **shape.headers(request_id)})


class StreamedReply(Response):
    """A streamed answer: straight from the upstream (`through`), or held back until it is judged.

    The headers go out with the first byte. While an answer is held, a comment every `keepalive_s` keeps the
    connection open; from the first comment on, the headers can only say what was planned, and the first chunk says
    what came of it.

    Args:
        exchange: The request and its decision.
        through: True forwards bytes as they come.
        keepalive_s: Time between comments.
        shape: The client's API.
        asked: The body in that API; None for the chat body itself.
        headers: Further response headers, such as what is left of the tenant's limits.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        through: bool,
        keepalive_s: float,
        shape: Shape = _CHAT,
        asked: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(media_type="text/event-stream")
        self._exchange = exchange
        self._through = through
        self._keepalive_s = keepalive_s
        self._shape = shape
        self._asked = exchange.chat.body if asked is None else asked
        self._more = headers or {}
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the exchange is closed, and so recorded, however it ends."""
        try:
            await unless_gone(receive, self._serve(scope, receive, send))
        except (ClientGone, OSError):
            return  # send raises OSError when the connection is lost
        except Exception as error:  # noqa: BLE001  outermost: what is streamed is not answered by the endpoint any more
            answer = answer_to(error, scope["path"])
            if not self._started:  # else the connection is broken off: the client sees that this is not all
                self.status_code = answer.status_code
                await answer(scope, receive, send)
        finally:
            self._exchange.close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        result = await (self._exchange.opened() if self._through else self._held(send))
        if result.error is not None and not self._started:
            answer = refusal(result.error, self._exchange, self._shape)
            self.status_code = answer.status_code
            await answer(scope, receive, send)
            return
        voice = self._shape.stream(turn_of(self._exchange, result.attempt, self._shape, self._asked))
        if result.error is not None:
            await _say(send, voice.end(_error_object(result.error), None))
        elif isinstance(result.reply, OpenStream):
            await self._pass_through(send, result, result.reply, voice)
        else:
            await self._start(send, result)
            raw: Any = result.reply  # the bytes of a held stream
            await _say(send, voice.feed(raw) + voice.end(None, usage_on_bill(result.attempt)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _held(self, send: Send) -> AttemptResult:
        task = asyncio.ensure_future(self._exchange.held())
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=self._keepalive_s)
                if done:
                    return task.result()
                await self._start(send, None)
                await _say(send, self._shape.keep_alive)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _pass_through(self, send: Send, result: AttemptResult, stream: OpenStream, voice: StreamVoice) -> None:
        error: UpstreamError | None = None
        cancelled = True
        try:
            # In here, so that a client that is gone already leaves a closed call with its bill behind.
            await self._start(send, result)
            error = await _forward(stream, voice, send)
            cancelled = False
        finally:
            await stream.rest.aclose()
            self._exchange.finish(stream, error=error, cancelled=cancelled)
        last = self._exchange.trail[-1]
        broken = None if last.error is None else _error_object(last.error)
        await _say(send, voice.end(broken, usage_on_bill(last.attempt)))

    async def _start(self, send: Send, result: AttemptResult | None) -> None:
        if self._started:
            return
        self._started = True
        facts = self._exchange.facts(result.attempt if result else None)
        own = self._shape.headers(_request_id(self._exchange))
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", **self._more, **own, **router_headers(facts)}
        raw = [*self.raw_headers, *((name.encode(), value.encode()) for name, value in headers.items())]
        raw = [(name, value) for name, value in raw if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": raw})


async def _forward(stream: OpenStream, voice: StreamVoice, send: Send) -> UpstreamError | None:
    # Returns the error that broke the stream off.
    call, chunks = stream.call, stream.call.chunks
    try:
        await _say(send, voice.feed(chunks[0]))
        call.n_sent = 1
        async for piece in stream.rest:
            chunks.append(piece)
            if said := voice.feed(piece):
                await send({"type": "http.response.body", "body": said, "more_body": True})
            call.n_sent += 1
    except UpstreamError as error:
        return error
    return None


async def _say(send: Send, said: bytes) -> None:
    if said:
        await send({"type": "http.response.body", "body": said, "more_body": True})


def _error_object(error: RouterError) -> Json:
    found: Json = error_body(str(error), status=502, code="upstream_error")["error"]
    return found


def _request_id(exchange: Exchange) -> str:
    return f"req_{exchange.decision.decision_id}"


def _ascii(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        text = "".join(char if " " <= char <= "~" else "?" if char.isprintable() else " " for char in text).strip()
    return text[:_MAX_HEADER_CHARS]
