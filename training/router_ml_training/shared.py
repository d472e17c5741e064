"""Linear heads of all tiers in one fit: what makes a request hard is mostly the same for every tier.

When each request was answered by one tier only, and which one was decided by the request, a tier's own rows say little
about the others' requests. Here every tier has the common coefficients and a deviation of its own that is shrunken far
more, so that what a word means for one tier is believed of another until its own rows object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.features import N_BUCKETS, N_TEXT_BUCKETS
from router_ml_training.censored import Lesson
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Design
from router_ml_training.landmarks import sampled
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.learners.encoding import TargetEncoding
from router_ml_training.learners.linear import LinearHead
from router_ml_training.learners.logistic import MAX_ROWS, one_sided
from router_ml_training.learners.newton import ROUGHLY, TOLERANCE, Blocks, Loss, minimise
from router_ml_training.learners.protocol import Head

__all__ = ["fit_shared", "one_outcome_each"]

F64: TypeAlias = NDArray[np.float64]

# As the learner `linear` has them.
_C, _DENSE_WEIGHT = 0.5, 0.1
# Deviations vary by this share of the common coefficients. On four pairs of MMLU-Pro with simulated skewed logs, one
# seed each, 0.2 and 0.8 are within noise of each other; no deviations, and heads apart, are worse.
_DEVIATION = 0.2
# Each tier's level is all but free.
_LEVEL_WEIGHT = 3.0
_MOSTLY = 0.8


def one_outcome_each(data: Dataset) -> bool:
    """Return whether most requests with an outcome have the outcome of one tier only."""
    seen = (~np.isnan(data.quality)).sum(axis=1)
    return bool((seen == 1).sum() >= _MOSTLY * max((seen > 0).sum(), 1))


@dataclass(frozen=True, slots=True)
class _Tiers:
    """Columns of all tiers: common ones, and a copy of them for each tier, scaled column by column by `deviation` (p,).

    `rows` holds each tier's rows. A copy is zero on the other tiers' rows, so none is written down: a tier's score is
    that of the common coefficients plus its own deviation.
    """

    rows: tuple[Blocks, ...]
    deviation: F64

    @property
    def width(self) -> int:
        """How many columns there are, those of the copies included."""
        return (len(self.rows) + 1) * self.rows[0].width

    def forward(self, coefficients: F64) -> F64:
        """Return the scores of coefficients (p,), (m,)."""
        return np.concatenate([one.forward(c) for one, c in zip(self.rows, self.by_tier(coefficients), strict=True)])

    def back(self, rows: F64) -> F64:
        """Return the sum of each column weighted by row, (p,), from weights (m,)."""
        own = [one.back(part) for one, part in zip(self.rows, self._parts(rows), strict=True)]
        return np.concatenate((np.sum(own, axis=0), *(self.deviation * one for one in own)))

    def by_tier(self, coefficients: F64) -> F64:
        """Return each tier's own coefficients, (K, p)."""
        common, *own = coefficients.reshape(len(self.rows) + 1, -1)
        return common + self.deviation * np.stack(own)

    def start(self, by_tier: Sequence[F64]) -> F64:
        """Return the coefficients (p,) of the smallest penalty that give each tier these ones of its own, (p,) each."""
        total = np.stack(by_tier)
        common = total.sum(axis=0) / (self.deviation**2 + len(total))
        return np.concatenate((common, *((total - common) / self.deviation)))

    def _parts(self, rows: F64) -> list[F64]:
        return np.split(rows, np.cumsum([block.height for block in self.rows])[:-1])


def fit_shared(
    design: Design,
    lessons: Sequence[Lesson],
    *,
    seed: int,
    after: Sequence[Head] = (),
    roughly: bool = False,
) -> tuple[Head, ...]:
    """Fit the heads of all tiers together.

    Args:
        design: Encoded rows.
        lessons: What each tier learns from, in the order of the ladder.
        seed: For the sample of a very long problem.
        after: Heads that were fitted on much the same, to start from. Where the search ends does not depend on it.
        roughly: The heads are only what the next ones start from.

    Source: hierarchical shrinkage towards a common regression, as in Evgeniou and Pontil 2004, with the penalty on
    scaled copies of the columns.
    """
    rows = np.concatenate([one.rows for one in lessons])
    tier = np.repeat(np.arange(len(lessons)), [len(one.rows) for one in lessons])
    target, weight = (np.concatenate([getattr(one, name) for one in lessons]) for name in ("target", "weight"))
    chosen = sampled(len(rows), MAX_ROWS, seed=seed)
    rows, tier, target, weight = rows[chosen], tier[chosen], target[chosen], weight[chosen]
    if one_sided(target, weight):
        rate = (float(target @ weight) + 0.5) / (float(weight.sum()) + 1.0)
        return tuple(ConstantHead(float(np.log(rate / (1.0 - rate)))) for _ in lessons)
    # No bumps: where a tier was never asked they would bend its score as nothing there has shown. On MMLU-Pro, Gemini
    # Flash and Pro, a skewed log gave 0.59 APGR with them and 0.66 without.
    level = np.ones((len(rows), 1))
    whole = Blocks.of((design.words[rows], design.scaled[rows] * np.float32(_DENSE_WEIGHT), level))
    deviation = np.full(whole.width, _DEVIATION)
    deviation[-1] = _LEVEL_WEIGHT
    columns = _Tiers(tuple(whole.rows(tier == t) for t in range(len(lessons))), deviation)
    linear = [one for one in after if isinstance(one, LinearHead)]
    start = columns.start([_coefficients(whole, one) for one in linear]) if len(linear) == len(lessons) else None
    found = minimise(Loss(columns, target, _C * weight), start, tolerance=ROUGHLY if roughly else TOLERANCE)
    heads: list[Head] = []
    for one in columns.by_tier(found):
        words, dense, (intercept,) = whole.apart(one)
        heads.append(_head(words, dense, design.curved.shape[1], float(intercept)))
    return tuple(heads)


def _coefficients(columns: Blocks, head: LinearHead) -> F64:
    dense = head.dense.astype(np.float64) / _DENSE_WEIGHT
    return columns.joined((head.words.astype(np.float64), dense, np.array([head.intercept])))


def _head(words: F64, dense: F64, n_bumps: int, intercept: float) -> LinearHead:
    nothing = TargetEncoding(np.zeros(N_BUCKETS - N_TEXT_BUCKETS, np.float32))
    return LinearHead(
        words.astype(np.float32),
        (dense * _DENSE_WEIGHT).astype(np.float32),
        np.zeros(n_bumps, np.float32),
        nothing,
        0.0,
        intercept,
    )
