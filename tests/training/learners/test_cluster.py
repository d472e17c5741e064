"""Clusters: what holds in one part of the map is learned there, and shrunken where few rows stand behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from router_ml_training.encoder import fit_encoder
from router_ml_training.learners import cluster
from router_ml_training.learners.cluster import _PRIOR_ROWS
from router_ml_training.learners.protocol import Fit
from router_ml_training.learners.smoothing import SmoothHead


@pytest.fixture(scope="module")
def fit(world: Any) -> Fit:
    data = world.dataset(800)
    return Fit(fit_encoder(data).encode(data), data.quality[:, 0], np.ones(800), data.group, seed=0)


def regions(fit: Fit) -> np.ndarray:
    assert fit.design.encoder.latent is not None
    return np.asarray(np.argmax(fit.design.latent @ fit.design.encoder.latent.clusters.T, axis=1))


def test_what_holds_in_a_cluster_is_learned(fit: Fit) -> None:
    target = (regions(fit) % 2).astype(float)
    p = expit(cluster.learn(replace(fit, target=target)).logit(fit.design))
    assert p[target == 1].mean() - p[target == 0].mean() > 0.1


def test_a_cluster_says_its_shrunken_mean(fit: Fit) -> None:
    head = cluster.learn(fit)
    assert isinstance(head, SmoothHead)
    member, overall = regions(fit), fit.target.mean()
    for place in np.unique(member)[:10]:
        mine = member == place
        expected = (fit.target[mine].sum() + _PRIOR_ROWS * overall) / (mine.sum() + _PRIOR_ROWS)
        assert head.value[place] == pytest.approx(expected, abs=1e-6)
