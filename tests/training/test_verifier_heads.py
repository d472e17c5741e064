"""Ridge logistic regression with a prior, against closed forms; and heads that have too little to learn from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.special import expit

from router_ml_training.dataset import Dataset
from router_ml_training.verifier import opinions_before
from router_ml_training.verifier_encoder import fit_answer_encoder
from router_ml_training.verifier_heads import Mix, fit_answer_head, fit_mix, ridge_logistic

RNG = np.random.default_rng(0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 50.0), st.floats(-2.0, 2.0))
def test_the_gradient_of_the_penalised_likelihood_vanishes(seed: int, strength: float, centre: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(80, 3)), rng.random(80)
    middle = np.full(3, centre)
    (w,), b = ridge_logistic((x,), y, centre=(middle,), strength=(strength,), shift_strength=0.5)
    residual = expit(x @ w + b) - y
    assert np.abs(x.T @ residual + strength * (w - middle)).max() < 0.05
    assert abs(residual.sum() + 0.5 * b) < 0.05


def test_sparse_and_dense_blocks_are_the_same_problem() -> None:
    x, y = RNG.normal(size=(60, 4)), RNG.random(60)
    together, shift = ridge_logistic((x,), y, centre=(None,), strength=(2.0,))
    apart, other = ridge_logistic((csr_array(x[:, :2]), x[:, 2:]), y, centre=(None, None), strength=(2.0, 2.0))
    assert np.concatenate(apart) == pytest.approx(together[0], abs=1e-3)
    assert other == pytest.approx(shift, abs=1e-3)


def test_without_rows_a_mix_stays_at_its_centre() -> None:
    mix = fit_mix(np.zeros((0, 2)), np.zeros(0), (0.5, 0.5))
    assert mix.weights == pytest.approx([0.5, 0.5])
    assert mix.shift == 0.0
    assert Mix(np.array([1.0, 2.0]), 3.0).logit(np.array([[1.0, 1.0]])) == pytest.approx([6.0])


def test_few_rows_get_no_trees_and_one_class_stays_finite(judged_world: Dataset) -> None:
    answers = judged_world.answers.take(np.arange(60))
    design = fit_answer_encoder(answers).encode(answers)
    before = opinions_before(np.full((60, 2), 0.7), answers.tier)
    head = fit_answer_head(design, before, np.ones(60), seed=0)
    assert head.trees is None
    said = head.opinions(design, before)
    assert np.isfinite(said).all()
    assert np.array_equal(said[:, 0], said[:, 1])
    assert (said > 1).all()
