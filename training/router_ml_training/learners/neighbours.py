"""Learner `neighbours`: what came out for the requests nearest on the map, the nearer the heavier.

Rows are condensed to prototypes, so that the graph stays small however long the log. How far "near" reaches is chosen
on held-out folds.

Source: Li 2025, arXiv 2505.12601 (nearest neighbours match learned routers); Nadaraya 1964, Watson 1964 (the mean).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.encoder import Design
from router_ml_training.learners import constant
from router_ml_training.learners.protocol import Fit, Head
from router_ml_training.learners.smoothing import SmoothHead, smooth
from router_ml_training.splits import group_folds

__all__ = ["learn"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

_SHARPNESSES = (5.0, 10.0, 20.0)
_PRIOR_ROWS = 0.5
_FOLDS = 3
# Enough rows to tell the reaches apart.
_MAX_TRIED = 10_000


def learn(fit: Fit) -> Head:
    """Choose the reach on held-out folds, then average over all rows' prototypes."""
    map_ = fit.design.encoder.latent
    if map_ is None or constant.one_sided(fit):
        return constant.learn(fit)
    return _smooth(fit, map_.prototypes, _reach(fit, map_.prototypes))


def _smooth(fit: Fit, places: F32, sharpness: float) -> SmoothHead:
    return smooth(fit, places, sharpness, prior_rows=_PRIOR_ROWS, by_mass=True)


def _reach(fit: Fit, places: F32) -> float:
    fit = fit.rows(np.arange(min(len(fit), _MAX_TRIED)))
    if len(np.unique(fit.group)) < _FOLDS:
        return _SHARPNESSES[0]
    folds = group_folds(fit.group, _FOLDS, np.random.default_rng(fit.seed))
    losses = dict.fromkeys(_SHARPNESSES, 0.0)
    for fold in range(_FOLDS):
        seen, unseen = fit.rows(folds != fold), fit.rows(folds == fold)
        if constant.one_sided(seen):
            continue
        for sharpness in _SHARPNESSES:
            losses[sharpness] += _loss(_smooth(seen, places, sharpness), unseen.design, unseen)
    return min(losses, key=losses.__getitem__)


def _loss(head: SmoothHead, design: Design, fit: Fit) -> float:
    p: F64 = head.mean(design.latent)
    return float(-(fit.weight @ (fit.target * np.log(p) + (1.0 - fit.target) * np.log(1.0 - p))))
