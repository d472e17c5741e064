"""The pure heart: scores, ladder and knobs in, one choice out, with its propensities and its reason.

A ladder has ten tiers at most: numbers in lists are many times faster here than arrays are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import TypeAlias

import numpy as np

from router_ml.budgets import plans_in_time
from router_ml.bundle import Scores
from router_ml.constraints import Context, Mask, Needs, eligible
from router_ml.exploration import explore
from router_ml.ladder import Ladder
from router_ml.manifest import PriceUnit
from router_ml.plans import best_plans
from router_ml.records import record

__all__ = ["Choice", "Context", "Knobs", "decide"]

# One number per tier, in the order of the ladder.
Figures: TypeAlias = Sequence[float]


@dataclass(frozen=True, slots=True)
class Knobs:
    """What the operator sets and the bundle tuned.

    `quality` is the share of the best tier's quality to keep, `shadow_price` the quality per unit of cost that keeps
    it at the ladder's prices, `price_unit` that unit: where it is "relative", the cost of the dearest tier's answer to
    the same request, else a USD. `explore_up` is the share of requests sent to a dearer tier, `max_attempts` the first
    attempt included. `safe_tier` answers what the model has never seen the like of; `best_tier` stands in when that one
    may not answer. With `spread` (K, K) the answers are judged, and plans of two attempts are among the choices; None:
    one tier is chosen, and only rules judge.
    """

    quality: float
    shadow_price: float
    explore_up: float
    max_attempts: int
    safe_tier: str
    best_tier: str
    price_unit: PriceUnit = "usd"
    spread: tuple[tuple[float, ...], ...] | None = field(default=None, compare=False)


@record
class Choice:
    """One decision in positions of the ladder.

    `index` answers first, where `planned` would have if nothing had been explored, and `escalate_to` next if that
    answer is poor (None: nobody); then `on_error` answers if the first tier fails, and only then. `judged` says that
    judging the answer is part of the plan, where otherwise `escalate_to` only stands by for an answer that is none;
    `may_hold` that there is time to hold the answer until it was looked at and to ask that tier then. `adequacy`,
    `expected_cost_usd`, `utility` (of the best plan that begins with the tier) and `propensity` (of answering first)
    have one finite number per tier; `eligible` says who may answer, `constraints` why not all. A USD is worth
    `usd_price` of quality.
    """

    index: int
    planned: int
    escalate_to: int | None
    on_error: int | None
    judged: bool
    may_hold: bool
    explored: bool
    adequacy: Figures
    expected_cost_usd: Figures
    utility: Figures
    propensity: Figures
    eligible: Mask
    constraints: tuple[str, ...]
    reason: str
    usd_price: float


def decide(
    scores: Scores,
    ladder: Ladder,
    knobs: Knobs,
    needs: Needs,
    context: Context,
    rng: np.random.Generator,
    *,
    in_distribution: bool,
) -> Choice:
    """Choose the tier, or the plan of two tiers, with the highest utility.

    A tier's utility is adequacy minus shadow price times expected cost; a plan's is that of `plans.plan_values`, and
    both of its attempts must fit the latency budgets. What the prompt cache of a tier holds makes that tier cheaper, so
    that leaving it costs its cache. Ties go to the cheaper tier. A request outside the distribution
    of the training data, or one that the model has no finite score for, goes to the safe tier instead.

    Args:
        scores: Per tier of this ladder, in its order.
        ladder: Prices, context windows and capabilities.
        knobs: Quality, exploration, attempts, safe tier.
        needs: What the request asks of a tier.
        context: Allowed tiers, latency budgets, and what holds now: health, session, measured latencies.
        rng: Exactly one number is drawn from it.
        in_distribution: False sends the request to the safe tier.

    Returns:
        The choice; the same arguments and generator state give the same one.
    """
    adequacy, tokens = scores.adequacy.tolist(), scores.output_tokens.tolist()
    finite = isfinite(sum(adequacy) + sum(tokens))
    if not finite:
        adequacy, tokens = [0.0] * len(ladder), [needs.output_tokens] * len(ladder)
    costs = ladder.costs_of(scores.input_tokens, tokens)
    # A warm cache makes a call cheaper and quality no dearer: the unit of the price stays the cost of a fresh prompt.
    usd_price = knobs.shadow_price / ((max(costs) if knobs.price_unit == "relative" else 1.0) or 1.0)
    warm = context.now.warm
    if warm is not None and warm in ladder.places:
        costs[ladder.places[warm]] -= ladder.saved_usd(warm, scores.input_tokens, context.now.warm_tokens)
    priced = [usd_price * cost for cost in costs]
    alone = [q - cost for q, cost in zip(adequacy, priced, strict=True)]
    able, constraints = eligible(needs, ladder, context)
    mask = able
    usable = in_distribution and finite
    in_time = plans_in_time(ladder, context) if knobs.max_attempts > 1 else None
    if in_time is not None and context.now.streaming and "tools" not in needs.capabilities:
        left = _streamable(adequacy, alone, mask, in_time, context.now.unheld_adequacy)
        mask, constraints = left, (*constraints, *_no_time_to_hold(ladder.names, mask, left))
    utility, partners = alone, None
    if usable and knobs.spread is not None and knobs.max_attempts > 1:
        utility, partners = best_plans(adequacy, priced, knobs.spread, mask, in_time)
    planned = _best(utility, mask) if usable else _safe(ladder, knobs, mask)
    index, propensity = explore(planned, mask, knobs.explore_up, rng)
    judged = partners is not None and partners[index] != index
    then = partners[index] if partners is not None and judged else None
    if index != planned:
        why = f"exploring: {ladder.names[index]} answers instead of {ladder.names[planned]}, to learn how well it does"
    elif usable:
        why = _reason(planned, then, mask, adequacy, costs, ladder.names, knobs.quality, constraints)
    else:
        why = _safe_reason(ladder.names[planned], finite)
    if then is None and knobs.max_attempts > 1:
        # Whoever is best alone stands by, for an answer that is no answer at all.
        then = _next(index, alone, mask)
    on_error = None
    if then is None and knobs.max_attempts > 1:
        others = _others(index, able, needs, ladder, context)
        on_error = planned if index != planned else _on_error(others, alone if usable else None, ladder, knobs)
    return Choice(
        index=index,
        planned=planned,
        escalate_to=then,
        on_error=on_error,
        judged=judged,
        may_hold=then is None or in_time is None or in_time[index][then],
        explored=index != planned,
        adequacy=adequacy,
        expected_cost_usd=costs,
        utility=utility,
        propensity=propensity,
        eligible=mask,
        constraints=constraints,
        reason=why,
        usd_price=usd_price,
    )


def _best(utility: Figures, mask: Mask) -> int:
    """Return the eligible tier of the highest utility, the first of equals: the ladder starts with the cheapest."""
    best, most = -1, -inf
    for i, worth in enumerate(utility):
        if mask[i] and (worth > most or best < 0):
            best, most = i, worth
    return best


def _streamable(adequacy: Figures, alone: Figures, mask: Mask, in_time: Sequence[Mask], enough: float) -> Mask:
    """Keep the tiers whose streamed answer can be held until it is judged, or need not be; the dearest need not.

    From the dearest down: who stands by for a tier is one of those above it that are left.
    """
    left = list(mask)
    for s in reversed(range(len(left))):
        then = _next(s, alone, tuple(left))
        left[s] = left[s] and (then is None or adequacy[s] >= enough or in_time[s][then])
    return tuple(left)


def _no_time_to_hold(names: Sequence[str], before: Mask, left: Mask) -> tuple[str, ...]:
    gone = [name for name, had, has in zip(names, before, left, strict=True) if had and not has]
    return (f"stream excludes {', '.join(gone)} (no time to hold an answer until it is judged)",) if gone else ()


def _next(index: int, alone: Figures, mask: Mask) -> int | None:
    best: int | None = None
    for i in range(index + 1, len(mask)):
        if mask[i] and (best is None or alone[i] > alone[best]):
            best = i
    return best


def _others(index: int, able: Mask, needs: Needs, ladder: Ladder, context: Context) -> Mask:
    """Return who else may answer if a tier fails that nobody dearer stands by for.

    What is remembered of a session or a class says who is worth asking; any answer is worth more than an error.
    """
    if context.now.floor is not None and sum(able) == 1:
        able, _ = eligible(needs, ladder, replace(context, now=replace(context.now, floor=None)))
    return tuple(may and i != index for i, may in enumerate(able))


def _on_error(others: Mask, alone: Figures | None, ladder: Ladder, knobs: Knobs) -> int | None:
    if True not in others:
        return None
    return _safe(ladder, knobs, others) if alone is None else _best(alone, others)


def _safe(ladder: Ladder, knobs: Knobs, mask: Mask) -> int:
    for name in (knobs.safe_tier, knobs.best_tier):
        i = ladder.index(name)
        if mask[i]:
            return i
    return max(i for i, may in enumerate(mask) if may)


def _safe_reason(name: str, finite: bool) -> str:
    if not finite:
        return f"{name} answers as the safe tier: the model has no usable score for this request"
    return f"{name} answers as the safe tier: the request is out of distribution, unlike those the model learned from"


def _reason(
    chosen: int,
    then: int | None,
    mask: Mask,
    adequacy: Figures,
    costs: Figures,
    names: Sequence[str],
    quality: float,
    constraints: Sequence[str],
) -> str:
    facts = f"adequate with probability {adequacy[chosen]:.2f} at {costs[chosen]:.2g} USD"
    kept = f"{quality * 100:.4g} % of the best quality"
    if then is not None:
        return (
            f"{names[chosen]} is tried first and its answer judged: expected to be {facts}; {names[then]} "
            f"({adequacy[then]:.2f} for {costs[then]:.2g} USD) answers instead where that is worth its price to keep "
            f"{kept}"
        )
    others = [i for i, may in enumerate(mask) if may and i != chosen]
    if not others:
        return f"only {names[chosen]} may answer ({'; '.join(constraints)}); expected to be {facts}"
    if chosen < others[-1]:
        other, why = others[-1], "enough to keep"
    else:
        other, why = others[0], "worth its price to keep"
    return (
        f"{names[chosen]} is expected to be {facts}, {why} {kept}; "
        f"{names[other]} would be at {adequacy[other]:.2f} for {costs[other]:.2g} USD"
    )
