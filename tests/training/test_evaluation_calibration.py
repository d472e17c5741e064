"""Calibration metrics against their definitions and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from router_ml.errors import DataError
from router_ml_training.evaluation.calibration_metrics import auc, brier, calibration_figures, ece, reliability


@given(st.integers(0, 10_000), st.integers(2, 80), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_auc_and_brier_agree_with_scikit_learn_ties_included(seed: int, n: int, levels: int):
    rng = np.random.default_rng(seed)
    p, y = rng.integers(0, levels + 1, n) / levels, rng.integers(0, 2, n)
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p))
    if 0 < y.sum() < n:
        assert auc(p, y).value == pytest.approx(roc_auc_score(y, p))
    else:
        assert auc(p, y).reason == f"every outcome is {y[0]:g}"


def test_ece_of_distinct_scores_is_the_mean_gap_over_bins_of_equal_mass():
    rng = np.random.default_rng(0)
    p, y = rng.random(150), rng.integers(0, 2, 150)
    order = np.argsort(p).reshape(15, 10)
    assert ece(p, y) == pytest.approx(np.abs(p[order].mean(axis=1) - y[order].mean(axis=1)).mean())


def test_equal_scores_stay_in_one_bin_so_a_calibrated_constant_has_no_error():
    y = np.tile([0, 1, 1, 1], 100)
    assert ece(np.full(400, 0.75), y) == pytest.approx(0)
    assert ece(np.full(400, 0.5), y) == pytest.approx(0.25)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_row_order_does_not_matter(seed: int):
    rng = np.random.default_rng(seed)
    p, y = rng.integers(0, 9, 50) / 8, rng.integers(0, 2, 50)
    order = rng.permutation(50)
    assert ece(p, y) == pytest.approx(ece(p[order], y[order]))
    assert auc(p, y).value == pytest.approx(auc(p[order], y[order]).value)


def test_figures_hold_their_values_and_tell_a_calibrated_model_from_a_bold_one():
    rng = np.random.default_rng(1)
    p = rng.random(3000)
    y = (rng.random(3000) < p).astype(float)
    good = calibration_figures(p, y, rng=np.random.default_rng(0), draws=100)
    bold = calibration_figures(np.clip(2 * p - 0.5, 0, 1), y, rng=np.random.default_rng(0), draws=100)
    assert good["ece"].value == pytest.approx(ece(p, y))
    assert good["brier"].low < 1 / 6 < good["brier"].high
    assert good["auc"].low < 5 / 6 < good["auc"].high
    assert good["ece"].high < bold["ece"].low


def test_grouped_rows_are_drawn_together():
    rng = np.random.default_rng(2)
    p, y = np.repeat(rng.random(30), 20), np.repeat(rng.integers(0, 2, 30), 20)
    groups = np.repeat(np.arange(30), 20)
    alone = calibration_figures(p, y, rng=np.random.default_rng(0), draws=200)["brier"]
    together = calibration_figures(p, y, rng=np.random.default_rng(0), draws=200, groups=groups)["brier"]
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_reliability_bins_hold_every_row_and_their_intervals_hold_the_share():
    rng = np.random.default_rng(3)
    p = rng.random(1000)
    bins = reliability(p, (rng.random(1000) < p).astype(float))
    assert (bins.count.sum(), bins.spread.sum(), bins.count.size) == (1000, 1000, 15)
    assert ((bins.low <= bins.observed) & (bins.observed <= bins.high)).all()
    assert (np.diff(bins.predicted) > 0).all()
    # Wilson's interval for 5 of 10, by hand.
    ten = reliability(np.full(10, 0.4), [1, 0] * 5)
    assert (ten.low[0], ten.high[0]) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_graded_outcomes_have_no_auc_and_no_rows_have_nothing():
    assert "graded" in auc([0.1, 0.9], [0.5, 1.0]).reason
    empty = calibration_figures([], [], rng=np.random.default_rng(0))
    assert {figure.reason for figure in empty.values()} == {"no rows"}


def test_unknown_outcomes_must_be_left_out():
    with pytest.raises(DataError, match="leave unknown outcomes out"):
        ece([0.5, 0.5], [1.0, np.nan])
    with pytest.raises(DataError, match="one length"):
        brier([0.5], [1.0, 0.0])
