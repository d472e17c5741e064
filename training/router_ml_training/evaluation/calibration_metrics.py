"""How far predicted probabilities can be believed: ECE in equal-mass bins, Brier score, AUC, reliability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from router_ml.errors import DataError
from router_ml_training.evaluation.bootstrap import DRAWS, statistic_figure
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Floats, Ints

__all__ = ["BINS", "Reliability", "auc", "brier", "calibration_figures", "ece", "reliability"]

BINS = 15  # equal mass, not equal width: equal-width bins leave most of them nearly empty on confident models
_Z = 1.959964  # normal quantile of a two-sided 95 % interval


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Predicted against observed, by bins of equal mass; bins that ties left empty are dropped.

    Args:
        predicted: Mean probability per bin, (b,).
        observed: Share that was adequate per bin, (b,).
        low: Lower end of a 95 % Wilson interval of `observed`, (b,).
        high: Upper end of it, (b,).
        count: Rows per bin, (b,).
        spread: Rows per twentieth of [0, 1], (20,): where the predictions lie.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    count: Floats
    spread: Floats


def ece(p: ArrayLike, y: ArrayLike, *, bins: int = BINS) -> float:
    """Expected calibration error: mean |predicted - observed| over bins of equal mass, equal scores never split.

    Args:
        p: Predicted probabilities, shape (n,).
        y: What happened, 0 or 1 (or a graded score in [0, 1]), shape (n,).
        bins: Number of bins.
    """
    return float(_Sorted.of(p, y).ece(np.ones((1, np.size(p))), bins)[0])


def brier(p: ArrayLike, y: ArrayLike) -> float:
    """Mean squared error of probabilities, shape (n,) each; 0 is perfect, 0.25 is a coin. Source: Brier 1950."""
    predicted, happened = _pair(p, y)
    return float(np.mean((predicted - happened) ** 2))


def auc(p: ArrayLike, y: ArrayLike) -> Figure:
    """Probability that a random adequate row scores above a random inadequate one, ties counting half."""
    rows = _Sorted.of(p, y)
    value = float(rows.auc(np.ones((1, np.size(p))))[0])
    return Figure(None, reason=rows.auc_reason()) if np.isnan(value) else Figure(value)


def reliability(p: ArrayLike, y: ArrayLike, *, bins: int = BINS) -> Reliability:
    """Predicted against observed in bins of equal mass, with Wilson intervals.

    Args:
        p: Predicted probabilities, shape (n,).
        y: What happened, 0 or 1, shape (n,).
        bins: Number of bins.
    """
    mass, predicted, observed = (part[0] for part in _Sorted.of(p, y).binned(np.ones((1, np.size(p))), bins))
    full = mass > 0
    count, share = mass[full], observed[full] / mass[full]
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    variance = np.maximum(share * (1 - share) / count + _Z**2 / (4 * count**2), 0.0)
    half = _Z * np.sqrt(variance) / (1 + _Z**2 / count)
    low, high = np.clip(centre - half, 0, share), np.clip(centre + half, share, 1)
    spread = np.histogram(np.asarray(p, dtype=np.float64), bins=20, range=(0.0, 1.0))[0].astype(np.float64)
    return Reliability(predicted[full] / count, share, low, high, count, spread)


def calibration_figures(
    p: ArrayLike, y: ArrayLike, *, rng: Generator, draws: int = DRAWS, groups: ArrayLike | None = None, bins: int = BINS
) -> dict[str, Figure]:
    """`ece`, `brier` and `auc` of one tier, each with its interval.

    Resampling adds noise to every bin and so to ECE; its interval is moved back to where the value is.

    Args:
        p: Predicted probabilities, shape (n,).
        y: What happened, 0 or 1, shape (n,).
        rng: Source of the draws.
        draws: Draws in all; 0 leaves the intervals out.
        groups: Session or template of each row, (n,).
        bins: Number of bins of ECE.
    """
    if np.size(p) == 0:
        return {name: Figure(None, reason="no rows") for name in ("ece", "brier", "auc")}
    rows = _Sorted.of(p, y)
    squared = (np.asarray(p, dtype=np.float64) - np.asarray(y, dtype=np.float64)) ** 2
    statistics: dict[str, tuple[Callable[[Floats], Floats], int]] = {
        "ece": (lambda weights: rows.ece(weights, bins), -1),
        "brier": (lambda weights: weights @ squared / weights.sum(axis=1), -1),
        "auc": (rows.auc, 1),
    }
    return {
        name: statistic_figure(
            statistic,
            squared.size,
            rng=part,
            draws=draws,
            groups=groups,
            better=better,
            centred=name == "ece",
            reason=rows.auc_reason(),
        )
        for (name, (statistic, better)), part in zip(statistics.items(), rng.spawn(3), strict=True)
    }


def _pair(p: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    predicted, happened = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if predicted.ndim != 1 or predicted.shape != happened.shape or predicted.size == 0:
        raise DataError(f"need two vectors of one length, got shapes {predicted.shape} and {happened.shape}")
    if not (np.isfinite(predicted).all() and np.isfinite(happened).all()):
        raise DataError("probabilities and outcomes must be finite: leave unknown outcomes out")
    return predicted, happened


@dataclass(frozen=True, slots=True, eq=False)
class _Sorted:
    """Rows by rising probability, once, so that every draw is a few sums.

    `first` marks where each run of equal probabilities begins; weights come in the caller's row order.
    """

    order: Ints
    predicted: Floats
    happened: Floats
    first: Ints

    @classmethod
    def of(cls, p: ArrayLike, y: ArrayLike) -> _Sorted:
        """Sort rows by probability."""
        predicted, happened = _pair(p, y)
        order = np.argsort(predicted, kind="stable")
        predicted, happened = predicted[order], happened[order]
        first = np.flatnonzero(np.concatenate(([True], np.diff(predicted) > 0)))
        return cls(order, predicted, happened, first)

    def _runs(self, weights: Floats) -> Floats:
        sums: Floats = np.add.reduceat(weights, self.first, axis=1)
        return sums

    def binned(self, weights: Floats, bins: int) -> tuple[Floats, Floats, Floats]:
        """Mass, predicted mass and observed mass per bin, each (b, bins)."""
        weights = weights[:, self.order]
        mass = self._runs(weights)
        before = np.cumsum(mass, axis=1) - mass
        total = mass.sum(axis=1, keepdims=True)
        # A run of equal scores goes where its middle falls, whole.
        place = np.minimum((bins * (before + mass / 2) / total).astype(np.intp), bins - 1)
        flat = (place + bins * np.arange(len(weights))[:, None]).ravel()

        def fill(values: Floats) -> Floats:
            sums = np.bincount(flat, values.ravel(), minlength=bins * len(weights)).reshape(-1, bins)
            return sums.astype(np.float64)

        return fill(mass), fill(self._runs(weights * self.predicted)), fill(self._runs(weights * self.happened))

    def ece(self, weights: Floats, bins: int) -> Floats:
        """Expected calibration error of each draw, (b,)."""
        mass, predicted, observed = self.binned(weights, bins)
        error: Floats = np.abs(predicted - observed).sum(axis=1) / mass.sum(axis=1)
        return error

    def auc(self, weights: Floats) -> Floats:
        """Area under the ROC curve of each draw, (b,), NaN with one class only."""
        if not np.isin(self.happened, (0.0, 1.0)).all():
            return np.full(len(weights), np.nan)
        weights = weights[:, self.order]
        good, bad = self._runs(weights * self.happened), self._runs(weights * (1 - self.happened))
        below = np.cumsum(bad, axis=1) - bad / 2
        pairs = good.sum(axis=1) * bad.sum(axis=1)
        wins = (good * below).sum(axis=1)
        return np.where(pairs > 0, wins / np.where(pairs > 0, pairs, 1.0), np.nan)

    def auc_reason(self) -> str:
        """Why there is no AUC."""
        if not np.isin(self.happened, (0.0, 1.0)).all():
            return "outcomes are graded, not 0 or 1"
        return f"every outcome is {self.happened[0]:g}"
