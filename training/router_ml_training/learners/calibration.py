"""Platt scaling: two numbers that turn a logit into a probability that can be trusted.

They are appended to the graph as one product, one sum and one sigmoid; public converters of calibrated trees were
measured to be wrong without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["Platt", "fit_platt"]

F64: TypeAlias = NDArray[np.float64]

# The identity (slope 1, shift 0) counts as much as this many observations, so that 30 rows cannot overturn it.
_PRIOR_ROWS = 10.0


@dataclass(frozen=True, slots=True)
class Platt:
    """P = sigmoid(slope * logit + shift); the slope is never negative, so ranks are kept."""

    slope: float
    shift: float

    def probability(self, logit: F64) -> F64:
        """Return calibrated probabilities, shape (n,)."""
        p: F64 = expit(self.slope * logit + self.shift)
        return p

    def add_to_graph(self, graph: GraphBuilder, logit: str) -> str:
        """Add the calibration of a logit tensor (n, 1) and return the probability tensor."""
        scaled = graph.add("Add", graph.add("Mul", logit, graph.scalar(self.slope)), graph.scalar(self.shift))
        return graph.add("Sigmoid", scaled)


def fit_platt(logit: F64, target: F64, weight: F64 | None = None) -> Platt:
    """Fit slope and shift on held-out rows.

    Args:
        logit: Uncalibrated scores, shape (m,).
        target: Outcomes in [0, 1], shape (m,).
        weight: How much each row counts, shape (m,); None: once.

    Source: Platt 1999; here with a Gaussian prior at the identity instead of his smoothed targets.
    """
    if len(logit) == 0:
        return Platt(1.0, 0.0)
    counts = np.ones(len(logit)) if weight is None else weight

    def loss(parameters: F64) -> tuple[float, F64]:
        slope, shift = parameters
        z = slope * logit + shift
        residual = counts * (expit(z) - target)
        prior = _PRIOR_ROWS * ((slope - 1.0) ** 2 + shift**2) / 2.0
        value = float(counts @ (np.logaddexp(0.0, z) - target * z)) + prior
        gradient = np.array([residual @ logit, residual.sum()]) + _PRIOR_ROWS * np.array([slope - 1.0, shift])
        return value, gradient

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return Platt(float(found.x[0]), float(found.x[1]))
