"""Logistic regression on graded targets: a row with target q counts q times as a success and 1 - q as a failure."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix
from sklearn.linear_model import LogisticRegression

from router_ml_training.landmarks import sampled
from router_ml_training.learners.protocol import Fit

__all__ = ["logistic"]

F64: TypeAlias = NDArray[np.float64]

_MAX_ITERATIONS = 200
# Longer problems are sampled, so that time is bounded: what more rows would still teach is less than the ridge hides.
_MAX_ROWS = 100_000


def logistic(blocks: tuple[NDArray[Any] | csr_array, ...], fit: Fit, *, c: float) -> tuple[list[F64], float] | None:
    """Fit coefficients and an intercept.

    Args:
        blocks: Columns of the design, each block (m, p_b), dense or sparse.
        fit: Targets in [0, 1], weights and seed.
        c: Inverse strength of the ridge penalty.

    Returns:
        Coefficients (p_b,) of each block and the intercept; None when all the weight is on one side.
    """
    chosen = sampled(len(fit), _MAX_ROWS, seed=fit.seed)
    target, weight = fit.target[chosen], fit.weight[chosen]
    success, failure = target * weight, (1.0 - target) * weight
    if success.sum() <= 0 or failure.sum() <= 0:
        return None
    positive, negative = success > 0, failure > 0
    taken = blocks if len(chosen) == len(fit) else tuple(block[chosen] for block in blocks)
    rows = _stacked(_joined(taken), positive, negative)
    labels = np.concatenate((np.ones(positive.sum()), np.zeros(negative.sum())))
    weights = np.concatenate((success[positive], failure[negative]))
    # liblinear is the fastest of scikit-learn's solvers on sparse rows at this size, and repeatable by seed.
    model = LogisticRegression(C=c, solver="liblinear", max_iter=_MAX_ITERATIONS, random_state=fit.seed)
    model.fit(rows, labels, sample_weight=weights)
    ends = np.cumsum([block.shape[1] for block in blocks])[:-1]
    return np.split(np.asarray(model.coef_[0], np.float64), ends), float(model.intercept_[0])


def _joined(blocks: tuple[NDArray[Any] | csr_array, ...]) -> NDArray[Any] | csr_array:
    dense = [block for block in blocks if not isinstance(block, csr_array)]
    if len(dense) == len(blocks):
        return np.hstack(dense)
    return _side_by_side([csr_array(block) for block in blocks])


def _side_by_side(parts: list[csr_array]) -> csr_array:
    # As scipy's hstack, which writes down the row of every value on the way: gigabytes, where rows are many.
    lengths = [np.diff(part.indptr) for part in parts]
    ends = np.concatenate(([0], np.cumsum(sum(lengths)))).astype(np.int64)
    # liblinear takes 64-bit values and 32-bit indices only.
    values, columns = np.empty(ends[-1]), np.empty(ends[-1], np.int32)
    first_free, width = ends[:-1].copy(), 0
    for part, length in zip(parts, lengths, strict=True):
        place = np.repeat(first_free - part.indptr[:-1], length)
        place += np.arange(part.nnz)
        values[place], columns[place] = part.data, part.indices + width
        first_free += length
        width += part.shape[1]
    return csr_array((values, columns, ends.astype(np.int32)), shape=(len(ends) - 1, width))


def _stacked(matrix: NDArray[Any] | csr_array, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Any:
    order = np.concatenate((np.flatnonzero(first), np.flatnonzero(second)))
    return csr_matrix(matrix[order]) if isinstance(matrix, csr_array) else matrix[order]
