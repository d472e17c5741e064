"""A map of what requests are about: a few coordinates per request, and landmarks spread over the map.

The coordinates are a truncated singular value decomposition of the weighted words and metadata. Everything is fitted
without outcomes, once per encoder, so that all tiers, folds and learners share it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix

from router_ml_training.landmarks import MAX_ROWS, landmarks, sampled
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["Latent", "fit_latent"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

N_COORDINATES = 32
N_CLUSTERS = 48
N_PROTOTYPES = 512
# A bucket seen fewer times than this has no place on the map; beyond the most frequent ones, none has.
_MIN_SEEN = 3
_MAX_BUCKETS = 16_383
# A request with hardly a known word stays near the middle of the map: its direction would be rounding error.
_SHORTEST = 0.05


@dataclass(frozen=True, slots=True)
class Latent:
    """`row_of` (N_BUCKETS,) int32 names each bucket's row in `table` (M + 1, k) float32, whose row 0 is zero.

    `centre` (k,) float32 is subtracted before vectors are brought to length 1. `clusters` (C, k) and `prototypes`
    (P, k), float32, are landmarks of length 1: few for a coarse view, many for a fine one.
    """

    row_of: NDArray[np.int32]
    table: F32
    centre: F32
    clusters: F32
    prototypes: F32

    def vectors(self, words: csr_array) -> F32:
        """Return coordinates (n, k) of rows of weighted words (n, N_BUCKETS); none is longer than 1."""
        return _unit(self._raw(words))

    def draw(self, graph: GraphBuilder, weights: str) -> str:
        """Add the nodes that map `ids` and their weights (n, L) to coordinates (n, k)."""
        rows = graph.add("Gather", graph.constant(self.row_of), "ids")
        axis = graph.constant(np.array([1], np.int64))
        weighted = graph.add(
            "MatMul", graph.add("Unsqueeze", weights, axis), graph.add("Gather", graph.constant(self.table), rows)
        )
        raw = graph.add("Sub", graph.add("Squeeze", weighted, axis), graph.constant(self.centre))
        energy = graph.add("ReduceSum", graph.add("Mul", raw, raw), axis, keepdims=1)
        return graph.add("Div", raw, graph.add("Max", graph.add("Sqrt", energy), graph.scalar(_SHORTEST)))

    def _raw(self, words: csr_array) -> F64:
        known = csr_array(
            (words.data, self.row_of[words.indices], words.indptr), shape=(words.shape[0], len(self.table))
        )
        raw: F64 = known.astype(np.float64) @ self.table.astype(np.float64) - self.centre
        return raw


def fit_latent(words: csr_array, *, seed: int = 0) -> Latent:
    """Fit the map on weighted words.

    Args:
        words: Weighted words and metadata of the training rows, (n, N_BUCKETS) float32.
        seed: For the sample, the decomposition and the landmarks.

    Source: Deerwester et al. 1990 (latent semantic analysis); landmarks by k-means as in Avengers (Zhang et al. 2025,
    arXiv 2505.19797).
    """
    sample = words[sampled(words.shape[0], MAX_ROWS, seed=seed)]
    row_of, kept = _vocabulary(sample)
    table = np.zeros((len(kept) + 1, N_COORDINATES), np.float32)
    if min(sample.shape[0], len(kept)) > 1:
        found = _directions(sample, kept, seed)
        table[1:, : found.shape[1]] = found
    centre = np.zeros(N_COORDINATES, np.float32)
    bare = Latent(row_of, table, centre, centre[None, :], centre[None, :])
    if sample.shape[0]:
        bare = replace(bare, centre=bare._raw(sample).mean(axis=0).astype(np.float32))
    vectors = bare.vectors(sample)
    return replace(
        bare,
        clusters=_unit(landmarks(vectors, N_CLUSTERS, seed=seed)),
        prototypes=_unit(landmarks(vectors, N_PROTOTYPES, seed=seed + 1)),
    )


def _unit(rows: NDArray[Any]) -> F32:
    length = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    unit: F32 = (rows / np.maximum(length, _SHORTEST)).astype(np.float32)
    return unit


def _vocabulary(words: csr_array) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the row of each bucket (0: none) and the buckets that have one, the most frequent ones."""
    seen = np.bincount(words.indices, minlength=words.shape[1])
    frequent = np.flatnonzero(seen >= _MIN_SEEN)
    kept = np.sort(frequent[np.argsort(-seen[frequent], kind="stable")[:_MAX_BUCKETS]])
    row_of = np.zeros(words.shape[1], np.int32)
    row_of[kept] = np.arange(1, len(kept) + 1)
    return row_of, kept


def _directions(words: csr_array, kept: NDArray[np.int64], seed: int) -> F32:
    """Return the right singular vectors of the kept columns, (M, at most k)."""
    from sklearn.utils.extmath import randomized_svd

    matrix = csr_matrix(words[:, kept])
    k = min(N_COORDINATES, min(matrix.shape) - 1)
    right = randomized_svd(matrix, k, n_iter=2, random_state=seed)[2]
    found: F32 = np.ascontiguousarray(right.T, np.float32)
    return found
