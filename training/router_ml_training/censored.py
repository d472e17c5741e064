"""From incomplete evidence to weighted learning problems, one per tier: the expectation step of EM over the chain.

A tier whose outcome was seen whatever the cheaper ones did is learned by itself. A tier that is mostly seen because a
cheaper one had failed is learned given that failure. Where the cheaper outcome is unknown, skipped or only hinted at,
the chain says how likely it was a failure, and the row counts that much. Usually nothing is unknown, and the first pass
is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.chain import Smoothed, smooth
from router_ml_training.dataset import Dataset

__all__ = [
    "Form",
    "Lesson",
    "exact",
    "first_draws",
    "first_lessons",
    "form_of",
    "informed_lessons",
    "smoothed",
    "spoken_of",
]

F64: TypeAlias = NDArray[np.float64]
Form: TypeAlias = Literal["marginal", "shared", "chained"]

# A tier with fewer freely observed outcomes per escalated one is chained: the chain then sees more of what separates
# requests than the few free rows do.
_MIN_FREE_PER_ESCALATED = 2.0
# Evidence of which less than this share is uncertain is learned from without that share: rounds cost a fit each.
_NEGLIGIBLE = 0.02
# Rows whose action was unlikely stand for many; beyond this they would stand for noise.
_MAX_WEIGHT = 5.0
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one head learns from: row numbers (m,), targets in [0, 1] (m,), weights (m,) > 0."""

    rows: NDArray[np.int64]
    target: F64
    weight: F64


def form_of(data: Dataset, t: int) -> Form:
    """Return how tier t is learned from such a log: by itself, or given that the cheaper one failed."""
    if t == 0:
        return "marginal"
    known = spoken_of(data)
    escalated = int((known[:, t] & data.escalated[:, t]).sum())
    free = int(known[:, t].sum()) - escalated
    # What the chain hangs on has to be there.
    linked = bool((known[:, t] & known[:, t - 1]).any())
    return "chained" if linked and free < _MIN_FREE_PER_ESCALATED * escalated else "marginal"


def exact(data: Dataset, forms: Sequence[Form]) -> bool:
    """Return whether (nearly) all evidence is certain, so that the first pass is the answer."""
    spoken = spoken_of(data)
    hinted = ~np.isnan(data.soft)
    for t in range(1, len(forms)):
        if forms[t] == "chained":
            hinted[:, t] |= spoken[:, t] & ~spoken[:, t - 1] & ~_refused(data)[:, t - 1]
    return bool(hinted.sum() <= _NEGLIGIBLE * spoken.sum())


def smoothed(data: Dataset, rise: F64, slip: F64) -> Smoothed:
    """Return posteriors of every row under given transitions, see `chain.smooth`."""
    known = np.where(_refused(data), 0.0, np.where(np.isnan(data.soft), data.quality, np.nan))
    settled = np.where(np.isnan(known), 0.5, known)
    return smooth(rise, slip, np.where(np.isnan(data.soft), settled, data.soft), known)


def first_lessons(data: Dataset, forms: Sequence[Form]) -> tuple[Lesson, ...]:
    """Return what can be learned without a model: rows whose cheaper outcome is known, opinions taken at their word."""
    said = np.where(np.isnan(data.quality), data.soft, data.quality)
    before = np.where(_refused(data), 0.0, said)
    lessons = []
    for t, form in enumerate(forms):
        spoken = ~np.isnan(said[:, t])
        if form != "chained":
            weight = first_draws(data, t) * (spoken & ~data.escalated[:, t])
        else:
            weight = spoken * np.nan_to_num(1.0 - before[:, t - 1])
            weight = weight if weight.sum() >= 1.0 else spoken.astype(np.float64)
        lessons.append(_lesson(said[:, t], weight))
    return tuple(lessons)


def informed_lessons(data: Dataset, forms: Sequence[Form], posterior: Smoothed) -> tuple[Lesson, ...]:
    """Return what can be learned when the chain fills in what was not said."""
    spoken = spoken_of(data)
    informed = spoken.copy()
    for t in range(len(forms) - 2, -1, -1):
        informed[:, t] |= informed[:, t + 1] & (forms[t + 1] == "chained") & ~_refused(data)[:, t]
    lessons = []
    for t, form in enumerate(forms):
        if form == "chained":
            lessons.append(_lesson(posterior.if_failed[:, t], informed[:, t] * (1.0 - posterior.ok[:, t - 1])))
            continue
        rows = informed[:, t] if t == 0 else spoken[:, t] & ~data.escalated[:, t]
        lessons.append(_lesson(posterior.ok[:, t], first_draws(data, t) * rows))
    return tuple(lessons)


def spoken_of(data: Dataset) -> NDArray[np.bool_]:
    """Return the cells about which anything was said, (n, K)."""
    return np.asarray(~np.isnan(data.quality) | ~np.isnan(data.soft), np.bool_)


def first_draws(data: Dataset, t: int) -> F64:
    """Return the clipped inverse propensity of each row that tried tier t first, 1 elsewhere, (n,)."""
    p = data.propensity[:, t]
    # Numbers that are no probabilities of a draw say nothing about it.
    told = (data.action == t) & (p > 0) & (np.abs(np.nansum(data.propensity, axis=1) - 1.0) < 1e-3)
    return np.where(told, 1.0 / np.clip(np.where(told, p, 1.0), 1.0 / _MAX_WEIGHT, 1.0), 1.0)


def _refused(data: Dataset) -> NDArray[np.bool_]:
    """Return the answers, (n, K), that a rule refused and that are no outcomes, because refusals would be too many.

    They say nothing about how often their tier fails, but the next one ran because they had failed.
    """
    answered = ~np.isnan(data.output_tokens) | ~np.isnan(data.cost_usd)
    refused = np.zeros(data.quality.shape, np.bool_)
    refused[:, :-1] = (answered & ~spoken_of(data))[:, :-1] & data.escalated[:, 1:]
    return refused


def _lesson(target: F64, weight: F64) -> Lesson:
    rows = np.flatnonzero(weight > _LEAST_WEIGHT)
    return Lesson(rows, target[rows], weight[rows].astype(np.float64))
