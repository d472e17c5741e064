"""From scores to a policy: which shadow price keeps which share of the best tier's quality, and what is usual input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import FeatureBounds, FrontierPoint
from router_ml.ladder import Ladder
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.plans import Judged, Taken, act, act_alone

__all__ = ["QUALITIES", "expected_cost", "feature_bounds", "filled_outcomes", "price_grid", "solve_frontier"]

F64: TypeAlias = NDArray[np.float64]

QUALITIES = (1.0, 0.995, 0.99, 0.985, 0.98, 0.975, 0.97, 0.965, 0.96, 0.95, 0.94, 0.92, 0.90, 0.85, 0.80)
_PRICES = 241
# With fewer rows on which every tier's outcome is known, the model stands in for the unknown outcomes.
_MIN_COMPLETE = 100
# One standard error of safety: a price found on a few hundred rows flatters itself.
_MARGIN = 1.0


def expected_cost(dataset: Dataset, output_tokens: F64, ladder: Ladder) -> F64:
    """Return the cost the router would expect, USD, shape (n, K), from estimated input and expected output tokens."""
    return ladder.costs_usd(dataset.input_tokens[:, None], output_tokens)


def filled_outcomes(
    dataset: Dataset, adequacy: F64, cost: F64, *, among: NDArray[np.bool_] | None = None
) -> tuple[Outcomes, NDArray[np.int64]]:
    """Return what every tier would have done, and the rows it speaks about.

    Where enough rows have every outcome, only those are used; otherwise all rows, with the model's own probability
    and cost standing in for what is unknown (the direct method).

    Args:
        dataset: Rows with partly known outcomes.
        adequacy: The model's probabilities (n, K).
        cost: The model's expected cost (n, K), USD.
        among: The rows that are considered, (n,); None: all.
    """
    considered = np.ones(len(dataset), np.bool_) if among is None else among
    complete = np.flatnonzero(dataset.complete & considered)
    rows = complete if len(complete) >= _MIN_COMPLETE else np.flatnonzero(considered)
    quality, usd = dataset.quality[rows], dataset.cost_usd[rows]
    return (
        Outcomes(np.where(np.isnan(quality), adequacy[rows], quality), np.where(np.isnan(usd), cost[rows], usd)),
        rows,
    )


def solve_frontier(
    adequacy: F64,
    cost: F64,
    outcomes: Outcomes,
    group: NDArray[np.int64] | None = None,
    judged: Judged | None = None,
) -> tuple[FrontierPoint, ...]:
    """Find, for each quality, the highest shadow price whose policy still keeps it on the tune rows.

    A price counts as keeping the share x when the mean of x * best quality - quality is below zero by one standard
    error. Prices are tried from safe to bold and the walk stops at the first that fails, so that a lucky bold
    price behind an unlucky one is never taken. With a verifier the walk is done twice, by single attempts and by
    plans, and each point takes the cheaper: where the verifier is poor, nothing is judged.

    Args:
        adequacy: Scores the policy decides with, (n, K).
        cost: Costs it decides with, USD, (n, K).
        outcomes: What every tier did on those rows.
        group: Rows that succeed and fail together share a number (n,); None: every row stands alone.
        judged: The same rows with what the verifier says of them; None: there is no verifier.

    Returns:
        Points in order of falling quality; shadow price 0 means "the most adequate tier, whatever it costs".
    """
    refused = None if judged is None else judged.refused
    alone = _walk(
        adequacy,
        cost,
        outcomes,
        group,
        lambda price: act_alone(adequacy, cost, price),
        # One attempt has to keep the quality even where no second one is allowed; where it is, it is paid for.
        None if refused is None else lambda price: act_alone(adequacy, cost, price, refused),
    )
    if judged is None:
        return tuple(FrontierPoint(quality=q, shadow_price=p, saving=s) for q, (p, s) in alone.items())
    plans = _walk(*judged.opinions(), outcomes, group, lambda price: act(judged, price))
    return tuple(_cheaper(q, alone.get(q), plans.get(q)) for q in QUALITIES if q in alone or q in plans)


def _cheaper(quality: float, alone: tuple[float, float] | None, plans: tuple[float, float] | None) -> FrontierPoint:
    if plans is None or (alone is not None and plans[1] <= alone[1]):
        assert alone is not None  # noqa: S101  one of the two keeps this quality
        return FrontierPoint(quality=quality, shadow_price=alone[0], saving=alone[1])
    return FrontierPoint(
        quality=quality,
        shadow_price=plans[0],
        saving=plans[1],
        judged=True,
        alone_price=0.0 if alone is None else alone[0],
    )


def _walk(
    scores: F64,
    costs: F64,
    outcomes: Outcomes,
    group: NDArray[np.int64] | None,
    policy: Callable[[float], Taken],
    paid: Callable[[float], Taken] | None = None,
) -> dict[float, tuple[float, float]]:
    """Return the boldest price and its saving by each quality that the policy keeps at some price.

    What is saved is measured by what `paid` does at that price, where something else is paid for than has to suffice.
    """
    prices = price_grid(scores, costs)
    best = outcomes.quality[:, outcomes.best_tier]
    best_cost = outcomes.cost[:, outcomes.best_tier].mean()
    taken = [policy(float(price)) for price in prices]
    quality = np.stack([one.quality(outcomes) for one in taken])
    billed = taken if paid is None else [paid(float(price)) for price in prices]
    usd = np.array([one.cost(outcomes).mean() for one in billed])
    points: dict[float, tuple[float, float]] = {}
    for share in QUALITIES:
        shortfall = share * best - quality
        bound = shortfall.mean(axis=1) + _MARGIN * _standard_errors(shortfall, group)
        failing = np.flatnonzero(bound > 1e-12)
        last = int(failing[0]) - 1 if failing.size else len(prices) - 1
        if last >= 0:
            points[share] = float(prices[last]), 1.0 - float(usd[last] / best_cost) if best_cost > 0 else 0.0
    return points


def _standard_errors(values: F64, group: NDArray[np.int64] | None) -> F64:
    """Return the standard error of the mean of each row of values (m, n), cluster-robust where groups are given."""
    n = values.shape[1]
    centred = values - values.mean(axis=1, keepdims=True)
    if group is not None:
        names, member = np.unique(group, return_inverse=True)
        sums = np.zeros((values.shape[0], len(names)))
        np.add.at(sums.T, member, centred.T)
        centred = sums
    return np.asarray(np.sqrt((centred**2).sum(axis=1)) / n, np.float64)


def price_grid(scores: F64, costs: F64, n: int = _PRICES) -> F64:
    """Return 0 and n shadow prices that span every one at which a row may change tier, rising, (n + 1,).

    Args:
        scores: Chances that are weighed against each other, (m, K).
        costs: Their costs in the unit that the price is per, (m, K).
        n: How many prices above 0.
    """
    return np.concatenate(([0.0], np.geomspace(*_price_range(scores, costs), n)))


def feature_bounds(dataset: Dataset) -> FeatureBounds:
    """Return the usual range of each dense feature, and how many features may leave theirs.

    The range is the 0.1 to 99.9 % span of the training rows, widened by a quarter; 99.5 % of the training rows are
    within the allowed number. A column that never varied bounds nothing: it says nothing about other values.
    """
    dense = dataset.dense.astype(np.float64)
    low, high = np.quantile(dense, [0.001, 0.999], axis=0)
    constant = dense.std(axis=0) <= 1e-6
    margin = 0.25 * (high - low)
    low = np.where(constant, -1e30, low - margin)
    high = np.where(constant, 1e30, high + margin)
    outside = ((dense < low) | (dense > high)).sum(axis=1)
    return FeatureBounds(
        low=tuple(low.tolist()), high=tuple(high.tolist()), max_outside=max(2, int(np.quantile(outside, 0.995)))
    )


def _price_range(adequacy: F64, cost: F64) -> tuple[float, float]:
    # Prices at which somebody changes tier lie between the smallest and the largest gain per USD.
    gain = np.abs(np.diff(adequacy, axis=1))
    step = np.abs(np.diff(cost, axis=1))
    ratio = (gain / np.maximum(step, 1e-12))[(gain > 0) & (step > 0)]
    if not ratio.size:
        return 1e-3, 1e6
    low, high = float(np.quantile(ratio, 0.001)), float(ratio.max())
    return max(low / 2, 1e-9), max(high * 2, 1e-8)
