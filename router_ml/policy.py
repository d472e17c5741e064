"""The pure heart: scores, ladder and knobs in, one choice out, with its propensities and its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Scores
from router_ml.constraints import Context, Needs, eligible
from router_ml.exploration import explore
from router_ml.ladder import Ladder
from router_ml.manifest import PriceUnit
from router_ml.plans import plan_values

__all__ = ["Choice", "Context", "Knobs", "decide"]

Doubles: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Knobs:
    """What the operator sets and the bundle tuned.

    `quality` is the share of the best tier's quality to keep, `shadow_price` the quality per unit of cost that keeps
    it, `price_unit` that unit: a USD, or the cost of the dearest tier's answer to the same request. `explore_up` is the
    share of requests sent to a dearer tier, `max_attempts` the first attempt included. `safe_tier` answers what the
    model has never seen the like of; `best_tier` stands in when that one may not answer. With `spread` (K, K) the
    answers are judged, and plans of two attempts are among the choices; None: one tier is chosen, and only rules judge.
    """

    quality: float
    shadow_price: float
    explore_up: float
    max_attempts: int
    safe_tier: str
    best_tier: str
    price_unit: PriceUnit = "usd"
    spread: Doubles | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision in positions of the ladder.

    `index` answers first and `escalate_to` next if that answer is poor (None: nobody); `judged` says that judging the
    answer is part of the plan, where otherwise that tier only stands by for an answer that is none. `adequacy`,
    `expected_cost_usd`, `utility` (of the best plan that begins with the tier) and `propensity` (of answering first)
    have shape (K,) and are finite; `eligible` (K,) says who may answer, `constraints` why not all.
    """

    index: int
    escalate_to: int | None
    judged: bool
    explored: bool
    adequacy: Doubles
    expected_cost_usd: Doubles
    utility: Doubles
    propensity: Doubles
    eligible: Mask
    constraints: tuple[str, ...]
    reason: str


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
    both of its attempts must fit the latency budget. Ties go to the cheaper tier. A request outside the distribution
    of the training data, or one that the model has no finite score for, goes to the safe tier instead.

    Args:
        scores: Per tier of this ladder, in its order.
        ladder: Prices, context windows and capabilities.
        knobs: Quality, exploration, attempts, safe tier.
        needs: What the request asks of a tier.
        context: Health, allowed tiers, latency budget.
        rng: Exactly one number is drawn from it.
        in_distribution: False sends the request to the safe tier.

    Returns:
        The choice; the same arguments and generator state give the same one.
    """
    finite = bool(np.isfinite(scores.adequacy).all() and np.isfinite(scores.output_tokens).all())
    if not finite:
        scores = Scores(np.zeros(len(ladder)), np.full(len(ladder), needs.output_tokens), scores.input_tokens)
    costs = ladder.costs_usd(scores.input_tokens, scores.output_tokens)
    scale = float(costs.max()) if knobs.price_unit == "relative" else 1.0
    priced = knobs.shadow_price / (scale or 1.0) * costs
    alone = scores.adequacy - priced
    mask, constraints = eligible(needs, ladder, context)
    usable = in_distribution and finite
    values = None
    if usable and knobs.spread is not None and knobs.max_attempts > 1:
        values = _allowed(plan_values(scores.adequacy, priced, knobs.spread), mask, ladder, context)
    utility = alone if values is None else values.max(axis=1)
    planned = _best(utility, mask) if usable else _safe(ladder, knobs, mask)
    index, propensity = explore(planned, mask, knobs.explore_up, rng)
    then = _partner(index, values)
    judged = then is not None
    names = ladder.names
    if index != planned:
        why = f"exploring: {names[index]} answers instead of {names[planned]}, to learn how well it does"
    elif then is not None:
        why = _plan_reason(planned, then, scores.adequacy, costs, names, knobs.quality)
    elif usable:
        why = _reason(planned, mask, scores.adequacy, costs, names, knobs.quality, constraints)
    else:
        why = _safe_reason(names[planned], finite)
    if then is None and knobs.max_attempts > 1:
        # Whoever is best alone stands by, for an answer that is no answer at all.
        then = _next(index, alone, mask)
    return Choice(
        index=index,
        escalate_to=then,
        judged=judged,
        explored=index != planned,
        adequacy=scores.adequacy,
        expected_cost_usd=costs,
        utility=utility,
        propensity=propensity,
        eligible=mask,
        constraints=constraints,
        reason=why,
    )


def _best(utility: Doubles, mask: Mask) -> int:
    # argmax returns the first of equals, and the ladder starts with the cheapest.
    return int(np.where(mask, utility, -np.inf).argmax())


def _partner(index: int, values: Doubles | None) -> int | None:
    """Return who is worth jumping to after judging an answer of `index`, if anybody is."""
    if values is None:
        return None
    partner = int(values[index].argmax())
    return None if partner == index else partner


def _next(index: int, alone: Doubles, mask: Mask) -> int | None:
    dearer = mask.copy()
    dearer[: index + 1] = False
    return _best(alone, dearer) if dearer.any() else None


def _allowed(values: Doubles, mask: Mask, ladder: Ladder, context: Context) -> Doubles:
    """Take away plans whose second tier may not answer, or whose attempts take longer together than there is time."""
    budget = context.latency_budget_ms
    if budget is None and mask.all():
        return values
    forbidden = np.repeat(~mask[None], len(mask), axis=0)
    if budget is not None:
        latency = np.array([tier.latency_ms for tier in ladder])
        forbidden |= latency[:, None] + latency > budget
    np.fill_diagonal(forbidden, False)
    return np.where(forbidden, -np.inf, values)


def _safe(ladder: Ladder, knobs: Knobs, mask: Mask) -> int:
    for name in (knobs.safe_tier, knobs.best_tier):
        i = ladder.index(name)
        if mask[i]:
            return i
    return int(np.flatnonzero(mask)[-1])


def _safe_reason(name: str, finite: bool) -> str:
    if not finite:
        return f"{name} answers as the safe tier: the model has no usable score for this request"
    return f"{name} answers as the safe tier: the request is out of distribution, unlike those the model learned from"


def _plan_reason(
    first: int, then: int, adequacy: Doubles, costs: Doubles, names: tuple[str, ...], quality: float
) -> str:
    return (
        f"{names[first]} is tried first and its answer judged: expected to be adequate with probability "
        f"{adequacy[first]:.2f} at {costs[first]:.2g} USD; {names[then]} ({adequacy[then]:.2f} for {costs[then]:.2g} "
        f"USD) answers instead where that is worth its price to keep {quality * 100:.4g} % of the best quality"
    )


def _reason(
    chosen: int,
    mask: Mask,
    adequacy: Doubles,
    costs: Doubles,
    names: tuple[str, ...],
    quality: float,
    constraints: tuple[str, ...],
) -> str:
    facts = f"adequate with probability {adequacy[chosen]:.2f} at {costs[chosen]:.2g} USD"
    others = [i for i in np.flatnonzero(mask).tolist() if i != chosen]
    if not others:
        return f"only {names[chosen]} may answer ({'; '.join(constraints)}); expected to be {facts}"
    if chosen < others[-1]:
        other, why = others[-1], f"enough to keep {quality * 100:.4g} % of the best quality"
    else:
        other, why = others[0], f"worth its price to keep {quality * 100:.4g} % of the best quality"
    return (
        f"{names[chosen]} is expected to be {facts}, {why}; "
        f"{names[other]} would be at {adequacy[other]:.2f} for {costs[other]:.2g} USD"
    )
