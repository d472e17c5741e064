"""One proxied chat request: calls tiers for the cascade, keeps the bill, knows the facts that the client is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from router_ml.errors import UpstreamError
from router_ml.ladder import Ladder, Tier
from router_ml.records import record
from router_ml.router import Router
from router_ml.schema import Answer, Attempt, Decision, Verdict
from router_ml_serving import cascade
from router_ml_serving.bill import CANCELLED, attempt_of, further_bytes
from router_ml_serving.cascade import AttemptResult, Limits
from router_ml_serving.span_facts import shown
from router_ml_serving.sse import read_stream
from router_ml_serving.upstream import Reply, Upstream
from router_ml_serving.wire import Chat, Usage, answer_of, outgoing, usage_of

if TYPE_CHECKING:
    from router_ml_serving.tracing import CallTrace, RequestTrace

__all__ = ["Call", "Exchange", "OpenStream"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Call:
    """The clock and the bytes of one upstream call while it runs; times are seconds on the exchange's clock."""

    tier: Tier
    started_s: float
    first_byte_s: float | None = None
    chunks: list[bytes] = field(default_factory=list)
    n_sent: int = 0  # chunks that the client was given
    cut_s: float | None = None  # when the cascade cancels it
    trace: CallTrace | None = None


@record
class OpenStream:
    """A stream whose first bytes have arrived and are on their way to the client."""

    call: Call
    rest: AsyncGenerator[bytes, None]


