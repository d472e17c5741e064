"""Learner `constant`: the tier's average, whatever the request. The baseline that everything has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.encoder import Design
from router_ml_training.learners.parts import LinearParts
from router_ml_training.learners.protocol import Fit
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["ConstantHead", "learn", "one_sided"]

F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ConstantHead:
    """The same logit for every request."""

    value: float

    def logit(self, design: Design) -> F64:
        """Return the constant, shape (n,)."""
        return np.full(len(design), self.value)

    def parts(self) -> LinearParts:
        """Return the constant."""
        return LinearParts(self.value)

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add a column of the constant, as long as the batch."""
        first = graph.add(
            "Slice",
            "dense",
            graph.constant(np.array([0], np.int64)),
            graph.constant(np.array([1], np.int64)),
            graph.constant(np.array([1], np.int64)),
        )
        # Not "first * 0": that would hand NaN through.
        shape = graph.add("Shape", first)
        return graph.add("Expand", graph.constant(np.array([[self.value]], np.float32)), shape)


def learn(fit: Fit) -> ConstantHead:
    """Return the weighted average as a logit, shrunk by one pseudo-observation of 0.5."""
    rate = (float(fit.target @ fit.weight) + 0.5) / (float(fit.weight.sum()) + 1.0)
    return ConstantHead(float(np.log(rate / (1.0 - rate))))


def one_sided(fit: Fit) -> bool:
    """Return whether all the weight is on one side: nothing but the constant can then be learned."""
    return float(fit.target @ fit.weight) <= 0 or float((1.0 - fit.target) @ fit.weight) <= 0
