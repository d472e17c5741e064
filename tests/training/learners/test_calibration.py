"""Platt scaling recovers a known distortion, keeps ranks, and leaves things as they are where it knows nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from router_ml_training.learners.calibration import Platt, fit_platt


def distorted(n: int, slope: float, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.5, n)
    return logit, (rng.random(n) < expit(slope * logit + shift)).astype(float)


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.5, 0.3), (2.0, -1.0), (0.2, 1.5)])
def test_a_known_slope_and_shift_are_recovered(slope: float, shift: float) -> None:
    found = fit_platt(*distorted(20_000, slope, shift))
    assert found.slope == pytest.approx(slope, abs=0.08)
    assert found.shift == pytest.approx(shift, abs=0.08)


def test_graded_targets_are_as_good_as_drawn_ones() -> None:
    logit = np.random.default_rng(1).normal(0, 1.5, 20_000)
    found = fit_platt(logit, expit(0.6 * logit - 0.4))
    assert found.slope == pytest.approx(0.6, abs=0.01)
    assert found.shift == pytest.approx(-0.4, abs=0.01)


def test_no_data_change_nothing() -> None:
    assert fit_platt(np.zeros(0), np.zeros(0)) == Platt(1.0, 0.0)


def test_a_few_rows_move_it_a_little_only() -> None:
    found = fit_platt(np.array([-1.0, 1.0, 2.0]), np.array([1.0, 0.0, 0.0]))
    assert 0.5 < found.slope <= 1.0
    assert abs(found.shift) < 0.3


def test_labels_against_the_score_flatten_it_and_never_turn_it_round() -> None:
    logit, target = distorted(2_000, 1.0, 0.0)
    assert fit_platt(logit, 1.0 - target).slope == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(0, 1)), max_size=30))
def test_ranks_are_kept_and_probabilities_are_probabilities(rows: list[tuple[float, float]]) -> None:
    logit, target = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = fit_platt(logit, target)
    assert found.slope >= 0
    grid = found.probability(np.linspace(-40, 40, 81))
    assert (np.diff(grid) >= 0).all()
    assert ((grid >= 0) & (grid <= 1)).all()


def test_it_lowers_the_log_loss_of_the_rows_it_was_fitted_on() -> None:
    logit, target = distorted(500, 0.3, 1.0)

    def loss(platt: Platt) -> float:
        p = np.clip(platt.probability(logit), 1e-9, 1 - 1e-9)
        return float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).mean())

    assert loss(fit_platt(logit, target)) < loss(Platt(1.0, 0.0)) - 0.05
