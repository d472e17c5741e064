"""The client of the tiers' model endpoints: OpenAI's wire format over aiohttp, one pooled session."""

from __future__ import annotations

import asyncio
import io
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from multidict import CIMultiDict

from router_ml.errors import ConfigError, UpstreamError
from router_ml.ladder import Tier
from router_ml.records import record
from router_ml_serving.destinations import CarefulResolver, Destination, destination_of
from router_ml_serving.failures import CircuitOpen, KeyRefused, RefusedByUpstream, forwarded, named, refusal
from router_ml_serving.health import REFUSED, Health
from router_ml_serving.replies import Allowance, EndMark, first_event, parsed, refused_with, rest, whole
from router_ml_serving.retry import TRANSIENT, Retries, RetryBudget
from router_ml_serving.settings import ServingSettings
from router_ml_serving.wire import is_answer

__all__ = ["HttpUpstream", "RefusedByUpstream", "Reply", "Upstream"]

log = logging.getLogger(__name__)

# Shorter than the idle timeout of common servers, so that a pooled connection is rarely a dead one.
_POOL_KEEPALIVE_S = 10.0
# Longer bodies go out in pieces: in one they would hold up everybody else.
_LARGE_BYTES = 2**20
# Timers may ring this much early.
_TICK_S = 0.01
# Whether the request that runs in this context had to open a connection of its own.
_CONNECTED: ContextVar[bool] = ContextVar("connected", default=True)


