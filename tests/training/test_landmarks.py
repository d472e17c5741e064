"""Landmarks: few enough, among the rows, the same for the same seed; samples are bounded and in order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from router_ml_training.landmarks import landmarks, sampled


@given(n=st.integers(0, 300), most=st.integers(1, 300), seed=st.integers(0, 9))
def test_a_sample_is_bounded_distinct_and_in_order(n: int, most: int, seed: int) -> None:
    rows = sampled(n, most, seed=seed)
    assert len(rows) == min(n, most)
    assert (np.diff(rows) > 0).all()
    assert ((rows >= 0) & (rows < max(n, 1))).all()


def test_well_separated_groups_are_found() -> None:
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    points = (middles[rng.integers(0, 4, 400)] + rng.normal(0, 0.1, (400, 2))).astype(np.float32)
    found = landmarks(points, 24, seed=1)
    gaps = np.sqrt(((found[:, None] - middles[None]) ** 2).sum(axis=2))
    assert gaps.min(axis=0).max() < 0.5
    assert gaps.min(axis=1).max() < 0.5


def test_there_are_no_more_than_asked_for_and_no_more_than_an_eighth_of_the_rows() -> None:
    points = np.random.default_rng(0).normal(0, 1, (400, 3)).astype(np.float32)
    assert len(landmarks(points, 10, seed=0)) == 10
    assert len(landmarks(points, 1000, seed=0)) == 50
    assert len(landmarks(points[:0], 10, seed=0)) == 1


def test_equal_rows_give_one_landmark_and_a_seed_the_same_ones() -> None:
    assert len(landmarks(np.ones((100, 2), np.float32), 8, seed=0)) == 1
    points = np.random.default_rng(0).normal(0, 1, (400, 3)).astype(np.float32)
    assert landmarks(points, 10, seed=3).tobytes() == landmarks(points, 10, seed=3).tobytes()
