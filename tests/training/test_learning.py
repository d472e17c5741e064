"""One training run as a pure function: same data, same bytes; honest splits; refusals with their reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_ml.errors import DataError
from router_ml.ladder import Ladder
from router_ml_training.learning import Trained, learn
from router_ml_training.settings import TrainingSettings

SETTINGS = TrainingSettings(learners=("constant", "linear"))


@pytest.fixture(scope="module")
def trained(world: Any) -> Trained:
    return learn(world.dataset(600), world.ladder, SETTINGS)


def test_a_run_gives_a_policy_for_its_ladder_and_a_graph_that_passed_its_gate(trained: Trained, world: Any) -> None:
    assert trained.learner == "linear"
    assert trained.policy.ladder == world.ladder
    assert trained.policy.best_tier == "large"
    assert trained.policy.frontier
    assert trained.policy.bounds is not None
    assert trained.parity.n_rows == 11_000
    assert trained.parity.n_flipped == 0
    assert [len(rows) for rows in (trained.split.train, trained.split.tune, trained.split.test)] == [270, 210, 120]


def test_the_held_out_rows_are_the_last_ones_and_nothing_was_fitted_on_them(trained: Trained, world: Any) -> None:
    data = world.dataset(600)
    assert trained.split_by == "time"
    assert trained.test.dataset.ts.min() > data.ts[trained.split.train].max()
    changed = data.quality.copy()
    changed[trained.split.test] = 1 - changed[trained.split.test]
    other = learn(replace(data, quality=changed), world.ladder, SETTINGS)
    assert other.graph == trained.graph
    assert other.policy == trained.policy


def test_the_same_data_and_seed_give_the_same_bytes(trained: Trained, world: Any) -> None:
    again = learn(world.dataset(600), world.ladder, SETTINGS)
    assert again.graph == trained.graph
    assert again.policy.model_dump_json() == trained.policy.model_dump_json()


def test_a_log_without_times_is_split_by_group(world: Any) -> None:
    data = world.dataset(300, ts_assigned=True)
    run = learn(data, world.ladder, TrainingSettings(learners=("constant",)))
    assert run.split_by == "group"
    assert run.test.dataset.ts.min() < data.ts[run.split.train].max()


def test_progress_is_told_in_words(world: Any) -> None:
    told: list[str] = []
    learn(world.dataset(200), world.ladder, TrainingSettings(learners=("constant",)), progress=told.append)
    assert told == ["fitting 'constant'", "solving the policy", "exporting, with the parity gate"]


def test_another_ladder_than_the_datasets_is_refused(world: Any) -> None:
    tiers = [tier.model_copy(update={"name": f"the-{tier.name}"}) for tier in world.ladder]
    with pytest.raises(DataError, match="the dataset is about small, large, the ladder has the-small, the-large"):
        learn(world.dataset(200), Ladder.of(tiers), SETTINGS)


def test_a_tier_that_only_the_future_knows_is_refused(world: Any) -> None:
    data = world.dataset(300)
    quality = data.quality.copy()
    quality[:250, 1] = np.nan
    with pytest.raises(DataError, match="no outcome of large is known in the 135 interactions kept for training"):
        learn(replace(data, quality=quality), world.ladder, SETTINGS)


def test_too_few_rows_are_refused(world: Any) -> None:
    with pytest.raises(DataError, match="40 interactions in 40 groups are too few to split"):
        learn(world.dataset(40), world.ladder, SETTINGS)


def test_three_tiers_are_learned_too(world: Any) -> None:
    middle = world.ladder.tiers[0].model_copy(
        update={"name": "medium", "input_usd_per_mtok": 0.8, "output_usd_per_mtok": 4.0}
    )
    data = world.dataset(300)

    def widen(table: np.ndarray) -> np.ndarray:
        return np.insert(table, 1, table[:, 0], axis=1)

    names = ("quality", "escalated", "cost_usd", "output_tokens", "propensity", "soft")
    wide = {name: widen(getattr(data, name)) for name in names}
    run = learn(replace(data, tiers=("small", "medium", "large"), **wide), Ladder.of([*world.ladder, middle]), SETTINGS)
    assert run.test.adequacy.shape == (60, 3)
    np.testing.assert_allclose(run.test.adequacy[:, 0], run.test.adequacy[:, 1], atol=0.05)


def test_a_log_on_which_every_answer_was_good_trains_a_constant(world: Any) -> None:
    data = world.dataset(300)
    run = learn(replace(data, quality=np.ones_like(data.quality)), world.ladder, SETTINGS)
    assert run.competition.choice.keep_constant
    assert run.policy.best_tier == "small"  # as good, and cheaper
