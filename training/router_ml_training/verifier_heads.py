"""The parts of the verifier: ridge logistic regression with a prior, and the head that judges the answers of a tier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from router_ml.registry import require
from router_ml_training.learners.trees import TREE_PARAMETERS, Trees, read_trees
from router_ml_training.verifier_encoder import AnswerDesign

__all__ = [
    "DENSE_WEIGHT",
    "MIN_TREE_ROWS",
    "AnswerHead",
    "Mix",
    "Opinions",
    "fit_answer_head",
    "fit_mix",
    "ridge_logistic",
    "tree_count",
]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

_MAX_ITERATIONS = 150
# Inverse strength of the ridge, and the weights of columns against words; by cross-validation within training folds.
_C = 0.5
DENSE_WEIGHT = 0.2
# How many rows the prior of a mix of two opinions is worth.
_PRIOR_ROWS = 10.0
MIN_TREE_ROWS = 200
_PARAMETERS: dict[str, Any] = {
    **TREE_PARAMETERS,
    "objective": "cross_entropy",  # the log loss, for targets in [0, 1]
    "learning_rate": 0.04,
    "min_data_in_leaf": 25,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
}


@dataclass(frozen=True, slots=True)
class Opinions:
    """What was thought of m requests before their answers: `own` (m,) and `average` (m,) log odds, `chances` (m, K).

    `own` is that of the tier that answered, `average` that of all tiers; `chances` are float32, as the graph gets them.
    """

    own: F64
    average: F64
    chances: F32

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Opinions:
        """Return the rows of that index or mask."""
        return Opinions(self.own[index], self.average[index], self.chances[index])


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """Two opinions on an answer: a linear one of its words and columns, and one of trees on columns alone.

    `words` (N_ANSWER_BUCKETS,), `scaled` and `missing` (A,) and `before` (2,), for own and average log odds, are
    float32. The trees see the columns as they are, then the chances of all tiers; None when there were too few rows.
    """

    words: F32
    scaled: F32
    missing: F32
    before: F32
    intercept: float
    booster: Any  # lightgbm.Booster, or None
    trees: Trees | None
    start: float

    def opinions(self, design: AnswerDesign, before: Opinions) -> F64:
        """Return both log odds, shape (m, 2)."""
        linear = design.words @ self.words.astype(np.float64)
        linear = linear + design.scaled @ self.scaled.astype(np.float64)
        linear = linear + design.missing @ self.missing.astype(np.float64)
        linear = linear + before.own * float(self.before[0]) + before.average * float(self.before[1]) + self.intercept
        if self.booster is None or not len(design):
            return np.stack((linear, linear), axis=1)
        trees = self.booster.predict(np.hstack((design.raw, before.chances)), raw_score=True)
        return np.stack((linear, trees + self.start), axis=1)


@dataclass(frozen=True, slots=True)
class Mix:
    """Log odds from a few opinions (m, j): `weights` (j,) and a shift."""

    weights: F64
    shift: float

    def logit(self, opinions: F64) -> F64:
        """Return log odds, shape (m,)."""
        mixed: F64 = opinions @ self.weights + self.shift
        return mixed


def fit_answer_head(
    design: AnswerDesign, before: Opinions, target: F64, *, seed: int, num_threads: int = 1
) -> AnswerHead:
    """Fit both opinions on the same answers.

    Args:
        design: The answers, (m,).
        before: What was thought before; of models that had not seen the row.
        target: Outcomes in [0, 1], (m,).
        seed: For the trees.
        num_threads: Threads the trees may use.
    """
    own = np.stack((before.own, before.average), axis=1)
    blocks = (design.words, design.scaled * DENSE_WEIGHT, design.missing * DENSE_WEIGHT, own * DENSE_WEIGHT)
    # A verifier that learns nothing repeats what was thought before.
    trust = np.array([1.0, 0.0]) / DENSE_WEIGHT
    found, intercept = ridge_logistic(
        blocks, target, centre=(None, None, None, trust), strength=(1 / _C,) * 4, start=_log_odds(target)
    )
    words, scaled, missing, opinions = found
    booster, start = _fit_trees(np.hstack((design.raw, before.chances)), target, seed, num_threads)
    return AnswerHead(
        words.astype(np.float32),
        (scaled * DENSE_WEIGHT).astype(np.float32),
        (missing * DENSE_WEIGHT).astype(np.float32),
        (opinions * DENSE_WEIGHT).astype(np.float32),
        intercept,
        booster,
        None if booster is None else read_trees(booster.dump_model()),
        start,
    )


def fit_mix(opinions: F64, target: F64, centre: Sequence[float]) -> Mix:
    """Fit the weights of a few opinions (m, j) on held-out rows; with few rows they stay near `centre` (j,)."""
    found, shift = ridge_logistic(
        (opinions,), target, centre=(np.array(centre, np.float64),), strength=(_PRIOR_ROWS,), shift_strength=1.0
    )
    return Mix(found[0], shift)


def tree_count(n_rows: int) -> int:
    """Return how many trees that many rows are worth."""
    return int(np.clip(60 * np.log2(n_rows / MIN_TREE_ROWS), 40, 300))


def ridge_logistic(
    blocks: Sequence[NDArray[Any] | csr_array],
    target: F64,
    *,
    centre: Sequence[F64 | None],
    strength: Sequence[float],
    start: float = 0.0,
    shift_strength: float = 0.0,
) -> tuple[list[F64], float]:
    """Fit logistic regression on graded targets with a Gaussian prior around given coefficients.

    Args:
        blocks: Columns of the design, each (m, p), dense or sparse.
        target: Outcomes in [0, 1], (m,).
        centre: Prior mean per block, (p,); None for 0.
        strength: Prior precision per block.
        start: Where the intercept starts.
        shift_strength: Prior precision of the intercept around 0.

    Returns:
        Coefficients per block, and the intercept.
    """
    ends = np.cumsum([block.shape[1] for block in blocks])
    middle = np.concatenate([np.zeros(b.shape[1]) if c is None else c for b, c in zip(blocks, centre, strict=True)])
    precision = np.concatenate([np.full(b.shape[1], s) for b, s in zip(blocks, strength, strict=True)])

    def loss(parameters: F64) -> tuple[float, F64]:
        *coefficients, shift = np.split(parameters, ends)
        z = np.full(len(target), shift[0])
        for block, one in zip(blocks, coefficients, strict=True):
            z += block @ one
        away = parameters[:-1] - middle
        residual = expit(z) - target
        value = float(np.logaddexp(0.0, z).sum() - target @ z) + 0.5 * float(precision @ away**2)
        value += 0.5 * shift_strength * float(shift[0]) ** 2
        slopes = np.concatenate([np.asarray(block.T @ residual) for block in blocks]) + precision * away
        return value, np.concatenate((slopes, [residual.sum() + shift_strength * shift[0]]))

    begin = np.zeros(len(middle) + 1)
    begin[:-1], begin[-1] = middle, start
    limits: Any = {"maxiter": _MAX_ITERATIONS, "ftol": 1e-7, "gtol": 1e-6}
    objective: Any = loss  # scipy's stubs do not take a gradient of general shape here
    found = minimize(objective, begin, jac=True, method="L-BFGS-B", options=limits).x
    *coefficients, shift = np.split(found, ends)
    return coefficients, float(shift[0])


def _fit_trees(matrix: F32, target: F64, seed: int, num_threads: int) -> tuple[Any, float]:
    start = _log_odds(target)
    if len(target) < MIN_TREE_ROWS:
        return None, start
    lightgbm = require("lightgbm", extra="training", why="train the verifier")
    parameters = {**_PARAMETERS, "seed": seed, "num_threads": num_threads}
    rows = lightgbm.Dataset(matrix, target, init_score=np.full(len(target), start), free_raw_data=True)
    return lightgbm.train(parameters, rows, tree_count(len(target))), start


def _log_odds(target: F64) -> float:
    # Half an observation on either side: outcomes that are all alike have finite odds too.
    success = float(target.sum()) + 0.5
    return float(np.log(success / (len(target) + 1.0 - success)))
