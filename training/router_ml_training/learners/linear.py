"""Learner `linear`: logistic regression on hashed words and word pairs, metadata, dense columns and bumps over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.encoder import Design
from router_ml_training.learners import constant
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.learners.encoding import TargetEncoding, encode_targets
from router_ml_training.learners.logistic import logistic
from router_ml_training.learners.parts import LinearParts
from router_ml_training.learners.protocol import Fit
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["LinearHead", "learn"]

F64: TypeAlias = NDArray[np.float64]
F32: TypeAlias = NDArray[np.float32]

# Inverse regularisation. On training folds of three public tables 0.3 to 1 tie, 0.1 and 3 are worse.
_C = 0.5
# Dense columns are standardised, a text as a whole has length 1: this weighs the columns against the words.
_DENSE_WEIGHT = 0.1
# The encoded targets vary by a tenth or so: enough weight that the ridge does not stand in their way.
_ENCODING_WEIGHT = 4.0


@dataclass(frozen=True, slots=True)
class LinearHead:
    """Coefficients, float32: `words` (N_BUCKETS,), `dense` (D,), `curved` (R,); `history` multiplies the encoding."""

    words: F32
    dense: F32
    curved: F32
    encoding: TargetEncoding
    history: float
    intercept: float

    def logit(self, design: Design) -> F64:
        """Return the linear score, shape (n,)."""
        scores: F64 = design.words @ self.words.astype(np.float64) + design.scaled @ self.dense.astype(np.float64)
        scores = scores + design.curved @ self.curved.astype(np.float64)
        return scores + self.history * self.encoding.column(design.words) + self.intercept

    def parts(self) -> LinearParts:
        """Return the coefficients; the encoding's with its own multiplied in."""
        history = self.encoding.table * np.float32(self.history)
        return LinearParts(self.intercept, self.words, self.dense, self.curved, history)

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add a look-up of the word coefficients, products with the others, and their sum."""
        gathered = graph.add("Gather", graph.constant(self.words), "ids")
        weighted = graph.add("Mul", gathered, graph.named("weights"))
        total = graph.add("ReduceSum", weighted, graph.constant(np.array([1], np.int64)), keepdims=1)
        parts = [graph.add("MatMul", graph.named("scaled"), graph.constant(self.dense[:, None]))]
        if len(self.curved):
            parts.append(graph.add("MatMul", graph.named("curved"), graph.constant(self.curved[:, None])))
        if self.encoding.table.any():
            parts.append(graph.add("Mul", self.encoding.draw(graph), graph.scalar(self.history)))
        for part in parts:
            total = graph.add("Add", total, part)
        return graph.add("Add", total, graph.scalar(self.intercept))


def learn(fit: Fit) -> LinearHead | ConstantHead:
    """Fit on words, metadata, dense columns, bumps and encoded targets together."""
    design = fit.design
    encoding, history = encode_targets(fit)
    blocks = (
        design.words,
        design.scaled * np.float32(_DENSE_WEIGHT),
        design.curved,
        (history * _ENCODING_WEIGHT)[:, None],
    )
    found = logistic(blocks, fit, c=_C)
    if found is None:
        return constant.learn(fit)
    (words, dense, curved, (slope,)), intercept = found
    return LinearHead(
        words.astype(np.float32),
        (dense * _DENSE_WEIGHT).astype(np.float32),
        curved.astype(np.float32),
        encoding,
        float(slope) * _ENCODING_WEIGHT,
        intercept,
    )
