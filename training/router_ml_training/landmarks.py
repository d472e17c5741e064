"""Landmarks: a few points that stand for many rows, found without looking at outcomes."""

from __future__ import annotations

import warnings
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_ROWS", "landmarks", "sampled"]

F32: TypeAlias = NDArray[np.float32]

# More rows than this add time and do not move the landmarks.
MAX_ROWS = 10_000
_ROWS_PER_LANDMARK = 8


def sampled(n: int, most: int, *, seed: int) -> NDArray[np.int64]:
    """Return at most `most` of n row numbers, in order; all of them when they are not more."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def landmarks(points: F32, most: int, *, seed: int) -> F32:
    """Return centres of k-means over a bounded sample.

    Args:
        points: Rows (n, k), float32, finite.
        most: Number of centres; fewer where less than eight rows would stand behind each. At least one is returned.
        seed: For the sample and the starting points.
    """
    from sklearn.cluster import MiniBatchKMeans  # a second to import, and only training needs it

    if not len(points):
        return np.zeros((1, points.shape[1]), np.float32)
    sample = points[sampled(len(points), MAX_ROWS, seed=seed)]
    distinct = np.unique(sample, axis=0)
    n = int(np.clip(len(sample) // _ROWS_PER_LANDMARK, 1, most))
    if len(distinct) <= n:
        return distinct
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about starved centres, which are dropped or harmless
        model = MiniBatchKMeans(n, init="random", batch_size=1024, max_iter=5, n_init=1, random_state=seed).fit(sample)
    centres: F32 = model.cluster_centers_.astype(np.float32)
    return centres
