"""How long the answer will be: expected tokens per tier, before the call.

Two candidates per tier: ridge regression of the logarithm on the standardised columns, and boosted trees for the mean
itself. The trees are kept where they beat the ridge on held-out rows by more than a standard error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.registry import require
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Design, Encoder
from router_ml_training.evaluation.compare import standard_error
from router_ml_training.landmarks import sampled
from router_ml_training.learners.trees import TREE_PARAMETERS, Trees, draw_trees, read_trees
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.splits import group_folds

__all__ = ["Grown", "TokenModel", "cross_fit_tokens", "fit_tokens"]

F64: TypeAlias = NDArray[np.float64]
F32: TypeAlias = NDArray[np.float32]
I64: TypeAlias = NDArray[np.int64]

_MAX_TOKENS = 16_384.0
_DEFAULT_TOKENS = 300.0
_RIDGE = 10.0
_FOLDS = 3
# More rows take time and hardly change an expected length.
_MAX_ROWS = 20_000
_TREES = 150
_PARAMETERS: dict[str, Any] = {
    **TREE_PARAMETERS,
    "objective": "gamma",  # the logarithm of the mean, errors in proportion to it
    "learning_rate": 0.05,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
}


@dataclass(frozen=True, slots=True)
class Grown:
    """The trees of one tier: as LightGBM sums them, and for the graph."""

    booster: Any  # lightgbm.Booster
    trees: Trees

    def predict(self, design: Design) -> F64:
        """Return what is added to the logarithm, shape (n,)."""
        raw: F64 = self.booster.predict(design.dense, raw_score=True)
        return raw


@dataclass(frozen=True, slots=True)
class TokenModel:
    """Expected answer tokens per tier: exp(linear in the standardised columns + trees).

    `weights` (D, K) and `intercept` (K,) are float32. `grown` are the trees by tier; such a tier has no weights.
    """

    weights: F32
    intercept: F32
    grown: tuple[Grown | None, ...] = ()

    def predict(self, design: Design) -> F64:
        """Return expected tokens, shape (n, K)."""
        log: F64 = design.scaled.astype(np.float64) @ self.weights + self.intercept
        for t, one in enumerate(self.grown):
            if one is not None and len(design):
                log[:, t] += one.predict(design)
        return np.minimum(np.exp(log), _MAX_TOKENS)

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add one product, the trees of the tiers that have some, and the exponential; return the tensor (n, K)."""
        log = graph.add("Gemm", graph.named("scaled"), graph.constant(self.weights), graph.constant(self.intercept))
        if any(one is not None for one in self.grown):
            trees = draw_trees(graph, [None if one is None else one.trees for one in self.grown])
            log = graph.add("Add", log, trees)
        return graph.add("Min", graph.add("Exp", log), graph.scalar(_MAX_TOKENS))


def fit_tokens(train: Dataset, encoder: Encoder, *, seed: int = 0, num_threads: int = 1) -> TokenModel:
    """Fit answer lengths per tier; a tier that was never seen gets the overall average.

    Args:
        train: Rows to learn from.
        encoder: Fitted on the same rows.
        seed: For folds and trees.
        num_threads: Threads the trees may use.
    """
    return cross_fit_tokens(train, encoder, seed=seed, num_threads=num_threads)[0]


