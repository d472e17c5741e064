"""Cost-quality curves: what a policy costs and how good it is at every setting of its knob, exactly.

A knob that is turned from "cheapest" to "best" moves requests one at a time from one column to another. A `Sweep` is
that list of moves, in order. Sorting happens once; a curve, and every bootstrap draw of it, is then a cumulative sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from router_ml.errors import DataError
from router_ml_training.evaluation.outcomes import Curve, Floats, Ints, Outcomes, Points

__all__ = [
    "Curve",
    "Floats",
    "Grid",
    "Ints",
    "Outcomes",
    "Points",
    "Sweep",
    "Swept",
    "choose",
    "curve_of",
    "price_sweep",
    "share_sweep",
]


class Swept(Protocol):
    """Anything whose knob has been turned all the way: a `Sweep` or a `Grid`."""

    @property
    def knob(self) -> Floats:
        """Setting of each point, (m,)."""

    def trace(self, outcomes: Outcomes, weights: Floats) -> Points:
        """The curve under each of b weightings of the requests, weights (b, n)."""

    def shares(self, outcomes: Outcomes) -> Floats:
        """Share of requests per column at each point, (m, C)."""


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Requests moving from column to column, one at a time, as the knob is turned.

    Args:
        start: Column of each request before the first move, (n,).
        row: The request that moves, (m,).
        source: The column it leaves, (m,).
        target: The column it moves to, (m,).
        level: Score or shadow price of each move, never rising, (m,).
        end: Where the knob stops: the level below the last move.
    """

    start: Ints
    row: Ints
    source: Ints
    target: Ints
    level: Floats
    end: float

    @property
    def knob(self) -> Floats:
        """Setting of each of the m + 1 points: half-way between the move before it and the move after it."""
        if self.level.size == 0:
            return np.array([self.end])
        between = self.level[:-1] + np.diff(self.level) / 2
        knob: Floats = np.concatenate(([np.inf], between, [self.end]))
        return knob

    def trace(self, outcomes: Outcomes, weights: Floats) -> Points:
        """The curve under each of b weightings of the requests, weights (b, n)."""
        everyone = np.arange(outcomes.n)
        total = weights.sum(axis=1, keepdims=True)
        moved = weights[:, self.row] / total

        def path(table: Floats) -> Floats:
            steps = moved * (table[self.row, self.target] - table[self.row, self.source])
            origin = (weights @ table[everyone, self.start])[:, None] / total
            along: Floats = origin + np.cumsum(np.pad(steps, ((0, 0), (1, 0))), axis=1)
            return along

        left = (self.source == 0).astype(np.float64) - (self.target == 0).astype(np.float64)
        outside = (weights @ (self.start != 0).astype(np.float64))[:, None] / total
        share = outside + np.cumsum(np.pad(moved * left, ((0, 0), (1, 0))), axis=1)
        k = outcomes.n_tiers
        return Points(
            share=share,
            cost=path(outcomes.cost),
            quality=path(outcomes.quality),
            tier_cost=weights @ outcomes.cost[:, :k] / total,
            tier_quality=weights @ outcomes.quality[:, :k] / total,
            best=outcomes.best_tier,
        )

    def columns_at(self, point: int) -> Ints:
        """Column of each request at one of the m + 1 points, (n,)."""
        column = self.start.copy()
        column[self.row[:point]] = self.target[:point]
        return column

    def shares(self, outcomes: Outcomes) -> Floats:
        """Share of requests per column at each of the m + 1 points, (m + 1, C)."""
        columns = outcomes.quality.shape[1]
        counts = np.zeros((self.row.size + 1, columns))
        counts[0] = np.bincount(self.start, minlength=columns)
        move = np.arange(1, self.row.size + 1)
        np.add.at(counts, (move, self.source), -1.0)
        np.add.at(counts, (move, self.target), 1.0)
        shares: Floats = np.cumsum(counts, axis=0) / outcomes.n
        return shares


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What every request really cost and was worth at each of m settings of a knob, for policies that are no sweep.

    Args:
        knob: The settings, (m,), cheapest first.
        quality: Realised quality, (m, n).
        cost: Realised USD, every attempt included, (m, n).
        column: The column each request ended in, (m, n).
    """

    knob: Floats
    quality: Floats
    cost: Floats
    column: Ints

    def trace(self, outcomes: Outcomes, weights: Floats) -> Points:
        """The curve under each of b weightings of the requests, weights (b, n)."""
        total = weights.sum(axis=1, keepdims=True)
        k = outcomes.n_tiers
        return Points(
            share=weights @ (self.column != 0).T.astype(np.float64) / total,
            cost=weights @ self.cost.T / total,
            quality=weights @ self.quality.T / total,
            tier_cost=weights @ outcomes.cost[:, :k] / total,
            tier_quality=weights @ outcomes.quality[:, :k] / total,
            best=outcomes.best_tier,
        )

    def shares(self, outcomes: Outcomes) -> Floats:
        """Share of requests per column at each point, (m, C)."""
        columns = outcomes.quality.shape[1]
        return np.stack([np.bincount(row, minlength=columns) / outcomes.n for row in self.column])


def curve_of(swept: Swept, outcomes: Outcomes) -> Curve:
    """Measure a swept policy on known outcomes, every request weighing the same."""
    points = swept.trace(outcomes, np.ones((1, outcomes.n)))
    return Curve(
        knob=swept.knob,
        cost=points.cost[0],
        quality=points.quality[0],
        share=swept.shares(outcomes),
        tier_cost=points.tier_cost[0],
        tier_quality=points.tier_quality[0],
        best=points.best,
    )


def share_sweep(score: ArrayLike, *, rng: Generator, small: int = 0, large: int = 1) -> Sweep:
    """Sweep the share of a dearer column over every k/n, highest score first, ties in random order.

    Args:
        score: How much each request needs `large`, shape (n,); only its order matters.
        rng: Breaks ties.
        small: Column every request starts in.
        large: Column it moves to: the large tier, or the plan "small, then large".
    """
    values = np.asarray(score, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise DataError(f"scores must be a finite vector, got shape {values.shape}")
    order = np.lexsort((rng.random(values.size), -values))
    column = np.full(values.size, small, dtype=np.intp)
    return Sweep(column, order, column, np.full(values.size, large, dtype=np.intp), values[order], -np.inf)


def choose(adequacy: ArrayLike, cost: ArrayLike, price: float) -> Ints:
    """Pick the column of the highest `adequacy - price * cost` per request, ties to the cheaper.

    Args:
        adequacy: Probability that the column is good enough, shape (n, C).
        cost: Expected USD, shape (n, C).
        price: Shadow price, quality per USD; infinite means the cheapest whatever its adequacy.
    """
    value, usd = np.asarray(adequacy, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    if np.isinf(price):
        extreme = usd.min(axis=1, keepdims=True) if price > 0 else usd.max(axis=1, keepdims=True)
        utility = np.where(usd == extreme, value, -np.inf)
    else:
        utility = value - price * usd
    tied = utility == utility.max(axis=1, keepdims=True)
    column: Ints = np.argmin(np.where(tied, usd, np.inf), axis=1)
    return column


def price_sweep(adequacy: ArrayLike, cost: ArrayLike, *, rng: Generator, floor: float = 0.0) -> Sweep:
    """Sweep the shadow price from infinity down to `floor` through every price at which some request changes column.

    A request walks the upper concave hull of its own (cost, adequacy) points, cheapest first; the slopes of that hull
    are the prices at which it moves. Requests that move at one price do so in random order, each a point of its own.

    Args:
        adequacy: Probability that the column is good enough, shape (n, C).
        cost: Expected USD the decision is made with, shape (n, C).
        rng: Breaks ties between requests.
        floor: The lowest price. 0 ends at the best adequacy whatever it costs; `-inf` goes on to always the dearest, as
            a share sweep does.
    """
    value, usd = np.asarray(adequacy, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    if value.ndim != 2 or value.shape != usd.shape or not (np.isfinite(value).all() and np.isfinite(usd).all()):
        raise DataError(f"adequacy {value.shape} and cost {usd.shape} must be finite and of one (n, C) shape")
    start = choose(value, usd, np.inf)
    here, level = start.copy(), np.full(start.size, np.inf)
    moves: list[tuple[Ints, Ints, Ints, Floats, Ints]] = []
    for step in range(value.shape[1] - 1):
        slope, target = _steepest(value, usd, here)
        # A hull's slopes fall; rounding must not make a request's second move come before its first.
        slope = np.minimum(slope, level)
        row = np.flatnonzero(slope > floor)
        if row.size == 0:
            break
        moves.append((row, here[row], target[row], slope[row], np.full(row.size, step, dtype=np.intp)))
        level = slope
        here = here.copy()
        here[row] = target[row]
    if not moves:
        nothing = np.zeros(0, dtype=np.intp)
        return Sweep(start, nothing, nothing, nothing, np.zeros(0), floor)
    row, source, target, slopes, steps = (np.concatenate(parts) for parts in zip(*moves, strict=True))
    order = np.lexsort((rng.random(row.size), steps, -slopes))
    return Sweep(start, row[order], source[order], target[order], slopes[order], floor)


def _steepest(value: Floats, usd: Floats, here: Ints) -> tuple[Floats, Ints]:
    """Per request, the steepest gain in adequacy per USD among dearer columns, and the dearest column that gives it."""
    everyone = np.arange(here.size)
    rise = value - value[everyone, here][:, None]
    run = usd - usd[everyone, here][:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slope = np.where(run > 0, rise / np.where(run > 0, run, 1.0), -np.inf)
    steepest = slope.max(axis=1)
    candidates = (slope == steepest[:, None]) & (run > 0)
    target = np.argmax(np.where(candidates, usd, -np.inf), axis=1)
    return steepest, target
