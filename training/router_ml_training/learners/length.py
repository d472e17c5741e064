"""Learner `length`: logistic regression on the length of what is asked; the baseline that learned routers lose to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.features import DENSE_NAMES
from router_ml_training.encoder import Design
from router_ml_training.learners import constant
from router_ml_training.learners.logistic import logistic
from router_ml_training.learners.parts import LinearParts
from router_ml_training.learners.protocol import Fit, Head
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["LengthHead", "learn"]

F64: TypeAlias = NDArray[np.float64]

_COLUMN = DENSE_NAMES.index("text.log_chars")


@dataclass(frozen=True, slots=True)
class LengthHead:
    """A logit that is linear in the standardised log length."""

    slope: float
    intercept: float

    def logit(self, design: Design) -> F64:
        """Return the score, shape (n,)."""
        scores: F64 = self.intercept + self.slope * design.scaled[:, _COLUMN].astype(np.float64)
        return scores

    def parts(self) -> LinearParts:
        """Return the coefficient of the one column."""
        dense = np.zeros(len(DENSE_NAMES), np.float32)
        dense[_COLUMN] = self.slope
        return LinearParts(self.intercept, dense=dense)

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add the column times the slope, plus the intercept."""
        column = graph.add("Gather", graph.named("scaled"), graph.constant(np.array([_COLUMN], np.int64)), axis=1)
        return graph.add("Add", graph.add("Mul", column, graph.scalar(self.slope)), graph.scalar(self.intercept))


def learn(fit: Fit) -> Head:
    """Fit on the one column."""
    found = logistic((fit.design.scaled[:, [_COLUMN]],), fit, c=1.0)
    if found is None:
        return constant.learn(fit)
    ((slope,),), intercept = found
    return LengthHead(float(slope), intercept)
