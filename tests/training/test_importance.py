"""Permutation importance: what the model uses counts, what it does not use does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_ml.features import DENSE_NAMES, N_TEXT_BUCKETS
from router_ml.shelf import Shelf
from router_ml_training.dataset import Dataset
from router_ml_training.importance import (
    GROUPS,
    bundle_chances,
    feature_parts,
    importance_of,
    model_chances,
    permutation_importance,
)
from router_ml_training.pipeline import Run, train_bundle
from router_ml_training.settings import TrainingSettings

CHARS = DENSE_NAMES.index("text.log_chars")


@pytest.fixture(scope="module")
def data(world: Any) -> Dataset:
    return world.dataset(300, seed=3)


@pytest.fixture(scope="module")
def run(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    from datetime import UTC, datetime

    shelf, settings = Shelf(tmp_path_factory.mktemp("models")), TrainingSettings(learners=("constant", "linear"))
    now = datetime(2026, 2, 1, tzinfo=UTC)
    return train_bundle(world.dataset(500), world.ladder, settings, shelf, quality=0.97, now=now, description="x")


def by_length(rows: Dataset) -> np.ndarray:
    """A model that looks at the number of characters alone: the longest prompts need the large tier."""
    long = rows.dense[:, CHARS] > np.median(rows.dense[:, CHARS])
    return np.stack([np.where(long, 0.1, 0.9), np.full(len(rows), 0.8)], axis=1)


def knows(predict: Callable[[Dataset], np.ndarray], data: Dataset) -> Dataset:
    """The rows with outcomes that the model foresees."""
    return replace(data, quality=(predict(data) > 0.5).astype(float), escalated=np.zeros((len(data), 2), bool))


def measured(data: Dataset, predict: Callable[[Dataset], np.ndarray], **options: Any) -> dict[str, Any]:
    cost = np.tile([0.0, 0.1], (len(data), 1))
    found = permutation_importance(data, predict, (cost, 1.0), rng=np.random.default_rng(0), **options)
    return {one.name: one for one in found}


def test_only_what_the_model_looks_at_counts_and_its_block_with_it(data: Dataset) -> None:
    found = measured(knows(by_length, data), by_length)
    column, block = found["text.log_chars"], found["all of text"]
    for one in (column, block):
        assert one.low > 0.3
        assert 0.3 < one.decisions < 0.7
    others = [one for name, one in found.items() if name not in ("text.log_chars", "all of text")]
    assert others
    assert all(one.loss == one.decisions == 0.0 for one in others)
    assert list(found)[:2] in (["text.log_chars", "all of text"], ["all of text", "text.log_chars"])
    assert (column.group, block.group) == (False, True)


def test_words_and_metadata_are_shuffled_apart(world: Any) -> None:
    def by_ids(rows: Dataset) -> np.ndarray:
        is_word = rows.text.indices < N_TEXT_BUCKETS
        words = np.bincount(np.repeat(np.arange(len(rows)), np.diff(rows.text.indptr)), is_word, len(rows))
        return np.stack([np.where(words > np.median(words), 0.1, 0.9), np.full(len(rows), 0.8)], axis=1)

    data = world.dataset(300, seed=4)
    found = measured(knows(by_ids, data), by_ids)
    assert found["words"].loss > 0.3
    assert {name for name, one in found.items() if one.loss > 0} == {"words"}


def test_columns_that_never_vary_are_left_out_and_each_part_is_named_once(data: Dataset) -> None:
    parts = feature_parts()
    assert set(GROUPS) | set(DENSE_NAMES) == set(parts)
    constant = {name for i, name in enumerate(DENSE_NAMES) if np.ptp(data.dense[:, i]) == 0}
    assert constant
    assert not constant & set(measured(knows(by_length, data), by_length))


def test_the_number_of_predictions_is_bounded_whatever_the_log(data: Dataset) -> None:
    asked: list[int] = []

    def counted(rows: Dataset) -> np.ndarray:
        asked.append(len(rows))
        return np.full((len(rows), 2), 0.5)

    measured(data, counted, predictions=1000)
    assert 0 < sum(asked) <= 1000
    assert len(set(asked)) == 1


def test_a_log_without_a_known_outcome_has_no_importance(data: Dataset) -> None:
    silent = replace(data, quality=np.full((len(data), 2), np.nan))
    assert measured(silent, by_length) == {}


def test_the_rows_that_were_given_stay_as_they_were(data: Dataset) -> None:
    before = data.dense.copy(), data.text.copy()
    measured(knows(by_length, data), by_length)
    assert (data.dense == before[0]).all()
    assert (data.text != before[1]).nnz == 0


def test_a_fresh_model_and_its_bundle_lean_on_the_same_features(run: Run) -> None:
    test, policy = run.trained.test, run.trained.policy
    model, bundle = (
        importance_of(test, policy, predict, quality=0.97, rng=np.random.default_rng(1))
        for predict in (model_chances(run.trained.competition.winner), bundle_chances(run.bundle))
    )
    assert model[0].name == bundle[0].name
    assert model[0].low > 0
    assert [one.loss for one in bundle] == pytest.approx([one.loss for one in model], abs=1e-4)
