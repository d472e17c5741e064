"""What fits the latency budgets of a use case: an answer alone, or one that is held, judged and perhaps replaced.

A client that streams waits for the first token, and reads the rest while it comes; any other waits for the whole.
"""

from __future__ import annotations

from math import inf

from router_ml.constraints import Context, Mask, Needs, keep
from router_ml.ladder import Ladder

__all__ = ["latency_budget", "plans_in_time"]


def latency_budget(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers that usually answer in time; the one that exceeds the budget least when none does.

    A stream that is not held is in time when its first token is: how long the whole then takes is a matter of how much
    there is to say. It has to fit only where no budget for the first token is set. Whoever waits for the whole is held
    to that budget at any quality: a better answer that comes too late is none.
    """
    if (context.ttft_ms is None and context.total_ms is None) or True not in mask:
        return mask
    ttft_ms, total_ms = _budgets(context)
    if context.now.streaming and context.ttft_ms is not None:
        total_ms = inf
    latency, first = _usual(ladder, context)
    over = [max(f / ttft_ms, whole / total_ms) for f, whole in zip(first, latency, strict=True)]
    within = keep(mask, (x <= 1.0 for x in over))
    if True in within:
        return within
    least = min(x for x, left in zip(over, mask, strict=True) if left)
    return keep(mask, (x == least for x in over))


def plans_in_time(ladder: Ladder, context: Context) -> tuple[Mask, ...] | None:
    """Return for every two tiers whether the first can be held and judged and the second still answer in time.

    A held answer is shown when it is whole, and the answer of the next tier begins with its own first token.

    Returns:
        Row s, column t: "s, then t" fits both budgets; None when there are none.
    """
    if context.ttft_ms is None and context.total_ms is None:
        return None
    ttft_ms, total_ms = _budgets(context)
    latency, first = _usual(ladder, context)
    return tuple(
        tuple(held + f <= ttft_ms and held + whole <= total_ms for f, whole in zip(first, latency, strict=True))
        for held in latency
    )


def _budgets(context: Context) -> tuple[float, float]:
    """Return the budgets until the first token and for the whole, infinite where there is none."""
    ttft, total = context.ttft_ms, context.total_ms
    if context.now.streaming:
        return inf if ttft is None else ttft, inf if total is None else total
    whole = ttft if total is None else total
    return inf, inf if whole is None else whole


def _usual(ladder: Ladder, context: Context) -> tuple[tuple[float, ...], tuple[float, ...]]:
    latency, first = context.now.latency_ms, context.now.ttft_ms
    return ladder.latencies_ms if latency is None else latency, (0.0,) * len(ladder) if first is None else first
