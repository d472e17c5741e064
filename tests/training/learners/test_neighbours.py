"""Neighbours: the reach is chosen by what held-out rows say, and without a map there is nothing to be near to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from router_ml_training.encoder import fit_encoder
from router_ml_training.learners import cluster, neighbours
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.learners.neighbours import _SHARPNESSES, _reach
from router_ml_training.learners.protocol import Fit


@pytest.fixture(scope="module")
def fit(world: Any) -> Fit:
    data = world.dataset(1200)
    return Fit(fit_encoder(data).encode(data), data.quality[:, 0], np.ones(1200), data.group, seed=0)


def regional(fit: Fit) -> Fit:
    """The same rows, where everything depends on the region of the map."""
    assert fit.design.encoder.latent is not None
    region = np.argmax(fit.design.latent @ fit.design.encoder.latent.clusters.T, axis=1)
    return replace(fit, target=0.1 + 0.8 * (region % 2))


def test_where_regions_differ_the_reach_is_shorter_than_where_nothing_is_to_be_learned(fit: Fit) -> None:
    assert fit.design.encoder.latent is not None
    places = fit.design.encoder.latent.prototypes
    noise = replace(fit, target=np.random.default_rng(0).permutation(fit.target))
    assert _reach(regional(fit), places) > min(_SHARPNESSES)
    assert _reach(noise, places) == min(_SHARPNESSES)


def test_what_holds_in_a_region_is_learned(fit: Fit) -> None:
    told = regional(fit)
    p = expit(neighbours.learn(told).logit(fit.design))
    assert p[told.target > 0.5].mean() - p[told.target < 0.5].mean() > 0.15


@pytest.mark.parametrize("learner", [cluster.learn, neighbours.learn])
def test_without_a_map_the_constant_remains(fit: Fit, learner: Any) -> None:
    design = replace(fit.design, encoder=replace(fit.design.encoder, latent=None))
    assert isinstance(learner(replace(fit, design=design)), ConstantHead)
