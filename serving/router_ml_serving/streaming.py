"""Answers to the client while the upstream is still talking: streams passed through, streams held, and hang-ups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from router_ml.errors import RouterError, UpstreamError
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.exchange import Exchange, OpenStream
from router_ml_serving.problems import error_body, reply_to
from router_ml_serving.sse import KEEP_ALIVE, event, facts_in_first_event

__all__ = ["ClientGone", "StreamedReply", "router_headers", "unless_gone"]

T = TypeVar("T")
Json = dict[str, Any]  # untyped JSON of the wire
_HEADERS = ("tier", "model", "decision_id", "policy_version", "attempts", "overhead_ms", "reason")
_MAX_HEADER_CHARS = 300


class ClientGone(Exception):
    """The client hung up before its answer was complete."""


def router_headers(facts: Json) -> dict[str, str]:
    """Return the `x-router-` headers for the facts of an exchange, safe to send (printable ASCII)."""
    headers = {f"x-router-{name.replace('_', '-')}": _ascii(str(facts[name])) for name in _HEADERS}
    headers["x-model-router-selected-model"] = _ascii(str(facts["model"]))
    return headers


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` and return its result, but cancel it when the client hangs up.

    Args:
        receive: The ASGI channel, after the request body was read.
        work: What the client waits for.

    Raises:
        ClientGone: When the client hung up first; `work` has been cancelled and has ended.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_hang_up(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        pending = [future for future in (task, watch) if not future.done()]
        for future in pending:
            future.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


class StreamedReply(Response):
    """A streamed answer: straight from the upstream (`through`), or held back until it is judged.

    The headers go out with the first byte. While an answer is held, a comment every `keepalive_s` keeps the
    connection open; from the first comment on, the headers can only say what was planned, and the first chunk says
    what came of it.

    Args:
        exchange: The request and its decision.
        through: True forwards bytes as they come.
        keepalive_s: Time between comments.
    """

    def __init__(self, exchange: Exchange, *, through: bool, keepalive_s: float) -> None:
        super().__init__(media_type="text/event-stream")
        self._exchange = exchange
        self._through = through
        self._keepalive_s = keepalive_s
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the exchange is closed, and so recorded, however it ends."""
        try:
            await unless_gone(receive, self._serve(scope, receive, send))
        except (ClientGone, OSError):
            return  # send raises OSError when the connection is lost
        finally:
            self._exchange.close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        result = await (self._exchange.opened() if self._through else self._held(send))
        if result.error is not None and not self._started:
            headers = router_headers(self._exchange.facts())
            await reply_to(result.error, headers)(scope, receive, send)
            return
        if result.error is not None:
            await send(_body(_error_event(result.error)))
        elif isinstance(result.reply, OpenStream):
            await self._pass_through(send, result, result.reply)
        else:
            await self._start(send, result)
            raw: Any = result.reply  # the bytes of a held stream
            await send(_body(facts_in_first_event(raw, self._exchange.facts(result.attempt)) or raw))
        await send(_body(b"", more=False))

    async def _held(self, send: Send) -> AttemptResult:
        task = asyncio.ensure_future(self._exchange.held())
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=self._keepalive_s)
                if done:
                    return task.result()
                await self._start(send, None)
                await send(_body(KEEP_ALIVE))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _pass_through(self, send: Send, result: AttemptResult, stream: OpenStream) -> None:
        error: UpstreamError | None = None
        cancelled = True
        try:
            # In here, so that a client that is gone already leaves a closed call with its bill behind.
            await self._start(send, result)
            facts = self._exchange.facts(result.attempt)
            error = await _forward(_whole_lines(stream), lambda piece: send(_body(piece)), facts)
            cancelled = False
        finally:
            await stream.rest.aclose()
            self._exchange.finish(stream, error=error, cancelled=cancelled)
        broken = self._exchange.trail[-1].error
        if broken is not None:
            await send(_body(_error_event(broken)))

    async def _start(self, send: Send, result: AttemptResult | None) -> None:
        if self._started:
            return
        self._started = True
        facts = self._exchange.facts(result.attempt if result else None)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", **router_headers(facts)}
        raw = [*self.raw_headers, *((name.encode(), value.encode()) for name, value in headers.items())]
        raw = [(name, value) for name, value in raw if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": raw})


async def _forward(
    pieces: AsyncIterator[bytes], send: Callable[[bytes], Awaitable[None]], facts: Json
) -> UpstreamError | None:
    # Everything as it came, but for the facts in the first chunk. Returns the error that broke the stream off.
    told = False
    try:
        async for piece in pieces:
            changed = None if told else facts_in_first_event(piece, facts)
            told = told or changed is not None
            await send(piece if changed is None else changed)
    except UpstreamError as error:
        return error
    return None


async def _whole_lines(stream: OpenStream) -> AsyncIterator[bytes]:
    # The upstream's bytes, cut at line ends: when it breaks off within a line, what follows can still be an event.
    part = b""
    chunks = stream.call.chunks
    piece = chunks[0]
    while True:
        cut = piece.rfind(b"\n") + 1
        if cut:
            yield part + piece[:cut]
            part = piece[cut:]
        else:
            part += piece
        try:
            piece = await anext(stream.rest)
        except StopAsyncIteration:
            break
        chunks.append(piece)
    if part.strip() == b"data: [DONE]":
        yield part + b"\n\n"


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _error_event(error: RouterError) -> bytes:
    # The blank line first ends an event that the upstream left open.
    return b"\n\n" + event(error_body(str(error), status=502, code="upstream_error"))


def _body(piece: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": more}


def _ascii(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        text = "".join(char if " " <= char <= "~" else "?" if char.isprintable() else " " for char in text).strip()
    return text[:_MAX_HEADER_CHARS]
