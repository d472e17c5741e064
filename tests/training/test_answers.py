"""Answers of a log: which are kept, how they follow their rows, and that a long log keeps a bounded, stable sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from router_ml.features.answer import answer_of_attempt, answer_to_stored, featurize_answer
from router_ml.schema import Interaction
from router_ml_training.answers import AnswerCollector, Answers, joined_answers, no_answers
from router_ml_training.dataset import Dataset, build_dataset, joined

NAMES = ("small", "large")


def collect(log: list[Interaction], limit: int) -> Answers:
    collector = AnswerCollector(NAMES, limit)
    keys = np.random.default_rng(3).integers(-(2**63), 2**63 - 1, len(log), np.int64).tolist()
    for key, item in zip(keys, log, strict=True):
        collector.add(key, item, np.array([True, True]))
    return collector.collected()


def test_the_dearest_tiers_answers_are_not_kept(judged_world: Dataset) -> None:
    assert judged_world.answers.tier.tolist() == [0] * 600
    assert judged_world.answers.row.tolist() == list(range(600))


def test_answers_follow_their_rows(judged_world: Dataset) -> None:
    index = np.array([7, 3, 3, 599])
    part = judged_world.rows(index)
    assert part.answers.row.tolist() == [0, 1, 2, 3]
    assert np.array_equal(part.answers.dense, judged_world.answers.dense[index], equal_nan=True)
    mask = np.zeros(600, np.bool_)
    mask[[2, 5]] = True
    assert judged_world.rows(mask).answers.row.tolist() == [0, 1]
    both = joined(part, judged_world.rows(mask))
    assert both.answers.row.tolist() == [0, 1, 2, 3, 4, 5]
    assert (both.answers.text[[4]] != judged_world.answers.text[[2]]).nnz == 0


def test_rows_without_an_answer_have_none(world: Any, answered: Callable[..., list[Interaction]]) -> None:
    log = world.log(20)
    mixed = [*answered(log[:5], np.random.default_rng(0)), *log[5:]]
    data = build_dataset(mixed, NAMES)
    assert data.answers.row.tolist() == [0, 1, 2, 3, 4]
    assert data.rows(np.array([10, 2])).answers.row.tolist() == [1]
    assert len(world.dataset(20).answers) == 0
    assert len(joined_answers(no_answers(), no_answers())) == 0


def test_a_long_log_keeps_a_bounded_sample_of_equal_shares(
    world: Any, answered: Callable[..., list[Interaction]]
) -> None:
    log = answered(world.log(400), np.random.default_rng(0))
    some, all_of_them = collect(log, 100), collect(log, 1000)
    assert len(all_of_them) == 400
    assert 25 <= len(some) <= 100
    assert set(some.row.tolist()) < set(range(400))
    assert some.row.max() > 300, "late rows have the same chance"
    assert np.array_equal(collect(log, 100).row, some.row)


def test_which_rows_were_not_looked_at_is_known_and_follows_the_rows(
    world: Any, answered: Callable[..., list[Interaction]]
) -> None:
    log = answered(world.log(400), np.random.default_rng(0))
    some = collect(log, 100)
    assert sorted([*some.unread.tolist(), *some.row.tolist()]) == list(range(400))
    assert len(collect(log, 1000).unread) == 0
    index = np.concatenate([some.unread[:2], some.row[:1], some.unread[:1]])
    part = some.of_rows(index, 400)
    assert part.unread.tolist() == [0, 1, 3]
    assert part.row.tolist() == [2]
    assert joined_answers(part, part.shifted(4)).unread.tolist() == [0, 1, 3, 4, 5, 7]
    assert part.take(np.array([False])).unread.tolist() == [0, 1, 3]


def test_answers_that_a_check_refuses_are_known(world: Any, answered: Callable[..., list[Interaction]]) -> None:
    log = answered(world.log(6), np.random.default_rng(0))
    small, *others = log[2].attempts
    log[2] = log[2].model_copy(update={"attempts": (small.model_copy(update={"response": "I don't know."}), *others)})
    refused = collect(log, 100).refused((6, 2))
    assert np.argwhere(refused).tolist() == [[2, 0]]


def test_logged_features_stand_in_for_the_text(world: Any, answered: Callable[..., list[Interaction]]) -> None:
    log = answered(world.log(10), np.random.default_rng(0))
    textless = [item.model_copy(update={"attempts": tuple(map(_stored_for(item), item.attempts))}) for item in log]
    assert np.array_equal(collect(textless, 100).dense, collect(log, 100).dense, equal_nan=True)
    other = [_of_another_release(item) for item in textless]
    assert len(collect(other, 100)) == 0


def _stored_for(item: Interaction) -> Callable[[Any], Any]:
    def stored(attempt: Any) -> Any:
        features = answer_to_stored(featurize_answer(item.to_request(), answer_of_attempt(attempt)))
        return attempt.model_copy(update={"response": None, "features": features})

    return stored


def _of_another_release(item: Interaction) -> Interaction:
    attempts = tuple(
        one.model_copy(update={"features": one.features.model_copy(update={"schema_hash": "old"})})
        for one in item.attempts
        if one.features
    )
    return item.model_copy(update={"attempts": attempts})
