"""Trees are grown from a starting score, and no more of them than held-out rows ask for."""

from __future__ import annotations

import numpy as np
import pytest

from router_ml_training.learners.boosting import BoostingRows, grow_here

PARAMETERS = {"objective": "cross_entropy", "verbosity": -1, "num_threads": 1, "seed": 0, "boost_from_average": False}


def rows_of(n: int, seed: int, *, start: float = 0.0) -> BoostingRows:
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(n, 3)).astype(np.float32)
    target = (rng.random(n) < 1.0 / (1.0 + np.exp(-2.0 * np.abs(dense[:, 0])))).astype(np.float64)
    return BoostingRows(dense, target, np.ones(n), np.full(n, start))


def test_without_held_out_rows_all_trees_are_grown() -> None:
    found = grow_here(PARAMETERS, rows_of(500, 0), 30)
    assert (found.n_best, found.booster.num_trees()) == (30, 30)


def test_growing_stops_soon_after_the_held_out_rows_gain_no_more() -> None:
    found = grow_here({**PARAMETERS, "learning_rate": 0.3}, rows_of(300, 1), 500, rows_of(1000, 2))
    assert 0 < found.n_best == found.booster.num_trees() < 100


def test_trees_explain_what_the_starting_score_leaves() -> None:
    # Whoever starts far too high needs trees that pull down.
    low, high = (grow_here(PARAMETERS, rows_of(2000, 3, start=start), 50).booster for start in (0.0, 4.0))
    unseen = rows_of(500, 4)
    means = [float(one.predict(unseen.dense, raw_score=True).mean()) for one in (low, high)]
    assert means[0] > 0.0 > means[1]
    assert means[0] == pytest.approx(means[1] + 4.0, abs=0.4)
