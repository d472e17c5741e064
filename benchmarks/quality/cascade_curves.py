"""Policies of one and of two attempts as sweeps: every call is paid for, and one knob runs from bold to safe.

A policy's state on a row is the pair (first tier, tier whose answer was given), a column of `attempts`. As the shadow
price falls over 2,000 prices, rows move from column to column; those that move between the same two prices do so in
random order, each a point of the curve. Behind the last price every row goes to the best tier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.evaluation.curves import Sweep
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.frontier import price_grid
from router_ml_training.plans import Judged, Taken, act, act_alone

__all__ = [
    "N_PRICES",
    "Policy",
    "alone",
    "always_judged",
    "attempts",
    "combined",
    "embedded",
    "pooled",
    "states",
    "sweep_of",
]

F64: TypeAlias = NDArray[np.float64]
Policy: TypeAlias = Callable[[float], Taken]
States: TypeAlias = NDArray[np.int16]

N_PRICES = 2000
# Prices at which single attempts and plans are compared on the train rows.
_N_COMPARED = 240


def attempts(outcomes: Outcomes) -> Outcomes:
    """Return what every pair of first and last tier costs and is worth: the tiers, then the plans "s, then t"."""
    k = outcomes.n_tiers
    first, last = np.divmod(np.arange(k * k), k)
    plan = first != last
    order = np.concatenate((np.flatnonzero(~plan), np.flatnonzero(plan)))
    first, last = first[order], last[order]
    cost = outcomes.cost[:, last] + np.where(first != last, outcomes.cost[:, first], 0.0)
    return Outcomes(outcomes.quality[:, last], cost, tiers=k, best=outcomes.best_tier)


def states(prices: F64, policy: Policy, n_tiers: int) -> States:
    """Return what a policy does at every price, as columns of `attempts`, (m, n).

    Args:
        prices: Shadow prices, falling, (m,).
        policy: What it does at a price.
        n_tiers: Tiers of the ladder.
    """
    k = n_tiers
    column = np.zeros((k, k), np.int16)
    column[np.arange(k), np.arange(k)] = np.arange(k)
    column[~np.eye(k, dtype=bool)] = np.arange(k, k * k)
    rows = []
    for price in prices:
        taken = policy(float(price))
        rows.append(column[taken.first, taken.last])
    return np.stack(rows)


def sweep_of(prices: F64, done: States, best: int, rng: np.random.Generator) -> Sweep:
    """Return the moves between what was done at falling prices, and behind them those to always the best tier.

    Args:
        prices: Shadow prices, falling, (m,).
        done: Columns at each price, (m, n).
        best: Column of the best tier.
        rng: Orders rows that move between the same two prices.
    """
    path = np.concatenate((done, np.full((1, done.shape[1]), best, done.dtype)))
    step, row = np.nonzero(path[1:] != path[:-1])
    order = np.lexsort((rng.random(step.size), step))
    step, row = step[order], row[order]
    start, row, source, target = (part.astype(np.intp) for part in (path[0], row, path[step, row], path[step + 1, row]))
    return Sweep(start, row, source, target, np.append(prices[1:], -1.0)[step], -np.inf)


def embedded(sweep: Sweep, columns: NDArray[np.intp]) -> Sweep:
    """Return the same sweep over a wider table of outcomes: column i of the old one is `columns[i]` of the new one."""
    return replace(sweep, start=columns[sweep.start], source=columns[sweep.source], target=columns[sweep.target])


def pooled(policies: Sequence[Policy]) -> Policy:
    """Return the policy that acts on the rows of every fold by that fold's own policy."""

    def policy(price: float) -> Taken:
        parts = [one(price) for one in policies]
        return Taken(np.concatenate([part.first for part in parts]), np.concatenate([part.last for part in parts]))

    return policy


def alone(rows: Judged) -> Policy:
    """Return the policy of single attempts."""
    return lambda price: _alone(rows, price)


def combined(judged: Judged, outcomes: Outcomes, rows: Judged) -> Policy:
    """Return the policy that judges unless that was a loss on other rows: plans or prompt-only, by shadow price.

    Plans contain single attempts, so they stand unless they were worth less by more than a standard error.

    Args:
        judged: Train rows, scored by models that had not seen them.
        outcomes: What every tier did on them.
        rows: The rows on which the policy acts.
    """
    prices = price_grid(*judged.opinions(), _N_COMPARED)
    gains = np.stack([_worth(act(judged, p), outcomes, p) - _worth(_alone(judged, p), outcomes, p) for p in prices])
    judging = gains.mean(axis=1) >= -gains.std(axis=1) / np.sqrt(outcomes.n)

    def policy(price: float) -> Taken:
        nearest = int(np.abs(prices - price).argmin())
        return act(rows, price) if judging[nearest] else _alone(rows, price)

    return policy


def always_judged(rows: Judged) -> F64:
    """Return the price below which each row of the cascade "cheapest first, always judged" is escalated, (n,)."""
    after, later = rows.posterior[:, 0], rows.cost if rows.later is None else rows.later[:, 0]
    need: F64 = (after[:, -1] - after[:, 0]) / later[:, -1]
    return need


def _alone(judged: Judged, price: float) -> Taken:
    return act_alone(judged.adequacy, judged.cost, price)


def _worth(taken: Taken, outcomes: Outcomes, price: float) -> F64:
    worth: F64 = taken.quality(outcomes) - price * taken.cost(outcomes)
    return worth
