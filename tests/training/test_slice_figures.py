"""A policy slice by slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from router_ml.features import DENSE_NAMES
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.evaluation.strategies import strategy_of
from router_ml_training.slice_figures import ALL, slice_figures

N = 200


@pytest.fixture(scope="module")
def data(world: Any) -> Dataset:
    """Rows of which 40 ask for JSON, and 5 have an attachment."""
    data = world.dataset(N, seed=1)
    data.dense[:, DENSE_NAMES.index("structure.wants_json")] = np.arange(N) < 40
    data.dense[:, DENSE_NAMES.index("structure.log_images")] = np.arange(N) < 5
    return data


def test_each_slice_is_measured_against_the_best_tier_of_the_whole_on_its_own_rows(data: Dataset) -> None:
    quality = np.tile([0.5, 1.0], (N, 1))
    quality[:40] = [1.0, 0.8]  # the small tier is better where JSON is asked for
    outcomes = Outcomes(quality, np.tile([1.0, 10.0], (N, 1)))
    column = np.where(np.arange(N) < 40, 0, 1)
    whole = strategy_of("router", column, outcomes)
    spent = quality[np.arange(N), column], outcomes.cost[np.arange(N), column]
    found = slice_figures(data, whole, *spent, outcomes, rng=np.random.default_rng(0), draws=100)
    assert (found[0].name, found[0].n, found[0].saving) == (ALL, N, whole.saving)
    slices = {one.name: one for one in found}
    json = slices["JSON answers"]
    assert (json.n, json.quality_kept.value, json.saving.value) == (40, pytest.approx(1.25), pytest.approx(0.9))
    assert slices["short prompts"].quality_kept.low is not None


def test_slices_of_a_few_requests_are_left_out_and_the_largest_comes_first(data: Dataset) -> None:
    outcomes = Outcomes(np.ones((N, 2)), np.tile([1.0, 10.0], (N, 1)))
    whole = strategy_of("router", np.zeros(N, int), outcomes)
    found = slice_figures(data, whole, np.ones(N), np.ones(N), outcomes, rng=np.random.default_rng(0), draws=0)
    assert "with attachments" not in {one.name for one in found}
    sizes = [one.n for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert found[1].saving.low is None
