"""Histograms: the same grid for everybody, and rows that belong together are worth fewer."""

from __future__ import annotations

import numpy as np
import pytest

from router_ml_training.histograms import category_histogram, histogram, merged_bins, share_histogram


def alone(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int64)


def test_bins_do_not_depend_on_who_else_is_there() -> None:
    small = histogram([0.0, 3.0, -3.0, 250.0], alone(4))
    large = histogram(np.concatenate([[0.0, 3.0, -3.0, 250.0], np.linspace(1e-6, 1e6, 96)]), alone(100))
    assert small is not None
    assert large is not None
    assert set(small.bins) <= set(large.bins)
    assert 0 in small.bins
    assert small.bins[0] == -next(b for b in small.bins if b > 0)


def test_values_a_few_percent_apart_are_told_apart() -> None:
    for value in (1e-5, 0.3, 7.0, 4000.0):
        found = histogram([value, value * 1.05], alone(2))
        assert found is not None
        assert len(found.bins) == 2


def test_unknown_values_are_left_out() -> None:
    found = share_histogram([0.5, np.nan, 1.0], alone(3))
    assert found is not None
    assert (found.n, found.mean) == (2, 0.75)
    assert share_histogram([np.nan, np.nan], alone(2)) is None


def test_shares_are_per_bin_and_zero_where_nothing_fell() -> None:
    found = category_histogram(np.array([3, 3, 3, 7]), alone(4))
    assert found is not None
    assert found.share(np.array([3, 5, 7])).tolist() == [0.75, 0.0, 0.25]


def test_independent_rows_are_worth_what_they_are() -> None:
    rng = np.random.default_rng(0)
    found = histogram(rng.lognormal(size=2000), alone(2000))
    assert found is not None
    assert found.effective == 2000


def test_ten_equal_rows_of_a_session_are_worth_one() -> None:
    rng = np.random.default_rng(0)
    session = np.repeat(alone(300), 10)
    found = histogram(np.repeat(rng.lognormal(size=300), 10), session)
    assert found is not None
    assert found.effective == pytest.approx(300, rel=0.1)


def test_one_session_is_worth_one_row() -> None:
    found = histogram(np.arange(50.0), np.zeros(50, np.int64))
    assert found is not None
    assert found.effective == 1.0


def test_a_rare_flag_that_whole_sessions_have_is_worth_few_rows() -> None:
    rng = np.random.default_rng(0)
    session = np.repeat(alone(400), 10)
    found = share_histogram(np.repeat(rng.random(400) < 0.04, 10), session)
    assert found is not None
    assert found.effective < 600


def test_where_all_rows_are_the_same_a_session_is_worth_one_row() -> None:
    session = np.repeat(alone(40), 20)
    same = histogram(np.ones(800), session)
    assert same is not None
    assert same.effective == pytest.approx(40)


def test_few_sessions_are_worth_no_more_than_they_are_many() -> None:
    rng = np.random.default_rng(0)
    found = histogram(rng.lognormal(size=800), np.repeat(alone(20), 40))
    assert found is not None
    assert found.effective == pytest.approx(20)


def test_a_long_log_is_measured_on_whole_sessions() -> None:
    rng = np.random.default_rng(0)
    session = np.repeat(rng.integers(-(2**62), 2**62, 30_000), 10)
    found = histogram(np.repeat(rng.lognormal(size=30_000), 10), session)
    assert found is not None
    assert found.effective == pytest.approx(30_000, rel=0.1)


def test_merged_bins_are_about_equal_and_common_values_stay_alone() -> None:
    share = np.array([0.02, 0.5, 0.02, 0.02, 0.2, 0.2, 0.04])
    label = merged_bins(share, size=0.2, least=0.01)
    merged = np.bincount(label, weights=share)
    assert label.tolist() == sorted(label.tolist())
    assert merged.tolist() == pytest.approx([0.02, 0.5, 0.24, 0.2, 0.04])
    assert merged_bins(share, size=0.2, least=0.1).max() < label.max()
