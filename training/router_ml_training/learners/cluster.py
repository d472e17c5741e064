"""Learner `cluster`: what came out in the few dozen regions of the map that a request belongs to.

Source: Avengers (Zhang et al. 2025, arXiv 2505.19797); here regions overlap a little, so that no rounding moves a
request from one to the next.
"""

from __future__ import annotations

from router_ml_training.learners import constant
from router_ml_training.learners.protocol import Fit, Head
from router_ml_training.learners.smoothing import smooth

__all__ = ["learn"]

# At 16 the region whose cosine is 0.1 ahead of the next weighs five times as much.
_SHARPNESS = 16.0
_PRIOR_ROWS = 20.0


def learn(fit: Fit) -> Head:
    """Average over the map's clusters."""
    map_ = fit.design.encoder.latent
    if map_ is None or constant.one_sided(fit):
        return constant.learn(fit)
    return smooth(fit, map_.clusters, _SHARPNESS, prior_rows=_PRIOR_ROWS, by_mass=False)