@record
class Reply:
    """A whole answer of an upstream: the bytes as they came, and the same parsed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    parsed: dict[str, Any]


class Upstream(Protocol):
    """Calls one tier; raises `UpstreamError` and nothing else when that fails."""

    async def complete(
        self,
        tier: Tier,
        body: bytes,
        *,
        deadline_s: float | None = None,
        cut_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the whole answer to one chat body; nothing is tried again after `deadline_s`.

        `cut_s` is given when the caller cancels the call at that moment.
        """
        ...

    def stream(
        self,
        tier: Tier,
        body: bytes,
        *,
        deadline_s: float | None = None,
        cut_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a streamed answer as they arrive; closing the generator cancels the call."""
        ...


class HttpUpstream:
    """An `Upstream` over HTTP; call `start` in a running event loop before the first request, and `close` at the end.

    Args:
        settings: Timeouts, retries, and the hosts that may be called.
        environ: Where the tiers' keys are looked up (`Tier.api_key_env`).
        tiers: The tiers of the configuration: they alone are called, and only where the configuration says, whatever a
            bundle says. None calls any tier that is given, where it says itself.
        health: Is told how every call went, and says which must not go out; None lets all go out.
        on_retry: Told the tier of every retry.
        clock: Seconds, never going back; the clock of every `deadline_s`.
        sleep: Waits so many seconds.
        uniform: Draws a number between its two arguments.
        now: The time of day (UTC).

    Raises:
        ConfigError: When one of `tiers` lies outside of `serving.upstream_hosts`, or cannot be called at all.
    """

    def __init__(
        self,
        settings: ServingSettings,
        environ: Mapping[str, str],
        *,
        tiers: Iterable[Tier] | None = None,
        health: Health | None = None,
        on_retry: Callable[[str], None] = lambda _tier: None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._is_closed_list = tiers is not None
        self._destinations = {tier.name: self._checked(tier) for tier in tiers or ()}
        self._health = health or Health((), failures=0, open_s=settings.breaker_s, clock=clock)
        self._retries = Retries(settings.retries, uniform)
        self._budgets: dict[str, RetryBudget] = {}
        self._on_retry = on_retry
        self._clock = clock
        self._sleep = sleep
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool."""
        timeout = aiohttp.ClientTimeout(
            total=self._settings.total_s, sock_connect=self._settings.connect_s, sock_read=self._settings.idle_s
        )
        connector = _Connector(limit=0, keepalive_timeout=_POOL_KEEPALIVE_S, resolver=CarefulResolver())
        # No proxy and no .netrc from the environment: a call goes where the configuration says.
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            # None is asked for; what comes all the same might unpack to a thousand times its size.
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def complete(
        self,
        tier: Tier,
        body: bytes,
        *,
        deadline_s: float | None = None,
        cut_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the whole answer of a tier to one chat body.

        Args:
            tier: Who is asked.
            body: What is sent.
            deadline_s: When the answer is of no more use, on the client's clock: nothing is tried again after that.
            cut_s: When the caller itself cancels the call, on that clock: a tier that has sent nothing by then failed.
            headers: Of this call alone, beside the tier's own: the trace that it belongs to.

        Raises:
            UpstreamError: When it did not answer, answered with an error status, or with something else than JSON.
        """
        to, ticket = self._begin(tier, headers)
        started_s = self._clock()
        try:
            response = await self._opened(to, body, ticket, deadline_s)
            try:
                raw = await whole(tier, response, self._settings.max_answer_bytes)
            except (TimeoutError, aiohttp.ClientError) as error:
                raise named(tier, error) from error
            reply = Reply(200, forwarded(response.headers), raw, parsed(tier, raw))
        except BaseException as error:
            self._ended(tier.name, ticket, error, started_s, cut_s)
            raise
        if is_answer(reply.parsed):
            self._health.succeeded(tier.name, ticket, (self._clock() - started_s) * 1e3)
        else:  # the caller, who sees that too, puts its tokens on the bill
            self._health.failed(tier.name, ticket)
        return reply

    async def stream(
        self,
        tier: Tier,
        body: bytes,
        *,
        deadline_s: float | None = None,
        cut_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a tier's streamed answer as they arrive.

        Args:
            tier: Who is asked.
            body: What is sent.
            deadline_s: When the answer is of no more use, on the client's clock: nothing is tried again after that.
            cut_s: When the caller itself cancels the call, on that clock: a tier that has sent nothing by then failed.
            headers: Of this call alone, beside the tier's own: the trace that it belongs to.

        Raises:
            UpstreamError: Before the first byte for an error status, later when the stream breaks off.
        """
        to, ticket = self._begin(tier, headers)
        clock, started_s, held_s, mark = self._clock, self._clock(), 0.0, EndMark()
        waiting_s: float | None = started_s
        try:
            async with await self._opened(to, body, ticket, deadline_s) as response:
                chunk = await first_event(tier, response, self._now)
                self._health.first_byte(tier.name, ticket, (clock() - started_s) * 1e3)
                waiting_s = None
                allowance = Allowance(tier, self._settings.max_answer_bytes)
                while chunk and not mark.seen(chunk):
                    allowance.take(chunk)
                    yielded_s = clock()
                    yield chunk
                    held_s += clock() - yielded_s  # a client that reads slowly does not make its tier slow
                    chunk = await response.content.readany()
                # A client that hangs up on the end mark has got its answer.
                self._health.succeeded(tier.name, ticket, (clock() - started_s - held_s) * 1e3)
                while chunk:
                    yield chunk
                    chunk = await rest(response)
        except BaseException as error:
            failure = named(tier, error) if isinstance(error, TimeoutError | aiohttp.ClientError) else error
            self._ended(tier.name, ticket, failure, waiting_s, cut_s)
            if failure is error:
                raise
            raise failure from error

    def _begin(self, tier: Tier, headers: Mapping[str, str] | None) -> tuple[Destination, int]:
        if self._session is None:
            message = "the upstream client is not started"
            raise RuntimeError(message)
        to = self._destinations.get(tier.name)
        if to is None or (to.tier is not tier and not self._is_closed_list):
            to = self._found(tier)
        ticket = self._health.begin(tier.name)
        if ticket == REFUSED:
            raise CircuitOpen(tier.name, self._health.again_s(tier.name))
        if headers:
            to = replace(to, headers=CIMultiDict({**headers, **to.headers}))
        return to, ticket

    def _ended(
        self, name: str, ticket: int, error: BaseException, waiting_s: float | None, cut_s: float | None
    ) -> None:
        # `waiting_s` is since when nothing has come; None when something has.
        if not isinstance(error, UpstreamError):
            now_s = self._clock()
            unanswered_s = None if waiting_s is None else now_s - waiting_s
            too_late = cut_s is not None and now_s >= cut_s - _TICK_S
            self._health.abandoned(name, ticket, unanswered_s=unanswered_s, too_late=too_late)
        elif error.kind != "status" or error.status in TRANSIENT or isinstance(error, KeyRefused):
            self._health.failed(name, ticket, asked_s=getattr(error, "asked_s", None))
        else:
            self._health.succeeded(name, ticket)

    async def _opened(
        self, to: Destination, body: bytes, ticket: int, deadline_s: float | None
    ) -> aiohttp.ClientResponse:
        # A response with status 200, tried again as long as that is worth it.
        name = to.tier.name
        budget = self._budgets.get(name)
        if budget is None:
            budget = self._budgets[name] = RetryBudget()
        budget.called()
        tried, until_s = 0, math.inf if deadline_s is None else deadline_s
        while True:
            try:
                return await self._post(to, body)
            except UpstreamError as error:
                failure, failed_s = error, self._clock()
            if tried == 0:
                until_s = min(until_s, failed_s + self._settings.retry_s)
            asked_s = failure.asked_s if isinstance(failure, RefusedByUpstream) else None
            pause_s = self._retries.pause_s(failure, tried=tried, asked_s=asked_s, left_s=until_s - failed_s)
            if pause_s is None or not self._health.is_current(name, ticket) or not budget.take():
                raise failure
            tried += 1
            await self._sleep(pause_s)
            if not self._health.is_current(name, ticket):  # others have found out meanwhile
                raise failure
            self._on_retry(name)

    async def _post(self, to: Destination, body: bytes) -> aiohttp.ClientResponse:
        try:
            response = await self._send(to, body)
            if response.status == 200:
                if response.headers.get("content-encoding", "identity") != "identity":
                    response.close()
                    message = f"tier '{to.tier.name}' sent a compressed answer, which was not asked for"
                    raise UpstreamError(message, kind="protocol")
                return response
            async with response:
                raw = await refused_with(response)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise named(to.tier, error) from error
        raise refusal(to.tier, response, raw, self._now)

    async def _send(self, to: Destination, body: bytes) -> aiohttp.ClientResponse:
        session = self._session
        assert session is not None  # noqa: S101  looked at in _begin
        _CONNECTED.set(False)
        try:
            return await session.post(to.url, data=_payload(body), headers=to.headers, allow_redirects=False)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError):
            if _CONNECTED.get():
                raise
        # A pooled connection that the other end had closed: most likely nobody has read the request.
        return await session.post(to.url, data=_payload(body), headers=to.headers, allow_redirects=False)

    def _found(self, tier: Tier) -> Destination:
        try:
            to = None if self._is_closed_list else self._checked(tier)
        except ConfigError as error:
            raise UpstreamError(str(error), kind="connect") from error
        if to is None:
            message = f"tier '{tier.name}' has no base_url; set it under [[tiers]] in router.toml"
            raise UpstreamError(message, kind="connect")
        self._destinations[tier.name] = to
        return to

    def _checked(self, tier: Tier) -> Destination | None:
        return destination_of(tier, self._environ, self._settings.upstream_hosts)


class _Connector(aiohttp.TCPConnector):
    # Tells requests that got a pooled connection from those that had to open one.
    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        _CONNECTED.set(True)
        return await super()._create_connection(req, traces, timeout)


def _payload(body: bytes) -> bytes | io.BytesIO:
    return body if len(body) <= _LARGE_BYTES else io.BytesIO(body)
