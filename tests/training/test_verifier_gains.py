"""Heads for what a dearer tier adds: learned where both outcomes are known, silent elsewhere, never beyond 0 and 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from router_ml_training.dataset import Dataset
from router_ml_training.verifier import Verified, cross_fit_verifier, opinions_before
from router_ml_training.verifier_encoder import fit_answer_encoder
from router_ml_training.verifier_gains import fit_gain_head, gain_pairs, gains_of, with_gains


@pytest.fixture(scope="module")
def hinting(judged_world: Dataset) -> Dataset:
    """The large tier does well exactly where the small one's answer has a mark that says nothing of that answer."""
    rng = np.random.default_rng(3)
    marked = rng.random(600) < 0.85
    dense = judged_world.answers.dense.copy()
    dense[:, 0] = marked
    quality = np.column_stack((judged_world.quality[:, 0], marked.astype(float)))
    return replace(judged_world, quality=quality, answers=replace(judged_world.answers, dense=dense))


@pytest.fixture(scope="module")
def verified(hinting: Dataset, chances: Callable[[Dataset], np.ndarray]) -> Verified:
    found = cross_fit_verifier(hinting, chances(hinting), seed=0)
    assert found is not None
    return found


def test_what_an_answer_says_of_the_dearer_tier_alone_is_learned(hinting: Dataset, verified: Verified) -> None:
    # A transfer hears of the dearer tier only through the judgement of the answer, which the mark does not move.
    marked = hinting.quality[:, 1] > 0.5
    assert set(verified.model.gains) == {(0, 1)}
    assert verified.posterior[marked, 1].mean() > verified.posterior[~marked, 1].mean() + 0.1


def test_pairs_are_those_on_the_hull_with_both_outcomes_on_enough_rows() -> None:
    rng = np.random.default_rng(0)
    row = np.arange(800)
    tier = np.zeros(800, np.int64)
    cost = np.tile([1.0, 5.0, 3.0, 9.0], (800, 1))
    quality = (rng.random((800, 4)) < [0.5, 0.4, 0.7, 0.9]).astype(float)
    quality[250:, 3] = np.nan
    found = gain_pairs(tier, row, quality, cost, seed=0)
    # The second is dearer and worse, the fourth known on too few rows, the third never answered.
    assert list(found) == [(0, 2)]
    assert np.array_equal(found[0, 2], row)


def test_more_rows_than_needed_are_sampled_the_same_way_each_time() -> None:
    n = 12_000
    quality, cost = np.tile([0.5, 0.9], (n, 1)), np.tile([1.0, 9.0], (n, 1))
    first, again = (gain_pairs(np.zeros(n, np.int64), np.arange(n), quality, cost, seed=1)[0, 1] for _ in range(2))
    assert len(first) == 10_000
    assert np.array_equal(first, again)


def test_tiers_of_which_nothing_is_known_have_no_pairs() -> None:
    unknown = np.full((400, 2), np.nan)
    assert gain_pairs(np.zeros(400, np.int64), np.arange(400), unknown, unknown, seed=0) == {}


def test_few_rows_get_no_trees_and_a_constant_gain_is_found(judged_world: Dataset) -> None:
    answers = judged_world.answers.take(np.arange(80))
    design = fit_answer_encoder(answers).encode(answers)
    before = opinions_before(np.full((80, 2), 0.7), answers.tier)
    head = fit_gain_head(design, before, np.full(80, 0.25), seed=0)
    assert head.trees is None
    said = gains_of({(0, 1): head}, design, before, answers.tier, 2)
    assert said[:, 1] == pytest.approx(0.25)
    assert np.isnan(said[:, 0]).all()


def test_a_gain_moves_the_chance_half_way_and_never_beyond_certainty() -> None:
    transferred, v = np.array([0.8, 0.8, 0.9, 0.1]), np.array([0.5, 0.5, 0.9, 0.1])
    gain = np.array([0.1, np.nan, 0.9, -0.9])
    assert with_gains(transferred, v, gain) == pytest.approx([0.7, 0.8, 1.0, 0.0])
