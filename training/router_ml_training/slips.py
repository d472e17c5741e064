"""How often a dearer tier fails although the cheaper one does not, as a function of the request.

A log of chains never shows it: the dearer tier was not asked. But it is not free to be anything: where the cheaper
tier often fails, and where the dearer one fails on what the cheaper one failed, it fails more often here too. That law
has three numbers. They start from public tables and are fitted as soon as audited rows, on which both ran, say more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["PUBLIC_SLIP", "SlipLaw", "fit_slip"]

F64: TypeAlias = NDArray[np.float64]

# Beyond these a probability in float32 no longer has a logit that two implementations agree on.
_LOWEST, _HIGHEST = 0.005, 0.995
# Standard deviations of the prior: somewhat wider than the three numbers were over the nine pairs of MMLU-Pro.
_SPREAD = np.array([0.7, 0.5, 0.5])


@dataclass(frozen=True, slots=True)
class SlipLaw:
    """logit P(slip) = intercept + by_dearer * logit(1 - rise) + by_cheaper * logit(1 - cheaper).

    `rise` is P(dearer adequate given that the cheaper failed), `cheaper` is P(cheaper adequate). The two slopes are
    never negative: what is hard for others is not easy here.
    """

    intercept: float
    by_dearer: float
    by_cheaper: float

    def probability(self, cheaper: F64, rise: F64) -> F64:
        """Return P(dearer fails given that the cheaper is adequate), shape (n,)."""
        p: F64 = expit(_columns(cheaper, rise) @ np.array([self.intercept, self.by_dearer, self.by_cheaper]))
        return p

    def add_to_graph(self, graph: GraphBuilder, cheaper: str, rise: str) -> str:
        """Add the law over two probability tensors (n, 1) and return the tensor of slips."""
        terms = [
            graph.add("Mul", _draw_failure_logit(graph, p), graph.scalar(slope))
            for p, slope in ((rise, self.by_dearer), (cheaper, self.by_cheaper))
        ]
        return graph.add("Sigmoid", graph.add("Add", graph.add("Add", *terms), graph.scalar(self.intercept)))


# One regression over twelve pairs of models, every pair with the same weight: nine of MMLU-Pro, RouteLLM's GSM8K and
# two of ZeroEval's GSM8K, predictors cross-fitted on what a cascade log shows. RouteLLM's MMLU had no part in it,
# because benchmarks/quality/censored.py measures there. MMLU-Pro alone gives -1.84, 1.00, 0.82.
PUBLIC_SLIP = SlipLaw(-1.73, 0.66, 0.73)


def fit_slip(cheaper: F64, rise: F64, failed: F64, weight: F64) -> SlipLaw:
    """Fit the law on rows whose dearer tier ran whatever the cheaper one did; without any it is the public one.

    Args:
        cheaper: P(cheaper adequate) of models that had not seen the row, (m,).
        rise: P(dearer adequate given that the cheaper failed), likewise, (m,).
        failed: Whether the dearer tier failed, or how badly, in [0, 1], (m,).
        weight: How surely the cheaper tier was adequate, in [0, 1], (m,).

    Source: logistic regression, maximum a posteriori; the prior is normal around the public law.
    """
    x = _columns(cheaper, rise)
    centre = np.array([PUBLIC_SLIP.intercept, PUBLIC_SLIP.by_dearer, PUBLIC_SLIP.by_cheaper])

    def loss(law: F64) -> tuple[float, F64]:
        z = x @ law
        away = (law - centre) / _SPREAD
        value = float(weight @ (np.logaddexp(0.0, z) - failed * z)) + float(away @ away) / 2.0
        return value, x.T @ (weight * (expit(z) - failed)) + away / _SPREAD

    bounds = [(None, None), (0.0, None), (0.0, None)]
    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds)
    return SlipLaw(*(float(value) for value in found.x))


def _columns(cheaper: F64, rise: F64) -> F64:
    return np.stack([np.ones(len(rise)), _failure_logit(rise), _failure_logit(cheaper)], axis=1)


def _failure_logit(p: F64) -> F64:
    q = np.clip(p, _LOWEST, _HIGHEST)
    logit: F64 = np.log((1.0 - q) / q)
    return logit


def _draw_failure_logit(graph: GraphBuilder, p: str) -> str:
    low, high = (graph.constant(np.array(bound, np.float32)) for bound in (_LOWEST, _HIGHEST))
    q = graph.add("Clip", p, low, high)
    return graph.add("Log", graph.add("Div", graph.add("Sub", graph.scalar(1.0), q), q))
