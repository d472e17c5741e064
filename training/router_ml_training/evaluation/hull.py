"""The non-decreasing upper convex hull of cost-quality points: what mixing policies by a coin can reach."""

from __future__ import annotations

import numpy as np

from router_ml_training.evaluation.outcomes import Floats

__all__ = ["hull", "mean_height"]


def hull(cost: Floats, quality: Floats) -> tuple[Floats, Floats]:
    """Vertices of the non-decreasing upper convex hull of points, by rising cost; mixing two points reaches a chord.

    Args:
        cost: Mean cost of each point, (m,).
        quality: Mean quality of each point, (m,).
    """
    order = np.lexsort((-quality, cost))
    x, y = cost[order], quality[order]
    record = np.concatenate(([True], y[1:] > np.maximum.accumulate(y)[:-1]))
    x, y = x[record], y[record]
    # A point on or under the chord of its neighbours is no vertex, so all such points can go at once: few rounds do.
    for _ in range(12):
        under = (y[1:-1] - y[:-2]) * (x[2:] - x[:-2]) <= (y[2:] - y[:-2]) * (x[1:-1] - x[:-2])
        if not under.any():
            return x, y
        keep = np.concatenate(([True], ~under, [True]))
        x, y = x[keep], y[keep]
    return _chain(x, y)


def _chain(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    kept: list[int] = []
    for i in range(x.size):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) > (y[i] - y[a]) * (x[b] - x[a]):
                break
            kept.pop()
        kept.append(i)
    return x[kept], y[kept]


def mean_height(x: Floats, y: Floats, low: float, high: float) -> float:
    """Mean height of a piecewise linear hull between two costs, flat beyond its ends."""
    grid = np.concatenate(([low], x[(x > low) & (x < high)], [high]))
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (high - low))
