"""Learner `ensemble`: a calibrated stack of the linear score, trees, neighbours and clusters.

Every member is cross-fitted before its weight is learned. Weights are never negative, and are pulled towards the
boosted linear score, so that members that add nothing stay out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from router_ml_training.encoder import Design
from router_ml_training.learners import cluster, gbdt, linear, neighbours
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.learners.protocol import Fit, Head
from router_ml_training.learners.trees import Trees
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.splits import group_folds

__all__ = ["StackedHead", "TreesHead", "learn", "stack_weights"]

F64: TypeAlias = NDArray[np.float64]

# Where the weights are pulled to (linear, trees, neighbours, cluster), and how many rows' evidence the pull is worth.
_PRIOR = np.array([1.0, 0.5, 0.0, 0.0])
_PRIOR_ROWS = 40.0
# A member whose weight is below this is left out of the graph: it would cost time and change nothing.
_NEGLIGIBLE = 0.02


@dataclass(frozen=True, slots=True)
class TreesHead:
    """The sum of boosted trees, without the score that they started from."""

    booster: Any  # lightgbm.Booster
    trees: Trees

    def logit(self, design: Design) -> F64:
        """Return the trees' sum, shape (n,), by LightGBM itself."""
        raw: F64 = self.booster.predict(design.dense, raw_score=True)
        return raw

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add one tree ensemble."""
        return self.trees.add_to_graph(graph)


@dataclass(frozen=True, slots=True)
class StackedHead:
    """A weighted sum of the members' logits and an intercept."""

    members: tuple[Head, ...]
    weights: tuple[float, ...]
    intercept: float

    @property
    def trees(self) -> tuple[Trees, ...]:
        """The tree ensembles among the members, for whoever looks at their thresholds."""
        return tuple(member.trees for member in self.members if isinstance(member, TreesHead))

    def logit(self, design: Design) -> F64:
        """Return the score, shape (n,)."""
        scores = np.full(len(design), self.intercept)
        for member, weight in zip(self.members, self.weights, strict=True):
            scores += weight * member.logit(design)
        return scores

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add every member, its weight, and the sum."""
        total = graph.scalar(self.intercept)
        for member, weight in zip(self.members, self.weights, strict=True):
            total = graph.add("Add", graph.add("Mul", member.add_to_graph(graph), graph.scalar(weight)), total)
        return total


def learn(fit: Fit) -> Head:
    """Cross-fit the members, learn their weights on unseen rows, and fit them again on all rows."""
    base = linear.learn(fit)
    if isinstance(base, ConstantHead) or gbdt.too_few(fit):
        return base
    fit = gbdt.bounded(fit)
    folds = group_folds(fit.group, gbdt.FOLDS, np.random.default_rng(fit.seed))
    start = gbdt.cross_fitted(fit, folds, linear.learn)
    trees, n_trees = _cross_fitted_trees(fit, folds, start)
    near = [gbdt.cross_fitted(fit, folds, member.learn) for member in (neighbours, cluster)]
    weights, intercept = stack_weights(np.stack((start, trees, *near), axis=1), fit)
    members = (
        base,
        TreesHead(*gbdt.grown(fit, start, n_trees=n_trees)),
        neighbours.learn(fit),
        cluster.learn(fit),
    )
    used = [i for i in range(len(members)) if weights[i] > _NEGLIGIBLE] or [0]
    return StackedHead(tuple(members[i] for i in used), tuple(float(weights[i]) for i in used), intercept)


def stack_weights(logits: F64, fit: Fit) -> tuple[F64, float]:
    """Return non-negative weights (4,) and the intercept of members' unseen logits (m, 4).

    Args:
        logits: Logits of the linear score, the trees, the neighbours and the clusters on rows they have not seen.
        fit: The rows' targets and weights.

    Source: Breiman 1996, stacked regressions: non-negative weights on cross-validated predictions.
    """
    n = logits.shape[1]

    def loss(parameters: F64) -> tuple[float, F64]:
        away = parameters[:n] - _PRIOR
        z = logits @ parameters[:n] + parameters[n]
        residual = fit.weight * (expit(z) - fit.target)
        value = float(fit.weight @ (np.logaddexp(0.0, z) - fit.target * z)) + _PRIOR_ROWS * float(away @ away) / 2.0
        return value, np.concatenate((logits.T @ residual + _PRIOR_ROWS * away, [residual.sum()]))

    bounds = [(0.0, None)] * n + [(None, None)]
    found = minimize(loss, np.append(_PRIOR, 0.0), jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:n], float(found[n])


def _cross_fitted_trees(fit: Fit, folds: NDArray[np.int64], start: F64) -> tuple[F64, int]:
    """Return what trees that have not seen a row add to its score, (m,), and how many trees are best."""
    added = np.zeros(len(fit))
    n_trees = 0
    for fold in range(gbdt.FOLDS):
        unseen = folds == fold
        part = fit.rows(~unseen)
        if fold == 0:
            grown = gbdt.boosted(part, start[~unseen], held_out=(fit.rows(unseen), start[unseen]))
            n_trees = gbdt.n_trees_of(grown)
        else:
            grown = gbdt.boosted(part, start[~unseen], n_trees=n_trees)
        added[unseen] = grown.booster.predict(fit.design.dense[unseen], raw_score=True, num_iteration=n_trees)
    return added, n_trees
