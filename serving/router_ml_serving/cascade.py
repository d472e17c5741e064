"""Progressive fallback: try the planned tier, judge its answer, escalate when it is poor. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from router_ml.errors import UpstreamError
from router_ml.records import record
from router_ml.schema import Answer, Attempt, Plan, Verdict

__all__ = ["FAULT_OF_THE_REQUEST", "AttemptResult", "Limits", "judged", "run"]

# The upstream says that the request itself is wrong: another tier would say the same.
FAULT_OF_THE_REQUEST = frozenset({400, 413, 422})


@record
class AttemptResult:
    """One attempt: its record, and either an answer to judge or the error that took its place.

    Neither is set for a stream that was opened and goes straight to the client. `reply` is the caller's own.
    """

    attempt: Attempt
    answer: Answer | None = None
    error: UpstreamError | None = None
    reply: object = None


@record
class Limits:
    """Bounds of one cascade: attempts in all, and the moment (on the clock of `now`) by which it should be over.

    The deadline stops escalations from an answer. While there is none it stops nothing: one that comes late is better
    than none.
    """

    max_attempts: int
    deadline_s: float | None
    now: Callable[[], float]

    def left_s(self) -> float | None:
        """Seconds until the deadline, or None when there is no deadline."""
        return None if self.deadline_s is None else self.deadline_s - self.now()


async def run(
    plan: Plan,
    attempt: Callable[[str], Awaitable[AttemptResult]],
    judge: Callable[[Answer, str], Verdict | None],
    trail: list[AttemptResult],
    limits: Limits,
    *,
    expected_s: Callable[[str], float] = lambda _: 0.0,
) -> AttemptResult:
    """Answer by the plan's tiers, cheapest first, until one is accepted.

    An error is no evidence about its tier and leads to the next one as well. Who stands by for errors alone is no
    better than the first, and is not asked when that one has answered.

    Args:
        plan: Which tiers, in which order.
        attempt: Calls a tier by name. When it is cancelled it adds its own result to `trail`.
        judge: Says what is wrong with an answer of a tier, or None.
        trail: Every finished attempt is added here, whatever happens afterwards, and then its verdict.
        limits: Attempts and time.
        expected_s: How long a tier usually takes; with an answer in hand it is not started when the deadline is nearer.

    Returns:
        The accepted attempt; else the last answer (it is the dearest), else the last error.
    """
    # All requests that are ready are decided before the first of them calls, and answers that came together are judged
    # together: while its code is in the processor's caches, the same step for the next request takes half the time.
    await asyncio.sleep(0)
    then = plan.escalate_to or plan.on_error
    steps = [plan.first] if then is None else [plan.first, then]
    best: AttemptResult | None = None
    for tier in steps[: limits.max_attempts]:
        # With an answer in hand the client waits for a better one until the deadline and no longer.
        left_s = limits.left_s() if best is not None and best.error is None else None
        if left_s is not None and left_s <= expected_s(tier):
            break
        try:
            if left_s is None:
                result = await attempt(tier)
            else:
                async with asyncio.timeout(left_s):
                    result = await attempt(tier)
        except TimeoutError:
            break
        # In the trail before it is judged: what was paid for is on the bill even if the judge fails.
        trail.append(result)
        await _turn_to_judge(result)
        result = trail[-1] = judged(result, judge)
        if _accepted(result):
            return result
        if best is None or result.error is None or best.error is not None:
            best = result
        if result.error is None and plan.escalate_to is None:
            break
        if result.error is not None and result.error.status in FAULT_OF_THE_REQUEST:
            break
    if best is None:
        message = "a cascade needs at least one attempt"
        raise ValueError(message)
    return best


async def _turn_to_judge(result: AttemptResult) -> None:
    if result.answer is not None:  # an open stream is its owner's at once: nobody else would close it
        await asyncio.sleep(0)


def judged(result: AttemptResult, judge: Callable[[Answer, str], Verdict | None]) -> AttemptResult:
    """Return a result with the judge's verdict in its record; an error or an unread stream is not judged."""
    verdict = None if result.error is not None or result.answer is None else judge(result.answer, result.attempt.tier)
    if verdict is None:
        return result
    return replace(result, attempt=result.attempt.model_copy(update={"verdicts": (verdict,)}))


def _accepted(result: AttemptResult) -> bool:
    return result.error is None and not any(verdict.adequate is False for verdict in result.attempt.verdicts)
