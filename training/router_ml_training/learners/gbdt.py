"""Learner `gbdt`: LightGBM on the dense columns, boosting what the linear head leaves unexplained.

The trees see only columns that reach the graph as inputs. A tree on a computed column (a projection of the words,
the linear score) could take the other branch when onnxruntime adds in another order; here it cannot. Their starting
point, the linear score, is cross-fitted, so that the trees do not learn from its training error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.registry import require
from router_ml_training.encoder import Design
from router_ml_training.learners import linear
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.learners.protocol import Fit, Head
from router_ml_training.learners.trees import Trees, read_trees
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.splits import group_folds

__all__ = ["BoostedHead", "learn"]

F64: TypeAlias = NDArray[np.float64]

_FOLDS = 4
_MAX_TREES = 200
_MIN_TREES = 5
_PATIENCE = 25
_PARAMETERS: dict[str, Any] = {
    "objective": "cross_entropy",  # the log loss, for targets in [0, 1]
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 40,
    "lambda_l2": 5.0,
    "feature_fraction": 0.8,
    "boost_from_average": False,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True, slots=True)
class BoostedHead:
    """The linear score plus the sum of the trees."""

    base: Head
    booster: Any  # lightgbm.Booster
    trees: Trees

    def logit(self, design: Design) -> F64:
        """Return the score, shape (n,), the trees summed by LightGBM itself."""
        raw: F64 = self.booster.predict(design.dense, raw_score=True)
        return self.base.logit(design) + raw

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add the linear part, one tree ensemble, and their sum."""
        return graph.add("Add", self.base.add_to_graph(graph), self.trees.add_to_graph(graph))


def learn(fit: Fit) -> Head:
    """Fit the linear head, then trees on its cross-fitted score; their number is chosen on a held-out fold."""
    base = linear.learn(fit)
    too_few = len(fit.target) < 4 * _PARAMETERS["min_data_in_leaf"] or len(np.unique(fit.group)) < _FOLDS
    if isinstance(base, ConstantHead) or too_few:
        return base
    folds = group_folds(fit.group, _FOLDS, np.random.default_rng(fit.seed))
    start = _cross_fitted(fit, folds)
    lightgbm = require("lightgbm", extra="training", why="train the learner 'gbdt'")
    parameters = {**_PARAMETERS, "seed": fit.seed, "num_threads": fit.num_threads}

    def rows(mask: NDArray[np.bool_]) -> Any:
        return lightgbm.Dataset(
            fit.design.dense[mask],
            fit.target[mask],
            weight=fit.weight[mask],
            init_score=start[mask],
            free_raw_data=False,
        )

    held_out = folds == 0
    history: dict[str, Any] = {}
    stop = [lightgbm.early_stopping(_PATIENCE, verbose=False), lightgbm.record_evaluation(history)]
    trial = lightgbm.train(parameters, rows(~held_out), _MAX_TREES, valid_sets=[rows(held_out)], callbacks=stop)
    n_trees = max(trial.best_iteration, _MIN_TREES)
    booster = lightgbm.train(parameters, rows(np.ones(len(folds), np.bool_)), n_trees)
    return BoostedHead(base, booster, read_trees(booster.dump_model()))


def _cross_fitted(fit: Fit, folds: NDArray[np.int64]) -> F64:
    start = np.zeros(len(fit.target))
    for fold in range(_FOLDS):
        seen = folds != fold
        part = Fit(
            fit.design.rows(seen), fit.target[seen], fit.weight[seen], fit.group[seen], fit.seed, fit.num_threads
        )
        start[~seen] = linear.learn(part).logit(fit.design.rows(~seen))
    return start
