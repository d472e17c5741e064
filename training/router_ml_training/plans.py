"""Plans on rows whose outcomes are known: how much answers tell, and what a policy of plans really did and cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.manifest import PlanSpec
from router_ml.plans import COST_REACH, cost_factor, jump, plan_values
from router_ml_training.evaluation.curves import Grid, choose
from router_ml_training.evaluation.hull import hull
from router_ml_training.evaluation.outcomes import Floats, Ints, Outcomes

__all__ = [
    "CostUpdate",
    "Judged",
    "Taken",
    "act",
    "act_alone",
    "fit_cost_update",
    "fit_spread",
    "grid_of",
    "known_posterior",
    "on_hull",
]

F64: TypeAlias = NDArray[np.float64]

# Scale of a logistic variable of standard deviation 1.
_SCALE = float(np.sqrt(3.0) / np.pi)
# With fewer rows the outcomes cannot tell whether the verifier flatters itself.
_MIN_ROWS = 100
# How many rows the prior of a straight line is worth.
_BEND_ROWS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class CostUpdate:
    """What an answer's cost tells of a dearer tier's: see `router_ml.plans.cost_factor`; (K, K) each."""

    elasticity: F64
    shift: F64
    curvature: F64

    @classmethod
    def of(cls, spec: PlanSpec) -> CostUpdate | None:
        """Return that of a policy, None where it has none."""
        if spec.elasticity is None or spec.shift is None:
            return None
        elasticity, shift = np.array(spec.elasticity), np.array(spec.shift)
        return cls(elasticity, shift, np.zeros_like(shift) if spec.curvature is None else np.array(spec.curvature))

    def factor(self, spent: F64, expected: F64, s: int, t: int) -> F64:
        """Return by how much t is to be expected dearer where s cost `spent` and not `expected`, USD, (n,) each."""
        return cost_factor(spent, expected, self.elasticity[s, t], self.shift[s, t], self.curvature[s, t])

    def later(self, cost: F64, spent: F64, expected: F64) -> F64:
        """Return what every tier is expected to cost once s has answered, in `[:, s]`, shape (n, K, K).

        Args:
            cost: What was expected before, in any unit, (n, K).
            spent: What each tier's answer cost, USD, (n, K), NaN where unknown.
            expected: What it was expected to cost, USD, (n, K).
        """
        later = np.repeat(cost[:, None], cost.shape[1], axis=1)
        for s, t in itertools.combinations(range(cost.shape[1]), 2):
            later[:, s, t] *= self.factor(spent[:, s], expected[:, s], s, t)
        return later


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Rows as a policy of plans sees them, before the call and after it.

    `adequacy` (n, K) and `cost` (n, K), in the unit that the shadow price is per, are what is expected before;
    `posterior` (n, K, K) holds in `[:, s]` what is thought of every tier once s has answered. `spread` (K, K) is what
    plans are valued with; see `router_ml.plans.plan_values`. `later` (n, K, K) holds in `[:, s]` what every tier is
    expected to cost once s has answered, None: what it was expected to cost before; `update` is what that follows from.
    `refused` (n, K) says whose answers a response check refuses, whatever else is thought of them; None: nobody's.
    """

    adequacy: F64
    cost: F64
    posterior: F64
    spread: F64
    later: F64 | None = None
    update: CostUpdate | None = None
    refused: NDArray[np.bool_] | None = None

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Judged:
        """Return the rows of that index or mask."""
        later = None if self.later is None else self.later[index]
        adequacy, cost, posterior = self.adequacy[index], self.cost[index], self.posterior[index]
        refused = None if self.refused is None else self.refused[index]
        return replace(self, adequacy=adequacy, cost=cost, posterior=posterior, later=later, refused=refused)

    def spec(self) -> PlanSpec:
        """Return what a policy needs to do the same."""
        update = self.update
        tables = [self.spread, *(() if update is None else (update.elasticity, update.shift, update.curvature))]
        rows = [tuple(map(tuple, one.tolist())) for one in tables]
        return PlanSpec(**dict(zip(("spread", "elasticity", "shift", "curvature"), rows, strict=False)))

    def opinions(self) -> tuple[F64, F64]:
        """Return all chances that are ever weighed against each other, and their costs, (m, K) each."""
        k = self.adequacy.shape[1]
        scores = np.concatenate([self.adequacy, *(self.posterior[:, s] for s in range(k - 1))])
        return scores, np.tile(self.cost, (k, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What a policy did on n rows: the tier that was tried first and the one whose answer was given, (n,) each."""

    first: Ints
    last: Ints

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Taken:
        """Return the rows of that index or mask."""
        return Taken(self.first[index], self.last[index])

    @property
    def escalated(self) -> NDArray[np.bool_]:
        """Whether two tiers were called, (n,)."""
        return np.asarray(self.first != self.last, np.bool_)

    def quality(self, outcomes: Outcomes) -> Floats:
        """Quality of the answers that were given, (n,)."""
        given: Floats = outcomes.quality[np.arange(outcomes.n), self.last]
        return given

    def cost(self, outcomes: Outcomes) -> Floats:
        """USD of all attempts, (n,)."""
        everyone = np.arange(outcomes.n)
        first, last = outcomes.cost[everyone, self.first], outcomes.cost[everyone, self.last]
        return np.asarray(first + np.where(self.escalated, last, 0.0), np.float64)


def act(judged: Judged, price: float) -> Taken:
    """Do what the router does at one shadow price: choose the plan, see the answer, keep it or jump.

    An answer that a response check refuses is never kept: the plan's next tier answers, else the best other one alone.

    Args:
        judged: The rows.
        price: Shadow price, quality per unit of `judged.cost`, finite.
    """
    priced = price * judged.cost
    alone = judged.adequacy - priced
    # Without spread a plan is worth no more than its tiers alone, so that such pairs need not be looked at.
    paired = np.flatnonzero(judged.spread.any(axis=0) | judged.spread.any(axis=1))
    values = plan_values(judged.adequacy[:, paired], priced[:, paired], judged.spread[np.ix_(paired, paired)])
    worth = alone.copy()
    if paired.size:
        worth[:, paired] = values.max(axis=2)
    first = worth.argmax(axis=1)
    last = first.copy()
    for tier in np.unique(first[first < alone.shape[1] - 1]).tolist():
        rows = np.flatnonzero(first == tier)
        then = tier + 1 + alone[rows, tier + 1 :].argmax(axis=1)
        for place in np.flatnonzero(paired == tier):
            partner = values[rows, place].argmax(axis=1)
            then = np.where(partner == place, then, paired[partner])
        next_tier = then[:, None] == np.arange(alone.shape[1])
        paid = priced[rows] if judged.later is None else price * judged.later[rows, tier]
        last[rows] = jump(judged.posterior[rows, tier], paid, tier, next_tier)
        if judged.refused is not None:
            last[rows] = np.where(judged.refused[rows, tier], then, last[rows])
    return Taken(first, last)


def act_alone(adequacy: F64, cost: F64, price: float, refused: NDArray[np.bool_] | None = None) -> Taken:
    """Do what a policy of single attempts does: the tier of the highest utility, ties to the cheaper.

    Args:
        adequacy: Chances, (n, K).
        cost: In the unit that the price is per, (n, K).
        price: Shadow price, finite.
        refused: Whose answers a response check refuses, (n, K): the dearer tier of the highest utility stands by for
            them; None: no second attempt is allowed.
    """
    column = choose(adequacy, cost, price)
    if refused is None:
        return Taken(column, column)
    everyone, k = np.arange(len(column)), adequacy.shape[1]
    worth = np.where(np.arange(k) > column[:, None], adequacy - price * cost, -np.inf)
    escalated = refused[everyone, column] & (column < k - 1)
    return Taken(column, np.where(escalated, worth.argmax(axis=1), column))


def grid_of(knob: F64, taken: list[Taken], outcomes: Outcomes) -> Grid:
    """Return what was done at every setting of a knob, (m,), as a curve can be drawn from."""
    return Grid(
        knob,
        np.stack([one.quality(outcomes) for one in taken]),
        np.stack([one.cost(outcomes) for one in taken]),
        np.stack([one.last for one in taken]),
    )


def on_hull(quality: F64, cost: F64) -> NDArray[np.int64]:
    """Return the tiers that no mix of others beats at their own mean cost, cheapest first; unknown outcomes are NaN.

    A dearer tier that is no better can still be right for some requests, but a cascade over it pays twice for little.
    """
    x, y = np.nanmean(cost, axis=0), np.nanmean(quality, axis=0)
    usd, worth = hull(x, y)
    corner = np.isin(x, usd) & np.isin(y, worth)
    return np.flatnonzero(corner)


def fit_spread(adequacy: F64, posterior: F64, quality: F64, tiers: Sequence[int] | None = None) -> F64:
    """Measure how far the answers of each tier move the comparison with each dearer one.

    The movement is m = (v - p_t(y)) - (q_s - q_t). A posterior that is right has E[m^2] = E[m r], where r is what the
    outcomes add to q_s - q_t; one that is noise has E[m r] = 0, however much it moves. The smaller of the two counts,
    so that a verifier that flatters itself makes no plan look good.

    Args:
        adequacy: Chances before the call, (n, K), of models that had not seen the row.
        posterior: Chances after the answer of each tier, (n, K, K), likewise; NaN where that answer is not known.
        quality: Outcomes, (n, K), NaN where unknown.
        tiers: Tiers that plans are made of; None: all.

    Returns:
        Logistic scale per square root of q_s (1 - q_s), shape (K, K); 0 on and below the diagonal.
    """
    k = adequacy.shape[1]
    spread = np.zeros((k, k))
    for s, t in itertools.combinations(sorted(range(k) if tiers is None else tiers), 2):
        spread[s, t] = _spread(adequacy[:, [s, t]], posterior[:, s][:, [s, t]], quality[:, [s, t]])
    return spread


def fit_cost_update(spent: F64, expected: F64) -> CostUpdate:
    """Fit what the cost of one tier's answer tells of another's, by least squares of log ratios on a parabola.

    Args:
        spent: What each tier's answer cost, USD, (n, K), NaN where unknown.
        expected: What it was expected to cost, USD, (n, K).
    """
    k = spent.shape[1]
    update = CostUpdate(np.zeros((k, k)), np.zeros((k, k)), np.zeros((k, k)))
    for s, t in itertools.combinations(range(k), 2):
        known = (spent[:, [s, t]] > 0).all(axis=1) & (expected[:, [s, t]] > 0).all(axis=1)
        if known.sum() < _MIN_ROWS:
            continue
        first, then = (np.log(spent[known, i] / expected[known, i]) for i in (s, t))
        first = np.clip(first, -COST_REACH, COST_REACH)
        terms = np.stack((first, first**2), axis=1)
        moved = terms - terms.mean(axis=0)
        # A bend has to be seen: it decides most where there are fewest rows.
        gram = moved.T @ moved + np.diag([1e-9, _BEND_ROWS])
        update.elasticity[s, t], update.curvature[s, t] = np.linalg.solve(gram, moved.T @ (then - then.mean()))
        raw = expected[known, t] * update.factor(spent[known, s], expected[known, s], s, t)
        # The factor is right on average, in money and not in logarithms.
        update.shift[s, t] = float(np.log(spent[known, t].mean() / raw.mean()))
    return update


def known_posterior(adequacy: F64, posterior: F64) -> tuple[F64, NDArray[np.bool_]]:
    """Let the opinion before the call stand wherever an answer is not known.

    Returns:
        The posterior without NaN, (n, K, K), and which tiers' answers are known, (n, K).
    """
    known = np.asarray(~np.isnan(posterior).any(axis=2), np.bool_)
    return np.where(known[:, :, None], posterior, adequacy[:, None, :]), known


def _spread(before: F64, after: F64, quality: F64) -> float:
    known = ~np.isnan(after).any(axis=1)
    if known.sum() < _MIN_ROWS:
        return 0.0
    before, after, quality = before[known], after[known], quality[known]
    ahead = before[:, 0] - before[:, 1]
    moved = after[:, 0] - after[:, 1] - ahead
    variance = float(np.mean(moved**2))
    outcome = quality[:, 0] - quality[:, 1] - ahead
    both = ~np.isnan(outcome)
    if both.sum() >= _MIN_ROWS:
        variance = min(variance, max(float(np.mean(moved[both] * outcome[both])), 0.0))
    else:
        # The verifier's own word counts for as much as there is to check it by.
        variance *= float(both.sum()) / _MIN_ROWS
    possible = float(np.mean(before[:, 0] * (1.0 - before[:, 0])))
    return _SCALE * float(np.sqrt(variance / max(possible, 1e-9)))
