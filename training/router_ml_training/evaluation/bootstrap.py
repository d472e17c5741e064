"""Percentile bootstrap over prompts: every policy sees the same draws, so that differences are paired.

A draw is a vector of multinomial counts. A curve under new counts keeps its order of moves, so nothing is sorted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from router_ml.errors import DataError
from router_ml_training.evaluation.curves import Swept, curve_of
from router_ml_training.evaluation.metrics import CurveMetric, Figure, curve_metrics
from router_ml_training.evaluation.outcomes import Floats, Outcomes

__all__ = [
    "DRAWS",
    "LEVEL",
    "curve_figures",
    "interval",
    "mean_figure",
    "resamples",
    "statistic_figure",
]

DRAWS = 1000
LEVEL = 0.95
_CELLS = 1_500_000  # counts held at once: about 12 MB, and a few times that for the curves made from them


def resamples(
    n: int, *, rng: Generator, draws: int = DRAWS, groups: ArrayLike | None = None, width: int | None = None
) -> Iterator[Floats]:
    """Yield batches of weights, shape (b, n): how often each request was drawn.

    Args:
        n: Number of requests.
        rng: Source of the draws.
        draws: Draws in all.
        groups: Session or template of each request, (n,); whole groups are drawn, as requests of one group are not
            independent. None draws requests.
        width: Numbers per draw that the caller will hold, when more than n; keeps batches small.
    """
    if n < 1:
        raise DataError("no rows to draw from")
    if groups is None:
        member = np.arange(n)
    else:
        labels = np.asarray(groups)
        if labels.shape != (n,):
            raise DataError(f"groups must have shape ({n},), got {labels.shape}")
        member = np.unique(labels, return_inverse=True)[1].reshape(n)
    units = int(member.max()) + 1
    batch = max(1, min(draws, _CELLS // max(n, width or 0)))
    for first in range(0, draws, batch):
        size = min(batch, draws - first)
        drawn = rng.integers(0, units, size=(size, units)) + units * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units)
        yield counts[:, member].astype(np.float64)


def interval(values: ArrayLike, *, level: float = LEVEL, better: int = 1) -> tuple[float | None, float | None]:
    """Percentile interval of bootstrap values; an undefined draw (NaN) counts as the worst.

    Args:
        values: One value per draw, shape (draws,).
        level: Share of the draws inside.
        better: 1 when higher is better, -1 when lower is.

    Returns:
        Low and high; None for an end that undefined draws decide.
    """
    drawn = np.asarray(values, dtype=np.float64)
    drawn = np.sort(np.where(np.isnan(drawn), -np.inf * better, drawn))
    tail = (1 - level) / 2
    # "higher" and "lower" pick a real draw, so that an infinite neighbour is never averaged in.
    low = float(np.quantile(drawn, tail, method="lower"))
    high = float(np.quantile(drawn, 1 - tail, method="higher"))
    return (low if np.isfinite(low) else None), (high if np.isfinite(high) else None)


def statistic_figure(
    statistic: Callable[[Floats], Floats],
    n: int,
    *,
    rng: Generator,
    draws: int = DRAWS,
    groups: ArrayLike | None = None,
    level: float = LEVEL,
    better: int = 1,
    centred: bool = False,
    reason: str = "undefined on these rows",
) -> Figure:
    """Any statistic of weighted rows, with its interval.

    Args:
        statistic: From weights (b, n) to one number per draw (b,), NaN where undefined.
        n: Number of rows.
        rng: Source of the draws.
        draws: Draws in all; 0 leaves the interval out.
        groups: Session or template of each row, (n,).
        level: Share of the draws inside the interval.
        better: 1 when higher is better, -1 when lower is.
        centred: Move the interval so that the draws' median lies at the value: for statistics that resampling itself
            makes larger, such as a mean of absolute differences.
        reason: Said when the statistic is undefined on the rows themselves.
    """
    if n < 1:
        return Figure(None, reason="no rows")
    value = float(statistic(np.ones((1, n)))[0])
    if np.isnan(value):
        return Figure(None, reason=reason)
    if draws < 1:
        return Figure(value)
    drawn = np.concatenate([statistic(batch) for batch in resamples(n, rng=rng, draws=draws, groups=groups)])
    if centred:
        drawn = drawn - (np.nanmedian(drawn) - value)
    low, high = interval(drawn, level=level, better=better)
    return Figure(value, low, high)


def mean_figure(
    values: ArrayLike, *, rng: Generator, draws: int = DRAWS, groups: ArrayLike | None = None, level: float = LEVEL
) -> Figure:
    """Mean of one number per request, with its interval.

    Args:
        values: One number per request, shape (n,); for a paired difference, the difference.
        rng: Source of the draws.
        draws: Draws in all.
        groups: Session or template of each request, (n,).
        level: Share of the draws inside the interval.
    """
    column = np.asarray(values, dtype=np.float64)
    return statistic_figure(
        lambda weights: weights @ column / weights.sum(axis=1),
        column.size,
        rng=rng,
        draws=draws,
        groups=groups,
        level=level,
    )


def curve_figures(
    swept: Swept,
    outcomes: Outcomes,
    *,
    rng: Generator,
    metrics: Sequence[CurveMetric] | None = None,
    draws: int = DRAWS,
    groups: ArrayLike | None = None,
    level: float = LEVEL,
) -> dict[str, Figure]:
    """Metrics of a swept policy, each with its interval; `draws=0` leaves the intervals out.

    Args:
        swept: The policy, its knob turned all the way.
        outcomes: Known outcomes of the same requests.
        rng: Source of the draws. Policies compared with each other need generators of the same seed.
        metrics: Which metrics; None means all of `curve_metrics()`.
        draws: Draws in all.
        groups: Session or template of each request, (n,).
        level: Share of the draws inside the interval.
    """
    wanted = tuple(curve_metrics() if metrics is None else metrics)
    curve = curve_of(swept, outcomes)
    drawn = _drawn(swept, outcomes, wanted, rng=rng, draws=draws, groups=groups)
    figures = {}
    for metric in wanted:
        point = metric.of(curve)
        if point.value is not None and draws > 0:
            low, high = interval(drawn[metric.name], level=level, better=metric.better)
            point = Figure(point.value, low, high)
        figures[metric.name] = point
    return figures


def _drawn(
    swept: Swept,
    outcomes: Outcomes,
    metrics: Sequence[CurveMetric],
    *,
    rng: Generator,
    draws: int,
    groups: ArrayLike | None,
) -> dict[str, Floats]:
    """The value of each metric in every draw, each (draws,)."""
    parts: dict[str, list[Floats]] = {metric.name: [] for metric in metrics}
    batches = resamples(outcomes.n, rng=rng, draws=draws, groups=groups, width=swept.knob.size) if draws > 0 else ()
    for weights in batches:
        points = swept.trace(outcomes, weights)
        for metric in metrics:
            parts[metric.name].append(metric.values(points))
    return {name: np.concatenate(chunks) if chunks else np.zeros(0) for name, chunks in parts.items()}
