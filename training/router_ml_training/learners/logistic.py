"""Logistic regression on graded targets: a row with target q counts q times as a success and 1 - q as a failure."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from router_ml_training.landmarks import sampled
from router_ml_training.learners.newton import Blocks, Loss, minimise
from router_ml_training.learners.protocol import Fit

__all__ = ["MAX_ROWS", "logistic", "one_sided"]

F64: TypeAlias = NDArray[np.float64]

# Longer problems are sampled, so that time is bounded: what more rows would still teach is less than the ridge hides.
MAX_ROWS = 100_000


def logistic(blocks: tuple[NDArray[Any] | csr_array, ...], fit: Fit, *, c: float) -> tuple[list[F64], float] | None:
    """Fit coefficients and an intercept, which the ridge shrinks like any coefficient.

    Args:
        blocks: Columns of the design, each block (m, p_b), dense or sparse; at most one is sparse.
        fit: Targets in [0, 1], weights and seed.
        c: Inverse strength of the ridge penalty.

    Returns:
        Coefficients (p_b,) of each block and the intercept; None when all the weight is on one side.
    """
    chosen = sampled(len(fit), MAX_ROWS, seed=fit.seed)
    target, weight = fit.target[chosen], fit.weight[chosen]
    if one_sided(target, weight):
        return None
    taken = blocks if len(chosen) == len(fit) else tuple(block[chosen] for block in blocks)
    columns = Blocks.of((*taken, np.ones((len(chosen), 1))))
    *coefficients, intercept = columns.apart(minimise(Loss(columns, target, c * weight)))
    return coefficients, float(intercept[0])


def one_sided(target: F64, weight: F64) -> bool:
    """Return whether rows hold successes only or failures only: there is nothing to tell apart."""
    return bool(target @ weight <= 0 or (1.0 - target) @ weight <= 0)
