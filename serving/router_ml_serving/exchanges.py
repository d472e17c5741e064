"""Begins the exchange of a request that was let in, and sees to all that follows once it is over."""

from __future__ import annotations

from collections.abc import Iterable

from router_ml.exploration import Background, draw_background
from router_ml.schema import Attempt
from router_ml_serving.bill import CANCELLED
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.cascade import Limits as CallLimits
from router_ml_serving.exchange import Exchange
from router_ml_serving.journal import row_beside
from router_ml_serving.service import Admitted, Decided, Service, now_s
from router_ml_serving.shadow import run_beside
from router_ml_serving.span_facts import shown
from router_ml_serving.telemetry import outcome

__all__ = ["begin"]

Headers = Iterable[tuple[bytes, bytes]]

# Refusals that are a matter of the tier: its bill, model, time or limit. All other 4xx are about what was sent.
_FAULT_OF_THE_TIER = frozenset({401, 402, 403, 404, 408, 409, 425, 429})
# Nothing has reached the tier.
_NEVER_SENT = frozenset({"open", "connect"})


def begin(service: Service, admitted: Admitted, *, path: str, headers: Headers, started_s: float) -> Exchange:
    """Decide a chat request and open its exchange, which records and counts itself when it is closed.

    Args:
        service: What decides and records.
        admitted: The request.
        path: Of the endpoint, for metrics and traces.
        headers: Raw request headers, for the trace that they may continue.
        started_s: When it arrived, on the clock of `now_s`.

    Raises:
        ModelNotFound: When the `model` means nothing here.
        TierNotAllowed: When the client named a tier that its tenant may not use.
    """
    chat, exploration = admitted.chat, service.config.exploration
    # Before the decision, so that nothing in the request can sway it.
    drawn = draw_background(exploration.audit, exploration.shadow, service.rng)
    try:
        decided = service.decide(admitted)
    except Exception:
        service.limits.settle(admitted.caller, aside=admitted.aside, used=0.0)
        raise
    case = service.config.use_cases.get(chat.request.use_case or "")
    budget_ms = case.total_ms if case else None
    limits = CallLimits(
        max_attempts=service.config.policy.max_attempts,
        deadline_s=None if budget_ms is None else started_s + budget_ms / 1e3,
        now=now_s,
    )
    exchange = Exchange(
        chat,
        decided.decision,
        decided.router,
        decided.router.ladder,
        service.upstream,
        limits,
        started_s,
        lambda over: _over(service, admitted, decided, over, drawn, path),
        expected_s=service.health.expected_s,
    )
    if service.tracing is not None:
        exchange.trace = service.tracing.request(path, headers, chat, started_s)
    return exchange


def _over(
    service: Service, admitted: Admitted, decided: Decided, exchange: Exchange, drawn: Background | None, path: str
) -> None:
    chat, decision, attempts = admitted.chat, decided.decision, exchange.attempts
    telemetry = service.telemetry
    telemetry.decision(decision, path, exchange.overhead_ms() / 1e3)
    telemetry.exchange(attempts)
    if exchange.answered_s is not None:
        telemetry.first_byte(path, exchange.answered_s - exchange.started_s)
    service.record(chat, decided, attempts)
    used = sum((attempt.input_tokens or 0) + (attempt.output_tokens or 0) for attempt in attempts)
    service.limits.settle(admitted.caller, aside=admitted.aside, used=used)
    reached = {attempt.tier for attempt in attempts if attempt.error not in _NEVER_SENT}
    service.limits.note(admitted.caller, reached, exchange.ladder.names)
    given = _given(exchange)
    service.recall.after(chat.request, decision, attempts, None if given is None else given.attempt)
    if not decision.adequacy:  # the client named its tier: nothing was decided, and nothing is left to learn
        return
    if given is not None:
        _tell_rollout(service, decided, exchange, given)
    if drawn is not None:
        _run_beside(service, decided, exchange, drawn)


def _given(exchange: Exchange) -> AttemptResult | None:
    """Return what the client got, an answer or a failure; None when it left before."""
    given = shown(exchange.trail)
    if given is None or given.attempt.error == CANCELLED:
        return None
    # It left while a better answer was fetched, or before this one was judged.
    left = exchange.answered_s is None and given.attempt.error is None
    return None if left else given


def _tell_rollout(service: Service, decided: Decided, exchange: Exchange, given: AttemptResult) -> None:
    request = exchange.chat.request
    first, failed = exchange.trail[0].attempt, given.attempt.error is not None
    if failed and _is_refusal_of_the_request(given):  # any bundle would have got it: nothing to compare
        return
    service.rollout.note(
        decided.decision.policy_version,
        escalated=None if first.error is not None else outcome(first) == "inadequate",
        error=failed,
        latency_ms=None if failed else (now_s() - exchange.started_s) * 1e3,
        session=request.session_id,
        tenant=request.tenant,
        started_s=exchange.started_s,
    )


def _is_refusal_of_the_request(given: AttemptResult) -> bool:
    status = None if given.error is None else given.error.status
    return status is not None and 400 <= status < 500 and status not in _FAULT_OF_THE_TIER


def _run_beside(service: Service, decided: Decided, exchange: Exchange, drawn: Background) -> None:
    chat, decision = exchange.chat, decided.decision

    async def work() -> None:
        tiers, propensity = decided.router.beside(
            chat.request, decision.tier, drawn, circumstances=decided.circumstances
        )
        if not tiers:
            service.telemetry.background(drawn.mode, "none")
            return

        def record(attempts: list[Attempt]) -> None:
            service.telemetry.calls(attempts)
            service.recall.beside(chat.request, decision, attempts)
            service.recorder.record(
                lambda: row_beside(
                    chat,
                    decision,
                    attempts,
                    drawn,
                    propensity,
                    ts=decided.ts,
                    candidates=tuple(propensity) or tiers,
                    keep_text=service.config.store.text,
                )
            )

        await run_beside(exchange, tiers, record)
        service.telemetry.background(drawn.mode, "run")

    if not service.background.start(work, on_error=lambda: service.telemetry.background(drawn.mode, "failed")):
        service.telemetry.background(drawn.mode, "dropped")
