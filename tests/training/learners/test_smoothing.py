"""A mean over landmarks: what a slow loop finds, between the extremes of what it averages, the same in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Encoder, fit_encoder
from router_ml_training.learners.protocol import Fit
from router_ml_training.learners.smoothing import smooth


@pytest.fixture(scope="module")
def data(world: Any) -> Dataset:
    made: Dataset = world.dataset(300)
    return made


@pytest.fixture(scope="module")
def encoder(data: Dataset) -> Encoder:
    return fit_encoder(data)


def fit_of(data: Dataset, encoder: Encoder) -> Fit:
    weight = np.random.default_rng(0).integers(1, 4, len(data)).astype(float)
    return Fit(encoder.encode(data), data.quality[:, 0], weight, data.group, seed=0)


@pytest.mark.parametrize("by_mass", [True, False])
def test_it_is_the_weighted_mean_of_shrunken_means(data: Dataset, encoder: Encoder, by_mass: bool) -> None:
    fit = fit_of(data, encoder)
    places = encoder.latent.clusters[:9] if encoder.latent else np.zeros((0, 0), np.float32)
    head = smooth(fit, places, 4.0, prior_rows=2.0, by_mass=by_mass)
    latent = fit.design.latent.astype(float)
    nearest = [int(np.argmax([one @ place for place in places])) for one in latent]
    overall = np.average(fit.target, weights=fit.weight)
    for i in range(0, 300, 50):
        total = weight_sum = 0.0
        for j, place in enumerate(places):
            mine = np.array(nearest) == j
            mass, hits = fit.weight[mine].sum(), (fit.weight * fit.target)[mine].sum()
            weight = np.exp(4.0 * latent[i] @ place) * (mass + 2.0 if by_mass else 1.0)
            total += weight * (hits + 2.0 * overall) / (mass + 2.0)
            weight_sum += weight
        assert expit(head.logit(fit.design)[i]) == pytest.approx(total / weight_sum, rel=1e-5)


def test_it_stays_between_the_means_that_it_averages(data: Dataset, encoder: Encoder) -> None:
    fit = fit_of(data, encoder)
    places = encoder.latent.prototypes if encoder.latent else np.zeros((0, 0), np.float32)
    head = smooth(fit, places, 50.0, prior_rows=0.5, by_mass=True)
    p = head.mean(fit.design.latent)
    assert head.value.min() - 1e-6 <= p.min() <= p.max() <= head.value.max() + 1e-6