@dataclass(slots=True)
class Exchange:
    """What is known about one proxied request from its decision to its record.

    `trail` has every attempt in order; `done` is called once, with them, when the exchange is over. `answered_s` is
    when the first piece of the answer was there. With a `trace`, spans are made of it all. `expected_s` says how long
    a tier usually takes; None goes by the ladder.
    """

    chat: Chat
    decision: Decision
    router: Router
    ladder: Ladder
    upstream: Upstream
    limits: Limits
    started_s: float
    done: Callable[[Exchange], None]
    trail: list[AttemptResult] = field(default_factory=list)
    closed: bool = False
    trace: RequestTrace | None = None
    answered_s: float | None = None
    expected_s: Callable[[str], float] | None = None

    async def whole(self) -> AttemptResult:
        """Return the answer, whole; `reply` is the upstream's `Reply`."""
        return await self._cascade(self._complete)

    async def held(self) -> AttemptResult:
        """Return the answer as a stream that was read to its end and judged; `reply` is its bytes."""
        return await self._cascade(self._hold)

    async def opened(self) -> AttemptResult:
        """Return a stream as soon as its first bytes are there, unjudged; `reply` is an `OpenStream`."""
        return await self._cascade(self._open)

    def finish(self, stream: OpenStream, *, error: UpstreamError | None = None, cancelled: bool = False) -> None:
        """Complete the record of an opened stream, now that it is over.

        A client that has been given the whole answer and hangs up before the upstream does has cancelled nothing.
        """
        call = stream.call
        if cancelled and call.n_sent == len(call.chunks) and read_stream(b"".join(call.chunks)).complete:
            cancelled = False
        result = self.trail[-1] = self._from_stream(call, error=error, cancelled=cancelled)
        if not cancelled:
            self.trail[-1] = cascade.judged(result, self._judge)

    async def beside(self, name: str, trail: list[AttemptResult]) -> None:
        """Call a tier for the record alone: whole, judged, with its bill, and no part of this exchange's own trail.

        Args:
            name: The tier.
            trail: The finished attempt is added here, also when this is cancelled.
        """
        call = Call(self.ladder.tier(name), self.limits.now())
        if self.trace is not None:
            call.trace = self.trace.beside(call.tier, call.started_s)
        try:
            await self._beside(call, trail)
        finally:
            if call.trace is not None:
                call.trace.end(trail[-1] if trail else None)

    async def _beside(self, call: Call, trail: list[AttemptResult]) -> None:
        try:
            result = await self._complete(call, outgoing(self.chat.body, call.tier, whole=True))
        except UpstreamError as error:
            result = self._from_stream(call, error=error)
        except asyncio.CancelledError:
            trail.append(self._from_stream(call, cancelled=True))
            raise
        trail.append(result)
        trail[-1] = cascade.judged(result, self._judge)

    def close(self) -> None:
        """Hand the exchange over to be recorded; again, nothing happens."""
        if not self.closed:
            self.closed = True
            try:
                self.done(self)
            finally:
                self._log_failure()
                self._end_trace()

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts so far, in order."""
        return [result.attempt for result in self.trail]

    def facts(self, attempt: Attempt | None = None) -> dict[str, Any]:
        """Return what the client is told, under `router` in the body and in the `x-router-` headers.

        Args:
            attempt: The attempt whose answer is given; None while it is not known (or all failed).
        """
        tier = self.ladder.tier(attempt.tier if attempt else self.decision.tier)
        reason = self.decision.reason
        if attempt is not None and attempt.tier != self.decision.tier and self.trail:
            reason = f"{reason}; escalated to {attempt.tier}: {_cause(self.trail[0].attempt)}"
        return {
            "tier": tier.name,
            "model": tier.model,
            "decision_id": self.decision.decision_id,
            "policy_version": self.decision.policy_version,
            "attempts": len(self.trail),
            "overhead_ms": round(self.overhead_ms(), 3),
            "reason": reason,
        }

    def overhead_ms(self) -> float:
        """Return the time spent so far that was not waiting for an upstream."""
        # A stream on its way to the client has no latency yet: until its first byte there was waiting, then forwarding.
        waited = (a.ttft_ms if a.latency_ms is None else a.latency_ms for a in self.attempts)
        waited_ms = sum(ms or 0.0 for ms in waited)
        return max((self.limits.now() - self.started_s) * 1e3 - waited_ms, 0.0)

    def _log_failure(self) -> None:
        given = shown(self.trail)
        if given is None or given.error is None or given.error.status in cascade.FAULT_OF_THE_REQUEST:
            return
        fields = {"decision_id": self.decision.decision_id, "tier": given.attempt.tier, "error": given.attempt.error}
        if self.trace is not None:
            fields["trace_id"] = self.trace.trace_id
        log.warning("request_failed", extra={**fields, "attempts": len(self.trail)})

    def _end_trace(self) -> None:
        if self.trace is not None:
            self.trace.finish(
                self.decision,
                self.trail,
                overhead_ms=self.overhead_ms(),
                ended_s=self.limits.now(),
                answered_s=self.answered_s,
            )

    async def _cascade(self, call: Callable[[Call, bytes], Awaitable[AttemptResult]]) -> AttemptResult:
        result = await cascade.run(
            self.decision.plan,
            lambda name: self._attempt(name, call),
            self._judge,
            self.trail,
            self.limits,
            expected_s=self.expected_s or (lambda name: self.ladder.tier(name).latency_ms / 1e3),
        )
        if result.error is None:
            self.answered_s = self.limits.now()
        return result

    async def _attempt(self, name: str, work: Callable[[Call, bytes], Awaitable[AttemptResult]]) -> AttemptResult:
        call = Call(self.ladder.tier(name), self.limits.now())
        if self.trail and any(result.error is None for result in self.trail):  # an answer in hand: the deadline counts
            call.cut_s = self.limits.deadline_s
        if self.trace is not None:
            call.trace = self.trace.attempt(call.tier, call.started_s)
        try:
            return await work(call, outgoing(self.chat.body, call.tier))
        except UpstreamError as error:
            return self._from_stream(call, error=error)
        except asyncio.CancelledError:
            self.trail.append(self._from_stream(call, cancelled=True))
            raise

    async def _complete(self, call: Call, body: bytes) -> AttemptResult:
        reply: Reply = await self.upstream.complete(call.tier, body, **self._extra(call))
        usage = usage_of(reply.parsed)
        try:
            answer = answer_of(reply.parsed)
        except UpstreamError as error:  # it may have cost something all the same
            return AttemptResult(self._record(call, Answer("", None), usage, error), error=error, reply=reply)
        said_bytes = further_bytes(reply.parsed) if usage is None else 0
        attempt = self._record(call, answer, usage, further_bytes=said_bytes)
        return AttemptResult(attempt, answer=_counted(answer, attempt), reply=reply)

    async def _hold(self, call: Call, body: bytes) -> AttemptResult:
        async for chunk in self.upstream.stream(call.tier, body, **self._extra(call)):
            call.first_byte_s = call.first_byte_s or self.limits.now()
            call.chunks.append(chunk)
        return self._from_stream(call)

    async def _open(self, call: Call, body: bytes) -> AttemptResult:
        rest = self.upstream.stream(call.tier, body, **self._extra(call))
        try:
            first = await anext(rest)
        except StopAsyncIteration as error:
            raise UpstreamError(f"tier '{call.tier.name}' sent an empty stream", kind="protocol") from error
        call.first_byte_s = self.limits.now()
        call.chunks.append(first)
        ttft_ms = (call.first_byte_s - call.started_s) * 1e3
        attempt = Attempt(tier=call.tier.name, model=call.tier.model, ttft_ms=ttft_ms)
        return AttemptResult(attempt, reply=OpenStream(call, rest))

    def _from_stream(self, call: Call, *, error: UpstreamError | None = None, cancelled: bool = False) -> AttemptResult:
        raw = b"".join(call.chunks)
        said = read_stream(raw)
        if error is None and not cancelled and not said.complete:
            reason = said.error or "the stream ended before the answer did"
            error = UpstreamError(f"tier '{call.tier.name}': {reason}", kind="reset")
        answer = replace(said.answer, finish_reason=CANCELLED) if cancelled else said.answer
        attempt = self._record(call, answer, said.usage, error, further_bytes=said.further_bytes)
        return AttemptResult(attempt, None if error or cancelled else _counted(answer, attempt), error, raw)

    def _record(
        self,
        call: Call,
        answer: Answer,
        usage: Usage | None,
        error: UpstreamError | None = None,
        *,
        further_bytes: int = 0,
    ) -> Attempt:
        return attempt_of(
            call.tier,
            self.chat.request,
            answer,
            usage,
            error=error,
            started_s=call.started_s,
            ended_s=self.limits.now(),
            first_byte_s=call.first_byte_s,
            further_bytes=further_bytes,
        )

    def _extra(self, call: Call) -> dict[str, Any]:
        # Only where there is something to say, so that an upstream need not know of it.
        extra: dict[str, Any] = {} if call.trace is None else {"headers": call.trace.headers}
        if self.limits.deadline_s is not None:
            extra["deadline_s"] = self.limits.deadline_s
        if call.cut_s is not None:
            extra["cut_s"] = call.cut_s
        return extra

    def _judge(self, answer: Answer, tier: str) -> Verdict | None:
        return self.router.judge(self.chat.request, answer, decision=self.decision, tier=tier)


def _cause(attempt: Attempt) -> str:
    if attempt.error is not None:
        return f"{attempt.tier} failed ({attempt.error})"
    reasons = [verdict.reason for verdict in attempt.verdicts if verdict.reason]
    return reasons[0] if reasons else f"{attempt.tier} was not adequate"


def _counted(answer: Answer, attempt: Attempt) -> Answer:
    # The verifier learns from the log, where a length that the upstream did not tell is the bill's estimate.
    if answer.output_tokens == attempt.output_tokens:
        return answer
    return replace(answer, output_tokens=attempt.output_tokens)
