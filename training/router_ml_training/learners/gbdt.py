"""Learner `gbdt`: LightGBM on the dense columns, boosting what the linear head leaves unexplained.

The trees see only columns that reach the graph as inputs. A tree on a computed column (a projection of the words,
the linear score) could take the other branch when onnxruntime adds in another order; here it cannot. Their starting
point, the linear score, is cross-fitted, so that the trees do not learn from its training error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.encoder import Design
from router_ml_training.landmarks import sampled
from router_ml_training.learners import linear
from router_ml_training.learners.boosting import BoostingRows, Growth
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.learners.linear import LinearHead
from router_ml_training.learners.parts import LinearParts
from router_ml_training.learners.protocol import Fit, Head, Learner
from router_ml_training.learners.trees import TREE_PARAMETERS, Trees, read_trees
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.splits import group_folds

__all__ = ["FOLDS", "BoostedHead", "boosted", "bounded", "cross_fitted", "grown", "learn", "n_trees_of", "too_few"]

F64: TypeAlias = NDArray[np.float64]

FOLDS = 3
_MAX_ROWS = 200_000
_MAX_TREES = 200
_MIN_TREES = 5
_PARAMETERS: dict[str, Any] = {
    **TREE_PARAMETERS,
    "objective": "cross_entropy",  # the log loss, for targets in [0, 1]
    "learning_rate": 0.05,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.8,
}


@dataclass(frozen=True, slots=True)
class BoostedHead:
    """The linear score plus the sum of the trees."""

    base: LinearHead
    booster: Any  # lightgbm.Booster
    trees: Trees

    def logit(self, design: Design) -> F64:
        """Return the score, shape (n,), the trees summed by LightGBM itself."""
        raw: F64 = self.booster.predict(design.dense, raw_score=True)
        return self.base.logit(design) + raw

    def parts(self) -> LinearParts:
        """Return the linear head's parts, and the trees."""
        return replace(self.base.parts(), trees=self.trees)

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add the linear part, one tree ensemble, and their sum."""
        return graph.add("Add", self.base.add_to_graph(graph), self.trees.add_to_graph(graph))


def learn(fit: Fit) -> Head:
    """Fit the linear head, then trees on its cross-fitted score; their number is chosen on a held-out fold."""
    base = linear.learn(fit)
    if isinstance(base, ConstantHead) or too_few(fit):
        return base
    fit = bounded(fit)
    folds = group_folds(fit.group, FOLDS, np.random.default_rng(fit.seed))
    start = cross_fitted(fit, folds, linear.learn)
    seen = folds != 0
    trial = boosted(fit.rows(seen), start[seen], held_out=(fit.rows(~seen), start[~seen]))
    return BoostedHead(base, *grown(fit, start, n_trees=n_trees_of(trial)))


def bounded(fit: Fit) -> Fit:
    """Return the problem on at most 200,000 of its rows: cross-fitting more takes time and memory for nothing."""
    return fit if len(fit) <= _MAX_ROWS else fit.rows(sampled(len(fit), _MAX_ROWS, seed=fit.seed))


def too_few(fit: Fit) -> bool:
    """Return whether trees would have too little to choose from."""
    return len(fit) < 4 * _PARAMETERS["min_data_in_leaf"] or len(np.unique(fit.group)) < FOLDS


def cross_fitted(fit: Fit, folds: NDArray[np.int64], learner: Learner) -> F64:
    """Return the logits that every row gets from a head that has not seen its fold, (m,)."""
    logits = np.zeros(len(fit))
    for fold in range(FOLDS):
        unseen = folds == fold
        logits[unseen] = learner(fit.rows(~unseen)).logit(fit.design.rows(unseen))
    return logits


def boosted(fit: Fit, start: F64, *, held_out: tuple[Fit, F64] | None = None, n_trees: int = _MAX_TREES) -> Growth:
    """Boost trees from a starting score; with held-out rows, stop when they no longer gain.

    Args:
        fit: Rows to learn from.
        start: Their starting score, (m,).
        held_out: Rows and starting score that decide when to stop.
        n_trees: How many trees at most.
    """
    parameters = {**_PARAMETERS, "seed": fit.seed, "num_threads": fit.num_threads}
    return fit.grow(parameters, _rows(fit, start), n_trees, None if held_out is None else _rows(*held_out))


def _rows(fit: Fit, start: F64) -> BoostingRows:
    return BoostingRows(fit.design.dense, fit.target, fit.weight, start)


def n_trees_of(trial: Growth) -> int:
    """Return the number of trees at which a trial did best, at least a few."""
    return max(trial.n_best, _MIN_TREES)


def grown(fit: Fit, start: F64, *, n_trees: int) -> tuple[Any, Trees]:
    """Return the booster of that many trees on all rows, and its trees for the graph."""
    booster = boosted(fit, start, n_trees=n_trees).booster
    return booster, read_trees(booster.dump_model())
