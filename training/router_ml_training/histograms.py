"""Histograms on grids that are the same everywhere, with what their rows are worth when some belong together.

A fixed grid makes any two histograms comparable, whoever made them and when; tests merge its fine bins into few.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Histogram", "category_histogram", "histogram", "merged_bins", "share_histogram"]

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]
Finite = Annotated[float, Field(allow_inf_nan=False)]

# Fine enough for a shift of a few percent of a value, or of two points of a share.
_PER_OCTAVE = 32
_SMALLEST = 1e-7
_PER_UNIT = 50
# How many bins what rows are worth is measured on, and on how many rows at most: more tell the same.
_COARSE = 10
_LEAST_ROWS = 5
_MEASURED = 50_000
# On fewer groups it cannot be measured how alike their rows are.
_LEAST_GROUPS = 30


class Histogram(BaseModel):
    """How many rows fell into each bin that is not empty, and their mean.

    `effective` is how many independent rows they are worth: rows of one session or prompt resemble each other. `spread`
    says how unevenly that costs the bins: the squared coefficient of variation of the design effects.

    Source: Rao and Scott 1981, "The analysis of categorical data from complex sample surveys", both corrections.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bins: tuple[int, ...]
    counts: tuple[Annotated[int, Field(gt=0)], ...]
    mean: Finite
    effective: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    spread: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0

    @property
    def n(self) -> int:
        """Rows."""
        return sum(self.counts)

    def share(self, bins: I64) -> F64:
        """Return the share of the rows in each of these bins, shape as `bins`."""
        known = dict(zip(self.bins, self.counts, strict=True))
        return np.array([known.get(int(one), 0) for one in bins], np.float64) / max(self.n, 1)


def histogram(values: ArrayLike, group: I64) -> Histogram | None:
    """Sum up numbers of any size, on a grid of 2.2 % steps; NaN is left out, None where nothing is left.

    Args:
        values: Shape (n,).
        group: Rows of the same number belong together, (n,).
    """
    known, members = _known(values, group)
    size = np.abs(known)
    step = 1 + np.floor(_PER_OCTAVE * np.log2(np.maximum(size, _SMALLEST) / _SMALLEST))
    return _summed(np.where(size < _SMALLEST, 0, np.sign(known) * step).astype(np.int64), known, members)


def share_histogram(values: ArrayLike, group: I64) -> Histogram | None:
    """Sum up shares, probabilities or outcomes in [0, 1], on a grid of 0.02; else as `histogram`."""
    known, members = _known(values, group)
    return _summed(np.floor(np.clip(known, 0.0, 1.0) * _PER_UNIT).astype(np.int64), known, members)


def category_histogram(codes: I64, group: I64) -> Histogram | None:
    """Sum up categories by their number; their mean means nothing. Else as `histogram`."""
    return _summed(codes, np.zeros(len(codes)), group)


def _known(values: ArrayLike, group: I64) -> tuple[F64, I64]:
    given = np.asarray(values, np.float64)
    known = np.isfinite(given)
    return given[known], group[known]


def _summed(bins: I64, values: F64, group: I64) -> Histogram | None:
    if not len(bins):
        return None
    found, counts = np.unique(bins, return_counts=True)
    effect, spread = _design(bins, group)
    return Histogram(
        bins=tuple(found.tolist()),
        counts=tuple(counts.tolist()),
        mean=float(values.mean()),
        effective=len(bins) / effect,
        spread=spread,
    )


def _design(bins: I64, group: I64) -> tuple[float, float]:
    """Return by how much larger variances are than those of independent rows, and how unevenly over the bins."""
    if len(bins) > _MEASURED:  # whole groups, drawn by their number, which is a hash
        kept = group % -(-len(bins) // _MEASURED) == 0
        if kept.any():
            bins, group = bins[kept], group[kept]
    n, member = len(bins), np.unique(group, return_inverse=True)[1]
    sizes = np.bincount(member)
    n_groups = len(sizes)
    if n_groups == n:
        return 1.0, 0.0
    coarse = _coarse(bins)
    n_bins = int(coarse.max()) + 1
    if n_bins == 1 or n_groups < _LEAST_GROUPS:  # the worst case: all rows of a group are the same
        return float((sizes.astype(np.float64) ** 2).sum()) / n, 0.0
    share = np.bincount(coarse, minlength=n_bins) / n
    sums = np.bincount(member * n_bins + coarse, minlength=n_groups * n_bins).reshape(n_groups, n_bins)
    off = (sums - sums.sum(axis=1, keepdims=True) * share) / np.sqrt(share)
    matrix = off.T @ off * (n_groups / (n_groups - 1) / n)
    total = float(np.trace(matrix))
    effect = max(total / (n_bins - 1), 1.0)
    spread = (n_bins - 1) * float((matrix * matrix).sum()) / total**2 - 1.0 if total > 0 else 0.0
    return effect, max(spread, 0.0)


def merged_bins(share: F64, *, size: float, least: float) -> I64:
    """Merge neighbouring bins into fewer of about equal share; a value that many rows have stays alone.

    Args:
        share: Share of the rows in each bin, in order, (J,).
        size: Share from which a bin is full.
        least: Share that a bin has at least.

    Returns:
        The number of the merged bin of each, from 0 up, (J,).
    """
    label, filled, current = np.zeros(len(share), np.int64), 0.0, 0
    for i, one in enumerate(share.tolist()):
        if filled >= max(size, least) or (one > size and filled >= least):
            current, filled = current + 1, 0.0
        label[i] = current
        filled += one
    if filled < least and current > 0:
        label[label == current] = current - 1
    return label


def _coarse(bins: I64) -> I64:
    """Return the number of one of a few bins of about equal share for each row, (n,)."""
    _, member, counts = np.unique(bins, return_inverse=True, return_counts=True)
    share = counts / len(bins)
    return merged_bins(share, size=1.0 / _COARSE, least=min(_LEAST_ROWS / len(bins), 1.0))[member]
