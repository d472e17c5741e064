"""Spans of requests, upstream calls and feedback for OpenTelemetry; imported only where `[serving] traces` is on.

They say who was asked, who answered, what it cost and why, and never hold a prompt or an answer: the SDK's variable
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT has no effect here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router_ml.ladder import Tier
from router_ml.schema import Attempt, Decision, VerdictSource
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.span_facts import (
    EVALUATION,
    Attributes,
    answer_facts,
    attempt_facts,
    call_facts,
    decision_facts,
    evaluation_facts,
    request_facts,
)
from router_ml_serving.wire import Chat

__all__ = ["CallTrace", "RequestTrace", "Tracing"]

Headers = Iterable[tuple[bytes, bytes]]
_PROPAGATOR = TraceContextTextMapPropagator()
_ERROR = Status(StatusCode.ERROR)
_TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})
_MAX_MODEL_CHARS = 100


class Tracing:
    """Makes the spans of one process; every method is called on the event loop's thread and only fills memory.

    Args:
        tracer: Makes spans; they leave the process in the exporter's own thread.
        close: Sends what waits, within a bounded time; blocks.
        wall_ns: The time of day in nanoseconds since 1970.
        now_s: The clock of the exchanges, in seconds.
    """

    def __init__(
        self,
        tracer: Tracer,
        close: Callable[[], None],
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._tracer = tracer
        self.close = close
        self._wall_ns = wall_ns
        self._now_s = now_s

    def request(self, path: str, headers: Headers, chat: Chat, started_s: float) -> RequestTrace:
        """Open the span of one proxied request; the client's `traceparent` is continued.

        Args:
            path: Of the endpoint.
            headers: Raw request headers with lower-case names.
            chat: The request.
            started_s: When it arrived, on the clock of the exchanges.
        """
        zero_ns = self._zero_ns()
        span = self._tracer.start_span(
            f"chat {chat.model[:_MAX_MODEL_CHARS]}",
            context=_context_of(headers),
            kind=SpanKind.SERVER,
            start_time=zero_ns + round(started_s * 1e9),
            attributes={**request_facts(chat), "http.request.method": "POST", "url.path": path},
        )
        return RequestTrace(self._tracer, span, chat, started_s, zero_ns)

    def route(self, path: str, headers: Headers, chat: Chat, decision: Decision, started_s: float) -> None:
        """Make the span of one decision that called nobody."""
        span = self._short("route", path, headers, started_s, request_facts(chat))
        if span.is_recording():
            facts = decision_facts(decision)
            facts["router.overhead_ms"] = (self._now_s() - started_s) * 1e3
            span.set_attributes(facts)
        span.end(self._at(self._now_s()))

    def refused(self, path: str, headers: Headers, *, status: int, code: str) -> None:
        """Make the span, as of now, of a request that was refused before it was decided.

        Args:
            path: Of the endpoint.
            headers: Raw request headers with lower-case names.
            status: HTTP status of the answer.
            code: The error's stable code.
        """
        facts: Attributes = {"http.response.status_code": status, "error.type": code}
        span = self._short(f"POST {path}", path, headers, self._now_s(), facts)
        if status >= 500:  # by convention a client's own mistake is no failure of the server's span
            span.set_status(_ERROR)
        span.end(self._at(self._now_s()))

    def feedback(
        self,
        path: str,
        headers: Headers,
        started_s: float,
        decision_id: str,
        judgements: Iterable[tuple[VerdictSource, str | None, bool | None, float | None]],
    ) -> None:
        """Make the span of one piece of feedback, with an event for every judgement in it.

        Args:
            path: Of the endpoint.
            headers: Raw request headers with lower-case names.
            started_s: When it arrived.
            decision_id: What was judged.
            judgements: Source, tier (None: the one that answered), adequate or not, and score.
        """
        span = self._short("feedback", path, headers, started_s, {"router.decision_id": decision_id})
        if span.is_recording():
            for source, tier, adequate, score in judgements:
                facts = evaluation_facts(source, adequate=adequate, score=score)
                facts["router.decision_id"] = decision_id
                if tier is not None:
                    facts["router.tier"] = tier
                span.add_event(EVALUATION, facts)
        span.end(self._at(self._now_s()))

    def _short(self, name: str, path: str, headers: Headers, started_s: float, facts: Attributes) -> Span:
        return self._tracer.start_span(
            name,
            context=_context_of(headers),
            kind=SpanKind.SERVER,
            start_time=self._at(started_s),
            attributes={**facts, "http.request.method": "POST", "url.path": path},
        )

    def _zero_ns(self) -> int:
        """Return the time of day at which the exchanges' clock stood at zero."""
        return self._wall_ns() - round(self._now_s() * 1e9)

    def _at(self, moment_s: float) -> int:
        return self._zero_ns() + round(moment_s * 1e9)


