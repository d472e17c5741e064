"""What a dearer tier would add, learned from the answer at hand: a head per pair of tiers, beside what is transferred.

A transfer can only say what the judgement of the answer says. Where enough rows tell what both tiers did, a second head
predicts the difference of their outcomes from the answer itself, once by ridge regression and once by trees, and the
gain over the answer at hand is the transfer's opinion and the mean of these two, weighed alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack
from scipy.sparse.linalg import lsqr

from router_ml.registry import require
from router_ml_training.landmarks import sampled
from router_ml_training.learners.trees import TREE_PARAMETERS, read_trees
from router_ml_training.plans import on_hull
from router_ml_training.verifier_encoder import AnswerDesign
from router_ml_training.verifier_heads import DENSE_WEIGHT, MIN_TREE_ROWS, AnswerHead, Opinions, tree_count

__all__ = ["OWN_SHARE", "Gains", "fit_gain_head", "gain_pairs", "gains_of", "with_gains"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]
Gains: TypeAlias = Mapping[tuple[int, int], AnswerHead]

# Weights that were fitted on held-out rows were no better, on training folds of four public pairs.
OWN_SHARE = 0.5
# With fewer rows that tell both outcomes the transfer stands alone; more teach little, and cost minutes.
_MIN_ROWS, _MAX_ROWS = 300, 10_000
_RIDGE = 10.0
_PARAMETERS: dict[str, Any] = {
    **TREE_PARAMETERS,
    "objective": "regression",
    "num_leaves": 8,
    "learning_rate": 0.04,
    "min_data_in_leaf": 25,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
}


def gain_pairs(tier: I64, row: I64, quality: F64, cost: F64, *, seed: int) -> dict[tuple[int, int], I64]:
    """Return the pairs of tiers about which enough is known, each with the numbers of the answers to learn from.

    Args:
        tier: Who gave each answer, (m,).
        row: Which request it answers, (m,).
        quality: Outcomes that were seen whatever cheaper tiers did, (n, K), NaN for others.
        cost: USD, (n, K), NaN where unknown.
        seed: For the sample where more is known than is needed.
    """
    found: dict[tuple[int, int], I64] = {}
    for s, t in itertools.combinations(_worth_asking(quality, cost), 2):
        both = ~np.isnan(quality[row][:, [s, t]]).any(axis=1)
        rows = np.flatnonzero((tier == s) & both)
        if len(rows) < _MIN_ROWS:
            continue
        found[s, t] = rows[sampled(len(rows), _MAX_ROWS, seed=seed)]
    return found


def _worth_asking(quality: F64, cost: F64) -> list[int]:
    # Nobody jumps to a tier that others beat at its price; ladders of ten would have 45 pairs of heads.
    known = np.flatnonzero(~np.isnan(quality).all(axis=0) & ~np.isnan(cost).all(axis=0))
    kept: list[int] = known[on_hull(quality[:, known], cost[:, known])].tolist() if len(known) else []
    return kept


def fit_gain_head(design: AnswerDesign, before: Opinions, gain: F64, *, seed: int, num_threads: int = 1) -> AnswerHead:
    """Fit both opinions on what the dearer tier added, outcome less outcome, in [-1, 1].

    Args:
        design: The answers, (m,).
        before: What was thought before; of models that had not seen the row.
        gain: Outcome of the dearer tier less that of the one that answered, (m,).
        seed: For the trees.
        num_threads: Threads the trees may use.
    """
    dense = np.hstack((design.scaled, design.missing, np.stack((before.own, before.average), axis=1)))
    columns: Any = np.asarray(dense, np.float64) * DENSE_WEIGHT
    blocks = csr_array(hstack([design.words, csr_array(columns)], format="csr"))
    mean = float(gain.mean())
    # Damping by the root of the strength is ridge regression.
    found = lsqr(blocks, gain - mean, damp=float(np.sqrt(_RIDGE)), atol=1e-6, btol=1e-6, iter_lim=300)[0]
    n_words, n_columns = design.words.shape[1], design.scaled.shape[1]
    words, scaled, missing, odds = np.split(found, np.cumsum([n_words, n_columns, n_columns]))
    booster = _grow(np.hstack((design.raw, before.chances)), gain - mean, seed, num_threads)
    return AnswerHead(
        words.astype(np.float32),
        (scaled * DENSE_WEIGHT).astype(np.float32),
        (missing * DENSE_WEIGHT).astype(np.float32),
        (odds * DENSE_WEIGHT).astype(np.float32),
        mean,
        booster,
        None if booster is None else read_trees(booster.dump_model()),
        mean,
    )


def _grow(matrix: F32, gain: F64, seed: int, num_threads: int) -> Any:
    if len(gain) < MIN_TREE_ROWS:
        return None
    lightgbm = require("lightgbm", extra="training", why="train the verifier")
    parameters = {**_PARAMETERS, "seed": seed, "num_threads": num_threads}
    return lightgbm.train(parameters, lightgbm.Dataset(matrix, gain, free_raw_data=True), tree_count(len(gain)) // 2)


def gains_of(gains: Gains, design: AnswerDesign, before: Opinions, tier: I64, n_tiers: int) -> F64:
    """Return what the heads expect every dearer tier to add to each answer, (m, K); NaN where there is no head.

    Args:
        gains: The heads, by pair.
        design: The answers.
        before: What was thought before.
        tier: Who gave each answer, (m,).
        n_tiers: Tiers of the ladder.
    """
    result = np.full((len(tier), n_tiers), np.nan)
    for (s, t), head in gains.items():
        rows = np.flatnonzero(tier == s)
        result[rows, t] = head.opinions(design.rows(rows), before.rows(rows)).mean(axis=1)
    return result


def with_gains(transferred: F64, v: F64, gain: F64) -> F64:
    """Return the chance of a dearer tier, (m,), from that of its transfer, v and what its head expects it to add."""
    mixed = v + (1.0 - OWN_SHARE) * (transferred - v) + OWN_SHARE * gain
    return np.where(np.isnan(gain), transferred, np.clip(mixed, 0.0, 1.0))
