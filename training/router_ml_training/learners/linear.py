"""Learner `linear`: logistic regression on hashed words and word pairs, metadata and dense columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from router_ml_training.encoder import Design
from router_ml_training.learners import constant
from router_ml_training.learners.logistic import logistic
from router_ml_training.learners.protocol import Fit, Head
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["LinearHead", "learn"]

F64: TypeAlias = NDArray[np.float64]
F32: TypeAlias = NDArray[np.float32]

# Inverse regularisation. On training folds of three public tables 0.3 to 1 tie, 0.1 and 3 are worse.
_C = 0.5
# Dense columns are standardised, a text as a whole has length 1: this weighs the columns against the words.
_DENSE_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class LinearHead:
    """`words` (N_BUCKETS,) and `dense` (D,) are float32 coefficients."""

    words: F32
    dense: F32
    intercept: float

    def logit(self, design: Design) -> F64:
        """Return the linear score, shape (n,)."""
        scores: F64 = design.words @ self.words.astype(np.float64) + design.scaled @ self.dense.astype(np.float64)
        return scores + self.intercept

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add a look-up of the word coefficients, a product with the dense ones, and their sum."""
        gathered = graph.add("Gather", graph.constant(self.words), "ids")
        weighted = graph.add("Mul", gathered, graph.named("weights"))
        words = graph.add("ReduceSum", weighted, graph.constant(np.array([1], np.int64)), keepdims=1)
        dense = graph.add("MatMul", graph.named("scaled"), graph.constant(self.dense[:, None]))
        return graph.add("Add", graph.add("Add", words, dense), graph.scalar(self.intercept))


def learn(fit: Fit) -> Head:
    """Fit on words, metadata and dense columns together."""
    design = fit.design
    matrix = hstack((design.words, csr_array(design.scaled * np.float32(_DENSE_WEIGHT))), format="csr")
    found = logistic(matrix, fit, c=_C)
    if found is None:
        return constant.learn(fit)
    coefficients, intercept = found
    n_dense = design.scaled.shape[1]
    return LinearHead(
        coefficients[:-n_dense].astype(np.float32),
        (coefficients[-n_dense:] * _DENSE_WEIGHT).astype(np.float32),
        intercept,
    )
