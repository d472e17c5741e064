"""The verifier: it finds what answers give away, says what that means for dearer tiers, and knows when it is no use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from router_ml.schema import Interaction
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.verifier import Transfer, Verified, cross_fit_verifier, expecting, judge_answers, scattered
from router_ml_training.verifier_heads import Mix

NAMES = ("small", "large")


@pytest.fixture(scope="module")
def verified(judged_world: Dataset, chances: Callable[[Dataset], np.ndarray]) -> Verified:
    found = cross_fit_verifier(judged_world, chances(judged_world), seed=0)
    assert found is not None
    return found


def test_held_out_judgements_tell_good_answers_from_poor_ones(judged_world: Dataset, verified: Verified) -> None:
    v, good = verified.posterior[:, 0], judged_world.quality[:, 0] > 0.5
    assert v[good].mean() > 0.75
    assert v[~good].mean() < 0.35
    assert verified.earned
    assert abs(v.mean() - good.mean()) < 0.03, "calibrated"


def test_a_dearer_tier_is_not_taken_for_good_because_the_cheaper_one_is_bad(
    judged_world: Dataset, verified: Verified
) -> None:
    told = verified.posterior[:, 0] < 0.1
    assert told.sum() > 100
    truth = judged_world.quality[told, 1].mean()
    assert verified.posterior[told, 1].mean() == pytest.approx(truth, abs=0.1)


def test_answers_that_give_nothing_away_earn_no_verifier(world: Any, answered: Callable[..., Any]) -> None:
    data = build_dataset(answered(world.log(500, 5), np.random.default_rng(1), tell=0.0), NAMES)
    level = world.draw(500, np.random.default_rng(5)).difficulty
    found = cross_fit_verifier(data, np.stack([world.p_small[level], world.p_large[level]], axis=1), seed=0)
    assert found is not None
    assert not found.earned


def test_few_answers_make_no_verifier(judged_world: Dataset) -> None:
    few = judged_world.rows(np.arange(100))
    assert cross_fit_verifier(few, np.full((100, 2), 0.5), seed=0) is None


def test_chains_teach_what_a_failure_leaves_of_the_dearer_tier(world: Any, answered: Callable[..., Any]) -> None:
    data = build_dataset(answered(world.log(800, 5, policy="chain"), np.random.default_rng(1)), NAMES)
    level = world.draw(800, np.random.default_rng(5)).difficulty
    found = cross_fit_verifier(data, np.stack([world.p_small[level], world.p_large[level]], axis=1), seed=0)
    assert found is not None
    transfer = found.model.transfers[0, 1]
    assert transfer.given_failure
    assert transfer.slip == pytest.approx(0.08)
    poor = found.posterior[:, 0] < 0.1
    assert found.posterior[poor, 1].mean() == pytest.approx(world.p_large_if_failed[level[poor]].mean(), abs=0.08)


def test_a_tier_with_few_answers_shares_the_head_of_all(judged_world: Dataset) -> None:
    answers = judged_world.answers
    tier = np.where(np.arange(600) < 560, 0, 1)
    quality = np.column_stack((judged_world.quality[:, 0], judged_world.quality[:, 0], judged_world.quality[:, 1]))
    three = replace(
        judged_world,
        tiers=("small", "medium", "large"),
        quality=quality,
        cost_usd=np.tile([1e-4, 3e-4, 1e-3], (600, 1)),
        escalated=np.zeros(quality.shape, np.bool_),
        answers=replace(answers, tier=tier),
    )
    found = cross_fit_verifier(three, np.full((600, 3), 0.6), seed=0)
    assert found is not None
    assert found.model.heads[0] is not found.model.heads[1]
    rare, good = found.posterior[560:, 1], quality[560:, 1] > 0.5
    assert rare[good].mean() > rare[~good].mean() + 0.3


def test_a_use_case_is_learned_when_data_suffice(world: Any, answered: Callable[..., list[Interaction]]) -> None:
    # The same phrase is how one team's good answers sound, and how the other's poor ones do.
    log = answered(world.log(1200, 5), np.random.default_rng(1))
    twisted = []
    for i, item in enumerate(log):
        good = bool(item.attempts[0].verdicts[0].adequate)
        text = "As agreed" if good == (i % 2 == 0) else "In short"
        first = item.attempts[0].model_copy(update={"response": text})
        update = {"attempts": (first, item.attempts[1]), "use_case": "a" if i % 2 == 0 else "b"}
        twisted.append(item.model_copy(update=update))
    blind = [item.model_copy(update={"use_case": None}) for item in twisted]
    gaps = []
    for one in (twisted, blind):
        data = build_dataset(one, NAMES)
        found = cross_fit_verifier(data, np.full((len(data), 2), 0.6), seed=0)
        assert found is not None
        v, right = found.posterior[:, 0], data.quality[:, 0] > 0.5
        gaps.append(v[right].mean() - v[~right].mean())
    assert gaps[0] > 0.5
    assert gaps[0] > gaps[1] + 0.1, gaps


def test_posteriors_are_arranged_by_row_and_tier(judged_world: Dataset, verified: Verified) -> None:
    by_row = verified.by_row(600)
    assert by_row.shape == (600, 2, 2)
    assert np.array_equal(by_row[:, 0], verified.posterior)
    assert np.isnan(by_row[:, 1]).all()
    part = judged_world.rows(np.arange(5))
    judged = judge_answers(verified.model, part, np.full((5, 2), 0.5), np.full((5, 2), 100.0))
    assert judged.shape == (5, 2, 2)
    assert ((judged[:, 0] > 0) & (judged[:, 0] < 1)).all()
    assert np.isnan(scattered(part.answers, judged[:, 0], 9)[5:]).all()
    assert not np.array_equal(expecting(part.answers, np.full((5, 2), 9.0)).dense, part.answers.dense, equal_nan=True)


def test_the_dearest_tiers_answer_changes_nothing(judged_world: Dataset, verified: Verified) -> None:
    before = np.full((3, 2), 0.4)
    design = verified.model.encoder.encode(judged_world.answers.take(np.arange(3)))
    assert np.array_equal(verified.model.posterior(design, before, np.ones(3, np.int64)), before)


def test_a_transfer_is_the_mixture_it_says() -> None:
    mix = Mix(np.array([1.0, 0.5]), 0.2)
    before, moved, v = np.array([0.3]), np.array([-1.0]), np.array([0.25])
    p = expit(0.3 - 0.5 + 0.2)
    assert Transfer(mix, given_failure=False, slip=0.1).chance(before, moved, v)[0] == pytest.approx(p)
    mixed = Transfer(mix, given_failure=True, slip=0.1).chance(before, moved, v)[0]
    assert mixed == pytest.approx(0.25 * 0.9 + 0.75 * p)
