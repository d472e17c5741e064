"""Target encoding: what requests of the same tenant, feature, template or tools came to, shrunk and never peeking.

A row that is learned from is described by other rows only: by earlier ones where the log is dated, else by those of
other folds. Otherwise its own outcome would hide in its own feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from router_ml.features import N_BUCKETS, N_TEXT_BUCKETS
from router_ml_training.learners.protocol import Fit
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.splits import group_folds

__all__ = ["TargetEncoding", "encode_targets"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]

# A bucket's mean is pulled towards the overall one by this many rows' weight.
_PRIOR_ROWS = 20.0
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class TargetEncoding:
    """`table` (N_METADATA_BUCKETS,) float32: each bucket's shrunken mean minus the overall mean; 0 where unseen."""

    table: F32

    def column(self, words: csr_array) -> F64:
        """Return the mean over each row's metadata buckets, (n,); 0 for rows without metadata."""
        row, bucket = _facts(words)
        return _mean(self.table.astype(np.float64)[bucket], row, words.shape[0])

    def draw(self, graph: GraphBuilder) -> str:
        """Add a look-up of the metadata ids and its mean, (n, 1)."""
        axis = graph.constant(np.array([1], np.int64))
        first = graph.constant(np.array([N_TEXT_BUCKETS], np.int64))
        is_fact = graph.add("Cast", graph.add("GreaterOrEqual", "ids", first), to=1)
        place = graph.add("Max", graph.add("Sub", "ids", first), graph.constant(np.array([0], np.int64)))
        values = graph.add("Mul", graph.add("Gather", graph.constant(self.table), place), is_fact)
        n_facts = graph.add("Max", graph.add("ReduceSum", is_fact, axis, keepdims=1), graph.scalar(1.0))
        return graph.add("Div", graph.add("ReduceSum", values, axis, keepdims=1), n_facts)


def encode_targets(fit: Fit) -> tuple[TargetEncoding, F64]:
    """Fit the table on all rows, and encode the training rows without their own outcomes.

    Args:
        fit: Rows, targets and weights; with `ts`, a row sees strictly earlier rows only, else rows of other folds.

    Returns:
        The table for new requests, and the column of the training rows, (m,).

    Source: Micci-Barreca 2001 (shrinkage); Prokhorenkova et al. 2018, section 3.2 (ordered target statistics).
    """
    row, bucket = _facts(fit.design.words)
    everyone = np.ones(len(fit.target), np.bool_)
    table = TargetEncoding(_table(fit, row, bucket, everyone).astype(np.float32))
    if fit.ts is not None:
        return table, _mean(_ordered(fit, fit.ts, row, bucket), row, len(fit.target))
    column = np.zeros(len(fit.target))
    folds = group_folds(fit.group, _FOLDS, np.random.default_rng(fit.seed))
    for fold in range(_FOLDS):
        values = _table(fit, row, bucket, folds != fold)[bucket]
        unseen = folds == fold
        column[unseen] = _mean(values, row, len(fit.target))[unseen]
    return table, column


def _facts(words: csr_array) -> tuple[I64, I64]:
    """Return row and metadata bucket of every fact."""
    row = np.repeat(np.arange(words.shape[0]), np.diff(words.indptr))
    is_fact = words.indices >= N_TEXT_BUCKETS
    return row[is_fact], (words.indices[is_fact] - N_TEXT_BUCKETS).astype(np.int64)


def _table(fit: Fit, row: I64, bucket: I64, seen: NDArray[np.bool_]) -> F64:
    size = N_BUCKETS - N_TEXT_BUCKETS
    weight = fit.weight * seen
    total = float(weight.sum())
    mean = float(weight @ fit.target) / total if total > 0 else 0.5
    mass = np.bincount(bucket, weight[row], size)
    surplus = np.bincount(bucket, (weight * (fit.target - mean))[row], size)
    return np.asarray(surplus / (mass + _PRIOR_ROWS), np.float64)


def _ordered(fit: Fit, ts: F64, row: I64, bucket: I64) -> F64:
    """Return each fact's encoding from strictly earlier rows, in the order of the facts."""
    all_mass, all_hits = _sums_before(np.zeros(len(ts), np.int64), ts, fit.weight, fit.weight * fit.target)
    mean = (all_hits + 0.5) / (all_mass + 1.0)
    mass, hits = _sums_before(bucket, ts[row], fit.weight[row], (fit.weight * fit.target)[row])
    return np.asarray((hits - mass * mean[row]) / (mass + _PRIOR_ROWS), np.float64)


def _sums_before(key: I64, ts: F64, weight: F64, hit: F64) -> tuple[F64, F64]:
    """Return the sums of weight and hit over entries of the same key with a smaller ts, (m,) each."""
    if not len(key):
        return np.zeros(0), np.zeros(0)
    order = np.lexsort((ts, key))
    k, t = key[order], ts[order]
    new_key = np.concatenate(([True], k[1:] != k[:-1]))
    new_moment = new_key | np.concatenate(([True], t[1:] != t[:-1]))
    sums = []
    for values in (weight, hit):
        running = np.concatenate(([0.0], np.cumsum(values[order])))[:-1]
        # What stood before the first entry of this moment, minus what stood before the first entry of this key.
        at_moment = running[np.maximum.accumulate(np.where(new_moment, np.arange(len(k)), 0))]
        at_key = running[np.maximum.accumulate(np.where(new_key, np.arange(len(k)), 0))]
        out = np.empty(len(k))
        out[order] = at_moment - at_key
        sums.append(out)
    return sums[0], sums[1]


def _mean(values: F64, row: I64, n: int) -> F64:
    mean: F64 = np.bincount(row, values, n) / np.maximum(np.bincount(row, minlength=n), 1)
    return mean
