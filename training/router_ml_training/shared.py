"""Linear heads of all tiers in one fit: what makes a request hard is mostly the same for every tier.

When each request was answered by one tier only, and which one was decided by the request, a tier's own rows say little
about the others' requests. Here every tier has the common coefficients and a deviation of its own that is shrunken far
more, so that what a word means for one tier is believed of another until its own rows object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from router_ml.features import N_BUCKETS, N_TEXT_BUCKETS
from router_ml_training.censored import Lesson
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Design
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.learners.encoding import TargetEncoding
from router_ml_training.learners.linear import LinearHead
from router_ml_training.learners.logistic import logistic
from router_ml_training.learners.protocol import Fit, Head

__all__ = ["fit_shared", "one_outcome_each"]

F64: TypeAlias = NDArray[np.float64]
F32: TypeAlias = NDArray[np.float32]

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


def fit_shared(design: Design, lessons: Sequence[Lesson], *, seed: int) -> tuple[Head, ...]:
    """Fit the heads of all tiers together.

    Args:
        design: Encoded rows.
        lessons: What each tier learns from, in the order of the ladder.
        seed: For the sample of a very long problem.

    Source: hierarchical shrinkage towards a common regression, as in Evgeniou and Pontil 2004, with the penalty on
    scaled copies of the columns.
    """
    rows = np.concatenate([one.rows for one in lessons])
    tier = np.repeat(np.arange(len(lessons)), [len(one.rows) for one in lessons])
    target, weight = (np.concatenate([getattr(one, name) for one in lessons]) for name in ("target", "weight"))
    levels = (np.eye(len(lessons))[tier] * _LEVEL_WEIGHT).astype(np.float32)
    # No bumps: where a tier was never asked they would bend its score as nothing there has shown. On MMLU-Pro, Gemini
    # Flash and Pro, a skewed log gave 0.59 APGR with them and 0.66 without.
    common = (design.words[rows], design.scaled[rows] * np.float32(_DENSE_WEIGHT))
    own = [_only(block, tier == t) for t in range(len(lessons)) for block in common]
    problem = Fit(design, target, weight, rows, seed)
    found = logistic((*common, *own, levels), problem, c=_C)
    if found is None:
        rate = (float(target @ weight) + 0.5) / (float(weight.sum()) + 1.0)
        return tuple(ConstantHead(float(np.log(rate / (1.0 - rate)))) for _ in lessons)
    coefficients, intercept = found
    *blocks, by_tier = coefficients
    heads: list[Head] = []
    for t in range(len(lessons)):
        words, dense = (blocks[i] + _DEVIATION * blocks[2 * (t + 1) + i] for i in range(2))
        level = intercept + _LEVEL_WEIGHT * float(by_tier[t])
        heads.append(_head(words, dense, design.curved.shape[1], level))
    return tuple(heads)


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


def _only(block: F32 | csr_array, mine: NDArray[np.bool_]) -> F32 | csr_array:
    """Return the block scaled on some of its rows and zero on the others."""
    if not isinstance(block, csr_array):
        return block * (mine * np.float32(_DEVIATION))[:, None]
    scale = np.repeat(mine, np.diff(block.indptr)) * np.float32(_DEVIATION)
    return csr_array((block.data * scale, block.indices, block.indptr), shape=block.shape)