def cross_fit_tokens(
    train: Dataset, encoder: Encoder, *, seed: int = 0, num_threads: int = 1
) -> tuple[TokenModel, F64]:
    """Fit the same, and say how long the answers of the rows learned from were expected to be by who had not seen them.

    Args:
        train: Rows to learn from.
        encoder: Fitted on the same rows.
        seed: For folds and trees.
        num_threads: Threads the trees may use.

    Returns:
        The model, and held-out expected tokens, (n, K); beyond 20,000 rows, or where a length is unknown, the model's.
    """
    design = encoder.encode(train)
    seen = train.output_tokens[~np.isnan(train.output_tokens)]
    default = float(np.log(max(seen.mean(), 1.0))) if len(seen) else float(np.log(_DEFAULT_TOKENS))
    n_columns, n_tiers = design.scaled.shape[1], len(train.tiers)
    weights, intercept = np.zeros((n_columns, n_tiers)), np.full(n_tiers, default)
    grown: list[Grown | None] = [None] * n_tiers
    unseen: list[tuple[I64, F64]] = []
    for t in range(n_tiers):
        rows = np.flatnonzero(~np.isnan(train.output_tokens[:, t]))
        if len(rows) < 2 * n_columns:
            if len(rows):
                intercept[t] = np.log(max(train.output_tokens[rows, t].mean(), 1.0))
            unseen.append((rows[:0], np.zeros(0)))
            continue
        rows = rows[sampled(len(rows), _MAX_ROWS, seed=seed)]
        work = _Work(design.rows(rows), train.output_tokens[rows, t], train.group[rows], seed + t, num_threads)
        trees, held_out = work.chosen()
        unseen.append((rows, held_out))
        if trees:
            intercept[t], grown[t] = work.trees(np.arange(len(rows)))
        else:
            weights[:, t], intercept[t] = work.ridge(np.arange(len(rows)))
    model = TokenModel(weights.astype(np.float32), intercept.astype(np.float32), tuple(grown))
    lengths = model.predict(design)
    for t, (rows, held_out) in enumerate(unseen):
        lengths[rows, t] = held_out
    return model, lengths


@dataclass(frozen=True, slots=True)
class _Work:
    """The answers of one tier: their requests, their lengths in tokens, (n,)."""

    design: Design
    tokens: F64
    group: I64
    seed: int
    num_threads: int

    def chosen(self) -> tuple[bool, F64]:
        """Return whether trees are worth having, and held-out expected tokens of what is kept, (n,)."""
        fold = group_folds(self.group, _FOLDS, np.random.default_rng(self.seed))
        linear, boosted = np.zeros(len(fold)), np.zeros(len(fold))
        for number in np.unique(fold):
            held, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            if not len(rest):
                rest = held
            part = self.design.rows(held)
            weights, intercept = self.ridge(rest)
            linear[held] = np.minimum(np.exp(part.scaled.astype(np.float64) @ weights + intercept), _MAX_TOKENS)
            start, grown = self.trees(rest)
            boosted[held] = np.minimum(np.exp(start + grown.predict(part)), _MAX_TOKENS)
        saved = _deviance(self.tokens, linear) - _deviance(self.tokens, boosted)
        better = float(saved.mean()) > float(standard_error(saved, self.group))
        return better, boosted if better else linear

    def ridge(self, rows: I64) -> tuple[F64, float]:
        """Return weights (D,) and intercept of the logarithm, which holds the smearing factor.

        Source of the factor: Duan 1983, the mean of exp(residual).
        """
        x, y = self.design.scaled[rows].astype(np.float64), np.log1p(self.tokens[rows])
        centre = x.mean(axis=0)
        gram = (x - centre).T @ (x - centre) + _RIDGE * np.eye(x.shape[1])
        weights: F64 = np.linalg.solve(gram, (x - centre).T @ (y - y.mean()))
        residual = y - y.mean() - (x - centre) @ weights
        return weights, float(y.mean() - centre @ weights + np.log(np.mean(np.exp(residual))))

    def trees(self, rows: I64) -> tuple[float, Grown]:
        """Return the logarithm of the mean length, and the trees that are added to it."""
        lightgbm = require("lightgbm", extra="training", why="learn how long answers are")
        target = np.maximum(self.tokens[rows], 1.0)
        start = float(np.log(target.mean()))
        # Of length 1 on average, so that the trees start where the mean is.
        data = lightgbm.Dataset(self.design.dense[rows], target / target.mean(), free_raw_data=True)
        parameters = {**_PARAMETERS, "seed": self.seed, "num_threads": self.num_threads}
        booster = lightgbm.train(parameters, data, _TREES)
        return start, Grown(booster, read_trees(booster.dump_model()))


def _deviance(tokens: F64, expected: F64) -> F64:
    """Return the gamma deviance of each row: errors in proportion, as costs are compared."""
    ratio = np.maximum(tokens, 1.0) / np.maximum(expected, 1.0)
    deviance: F64 = ratio - 1.0 - np.log(ratio)
    return deviance
