"""Other prices, same heads: the policy is solved again on known outcomes, or carried over where that is exact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle, FrontierPoint, PolicySpec
from router_ml.errors import DataError, UsageError
from router_ml.ladder import Ladder
from router_ml_training.dataset import Dataset
from router_ml_training.frontier import expected_cost, solve_frontier
from router_ml_training.scored import Scored, score_with_bundle

__all__ = ["Solved", "at_prices", "carried_over", "common_factor", "resolved", "score_columns", "solved_again"]

F64: TypeAlias = NDArray[np.float64]

_CHUNK = 1000
# With fewer judged requests a frontier is luck.
MIN_ROWS = 50
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Solved:
    """A policy, and what it was solved on: `n_rows` requests, on `n_complete` of which every outcome was known.

    `estimated` says that the model's own probabilities stood in for unknown outcomes; `scored` are those rows and all
    others, priced at the new prices.
    """

    policy: PolicySpec
    n_rows: int
    n_complete: int
    estimated: bool
    scored: Scored | None = None


def score_columns(bundle: Bundle, dataset: Dataset) -> tuple[F64, F64]:
    """Return adequacy and expected output tokens, (n, K) each, in the order of the bundle's tiers."""
    shape = (len(dataset), len(bundle.ladder))
    adequacy, tokens = np.empty(shape), np.empty(shape)
    for start in range(0, len(dataset), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(dataset)))
        adequacy[rows], tokens[rows] = bundle.score_many(dataset.features(rows))
    return adequacy, tokens


def at_prices(dataset: Dataset, ladder: Ladder) -> Dataset:
    """Return the rows with what every answer would cost at a ladder's prices, not what it did cost when it was logged.

    Prompt lengths are estimates; the cost of an answer of unknown length is unknown.
    """
    return replace(dataset, cost_usd=expected_cost(dataset, dataset.output_tokens, ladder))


def resolved(scored: Scored, ladder: Ladder, policy: PolicySpec) -> Solved:
    """Solve the frontier on rows that are priced at a ladder; with plans of two attempts where answers were judged.

    Args:
        scored: Rows over the ladder's tiers, in its order.
        ladder: Tiers and prices.
        policy: What the shadow prices are per, and the bounds of the features.
    """
    scored = replace(scored, price_scale=1.0)
    outcomes, rows = scored.outcomes()
    unit, complete = policy.price_unit, scored.dataset.complete
    judged = scored.judged(unit)
    frontier = solve_frontier(
        scored.adequacy[rows],
        scored.cost_in(unit)[rows],
        outcomes,
        scored.dataset.group[rows],
        None if judged is None else judged.rows(rows),
    )
    planned = any(point.judged for point in frontier)
    made = PolicySpec(
        tiers=ladder.tiers,
        best_tier=ladder.names[outcomes.best_tier],
        price_unit=unit,
        frontier=frontier,
        bounds=policy.bounds,
        plans=judged.spec() if judged is not None and planned else None,
    )
    return Solved(made, len(rows), int(complete.sum()), not bool(complete[rows].all()), scored)


def solved_again(bundle: Bundle, ladder: Ladder, dataset: Dataset) -> Solved:
    """Solve a bundle's frontier at other prices.

    Args:
        bundle: The heads.
        ladder: The bundle's tiers at their new prices, in their new order.
        dataset: Rows over the ladder's tiers, with outcomes.

    Raises:
        DataError: When fewer than 50 rows have a known outcome.
    """
    judged = int((~np.isnan(dataset.quality).all(axis=1)).sum())
    if judged < MIN_ROWS:
        raise DataError(
            f"only {judged} of {len(dataset)} interactions have a known outcome; at least {MIN_ROWS} are needed to "
            "solve a policy, and some hundreds to solve it well"
        )
    priced = at_prices(dataset, ladder)
    if ladder.names == bundle.ladder.names:
        return resolved(score_with_bundle(priced, bundle, ladder), ladder, bundle.policy)
    order = [bundle.ladder.index(name) for name in ladder.names]
    adequacy, tokens = (columns[:, order] for columns in score_columns(bundle, dataset))
    return resolved(Scored(priced, adequacy, expected_cost(priced, tokens, ladder)), ladder, bundle.policy)


def common_factor(old: Ladder, new: Ladder) -> float | None:
    """Return by what all prices were multiplied; None when some changed otherwise than others.

    Args:
        old: The ladder before.
        new: The same tiers, in any order.
    """
    before, after = (np.array([_prices(ladder, name) for name in old.names]) for ladder in (old, new))
    if ((before > 0) != (after > 0)).any():
        return None
    factors = after[before > 0] / before[before > 0]
    if not factors.size:
        return 1.0
    return float(factors[0]) if np.ptp(factors) <= _SAME * factors[0] else None


def carried_over(policy: PolicySpec, ladder: Ladder) -> PolicySpec:
    """Return the policy that takes the very same decisions at prices that were all multiplied by one number.

    A shadow price is quality per USD: with every price twice as high and half the shadow price, every request goes
    where it went. Where prices change by different factors no shadow price does that, and what quality each one keeps
    is a question to outcomes.

    Raises:
        UsageError: When the prices did not change by a common factor.
    """
    factor = common_factor(policy.ladder, ladder)
    if factor is None:
        raise UsageError(
            f"the prices changed by different factors ({', '.join(_changes(policy.ladder, ladder))}), so each shadow "
            "price now keeps another quality, and only outcomes can tell which: give --log with requests whose "
            "outcomes are known. Until then the bundle in service goes on buying quality at the same rate per USD, "
            "but the quality it keeps may be above or below what was asked for"
        )
    scale = 1.0 if policy.price_unit == "relative" else factor
    points = tuple(_scaled(point, scale) for point in policy.frontier)
    plans = policy.plans
    if ladder.names != policy.ladder.names:
        # Plans and the verifier know the tiers by their place in the ladder.
        plans = None
        points = tuple(_single(point) for point in points)
    return policy.model_copy(update={"tiers": ladder.tiers, "frontier": points, "plans": plans})


def _single(point: FrontierPoint) -> FrontierPoint:
    """Return the point that keeps the same quality by single attempts; what it saves was not measured."""
    if not point.judged:
        return point
    return FrontierPoint(quality=point.quality, shadow_price=point.alone_price or 0.0, saving=0.0)


def _scaled(point: FrontierPoint, factor: float) -> FrontierPoint:
    changed: dict[str, float] = {"shadow_price": point.shadow_price / factor}
    if point.alone_price is not None:
        changed["alone_price"] = point.alone_price / factor
    return point.model_copy(update=changed)


def _changes(old: Ladder, new: Ladder) -> Iterable[str]:
    for name in old.names:
        (a_in, a_out), (b_in, b_out) = _prices(old, name), _prices(new, name)
        if (a_in, a_out) == (b_in, b_out):
            yield f"{name} not at all"
        else:
            yield f"{name} from {a_in:g} and {a_out:g} to {b_in:g} and {b_out:g} USD"


def _prices(ladder: Ladder, name: str) -> tuple[float, float]:
    tier = ladder.tier(name)
    return tier.input_usd_per_mtok, tier.output_usd_per_mtok