@dataclass(slots=True)
class CallTrace:
    """The span of one upstream call; `headers` hand it on to the upstream."""

    span: Span
    started_s: float
    zero_ns: int
    headers: dict[str, str]

    def end(self, result: AttemptResult | None) -> None:
        """Close the span with what came of the call; None: it ended in a way that nobody foresaw."""
        span = self.span
        if not span.is_recording():
            return
        if result is None:
            _fail(span, "_OTHER")
            span.end()
            return
        attempt = result.attempt
        span.set_attributes(attempt_facts(result))
        latency_s = (attempt.latency_ms or attempt.ttft_ms or 0.0) / 1e3
        ended_ns = self.zero_ns + round((self.started_s + latency_s) * 1e9)
        _add_verdicts(span, attempt, ended_ns)
        if attempt.error is not None:
            span.set_status(_ERROR)
        span.end(ended_ns)


@dataclass(slots=True)
class RequestTrace:
    """The span of one proxied request while it runs, and those of its upstream calls in the order they began."""

    tracer: Tracer
    span: Span
    chat: Chat
    started_s: float
    zero_ns: int
    calls: list[CallTrace] = field(default_factory=list)

    @property
    def trace_id(self) -> str:
        """The trace's id in hexadecimal, as `traceparent` has it."""
        return f"{self.span.get_span_context().trace_id:032x}"

    def attempt(self, tier: Tier, started_s: float) -> CallTrace:
        """Open the span of one upstream call; `finish` closes it.

        Args:
            tier: Who is asked.
            started_s: When, on the clock of the exchanges.
        """
        call = self._call(tier, started_s, {})
        self.calls.append(call)
        return call

    def beside(self, tier: Tier, started_s: float) -> CallTrace:
        """Open the span of a background call, which the caller ends itself."""
        return self._call(tier, started_s, {"router.background": True})

    def finish(
        self,
        decision: Decision,
        trail: Sequence[AttemptResult],
        *,
        overhead_ms: float,
        ended_s: float,
        answered_s: float | None = None,
    ) -> None:
        """Close the spans of the request and of its calls.

        Args:
            decision: What was decided.
            trail: The attempts in the order of their calls.
            overhead_ms: Time that was not waiting for an upstream.
            ended_s: When the exchange was over, on the clock of the exchanges.
            answered_s: When the first piece of the answer was there; None: never.
        """
        if not self.span.is_recording():
            return
        for i, call in enumerate(self.calls):
            call.end(trail[i] if i < len(trail) else None)
        facts = decision_facts(decision)
        facts |= answer_facts(trail, stream=self.chat.stream)
        facts["router.overhead_ms"] = overhead_ms
        if answered_s is not None:
            facts["gen_ai.response.time_to_first_chunk"] = answered_s - self.started_s
        self.span.set_attributes(facts)
        if "error.type" in facts:
            self.span.set_status(_ERROR)
        self.span.end(self.zero_ns + round(ended_s * 1e9))

    def _call(self, tier: Tier, started_s: float, more: Attributes) -> CallTrace:
        span = self.tracer.start_span(
            f"chat {tier.model}",
            context=set_span_in_context(self.span, Context()),
            kind=SpanKind.CLIENT,
            start_time=self.zero_ns + round(started_s * 1e9),
            attributes=call_facts(tier, self.chat) | more,
        )
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, set_span_in_context(span, Context()))
        return CallTrace(span, started_s, self.zero_ns, headers)


def _context_of(headers: Headers) -> Context:
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in _TRACE_HEADERS}
    return _PROPAGATOR.extract(found, Context()) if found else Context()


def _add_verdicts(span: Span, attempt: Attempt, at_ns: int) -> None:
    for verdict in attempt.verdicts:
        facts = evaluation_facts(verdict.source, adequate=verdict.adequate, score=verdict.score)
        span.add_event(EVALUATION, {**facts, "router.tier": attempt.tier}, timestamp=at_ns)


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(_ERROR)
