"""The stack: members that add nothing stay out, the better one leads, weights are never negative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from router_ml_training.dataset import Dataset
from router_ml_training.encoder import fit_encoder
from router_ml_training.learners import ensemble, linear
from router_ml_training.learners.ensemble import StackedHead, stack_weights
from router_ml_training.learners.protocol import Fit


@pytest.fixture(scope="module")
def fit(world: Any) -> Fit:
    data: Dataset = world.dataset(600)
    return Fit(fit_encoder(data).encode(data), data.quality[:, 0], np.ones(600), data.group, seed=1)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(0.1, 5))
def test_no_weight_is_negative(seed: int, scale: float, fit: Fit) -> None:
    logits = np.random.default_rng(seed).normal(0, scale, (len(fit), 4))
    weights, _ = stack_weights(logits, fit)
    assert weights.shape == (4,)
    assert (weights >= 0).all()


def test_the_member_that_knows_gets_the_weight_and_noise_gets_none(fit: Fit) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, len(fit))
    told = Fit(fit.design, (rng.random(len(fit)) < expit(truth)).astype(float), fit.weight, fit.group, 0)
    noise = rng.normal(0, 1.5, (len(fit), 3))
    weights, intercept = stack_weights(np.column_stack((noise[:, :2], truth, noise[:, 2])), told)
    assert weights[2] == pytest.approx(1.0, abs=0.25)
    assert weights[[0, 1, 3]].max() < 0.3
    assert abs(intercept) < 0.3


def test_the_weights_are_at_the_optimum_of_the_penalised_loss(fit: Fit) -> None:
    logits = np.random.default_rng(3).normal(0, 1, (len(fit), 4)) + (fit.target - 0.5)[:, None]
    weights, intercept = stack_weights(logits, fit)
    residual = expit(logits @ weights + intercept) - fit.target
    gradient = logits.T @ residual + ensemble._PRIOR_ROWS * (weights - ensemble._PRIOR)
    assert np.abs(gradient[weights > 0]).max() < 0.5
    assert (gradient[weights == 0] > -0.5).all()


def test_the_stack_is_the_weighted_sum_of_its_members(fit: Fit) -> None:
    head = ensemble.learn(fit)
    assert isinstance(head, StackedHead)
    expected = head.intercept + sum(
        weight * member.logit(fit.design) for member, weight in zip(head.members, head.weights, strict=True)
    )
    np.testing.assert_allclose(head.logit(fit.design), expected, rtol=1e-12)


def test_few_rows_are_left_to_the_linear_head(fit: Fit) -> None:
    assert isinstance(ensemble.learn(fit.rows(np.arange(100))), linear.LinearHead)
