"""Rows with scores: a bundle scores as the models it was made of; costs in the unit a policy's price is meant in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import Bundle, ManifestDraft, TrainedOn, load_bundle, write_bundle
from router_ml.errors import DataError
from router_ml_training.learning import Trained, learn
from router_ml_training.scored import Scored, score_with_bundle, score_with_models
from router_ml_training.settings import TrainingSettings


@pytest.fixture(scope="module")
def trained(world: Any) -> Trained:
    return learn(world.dataset(300), world.ladder, TrainingSettings(learners=("linear",)))


@pytest.fixture(scope="module")
def bundle(world: Any, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    draft = ManifestDraft(
        version="v1",
        created="2026-01-01T00:00:00Z",
        trained_on=TrainedOn(digest="d", n_interactions=300, description="made up"),
        learner="linear",
    )
    folder: Path = tmp_path_factory.mktemp("shelf")
    return load_bundle(write_bundle(folder, manifest=draft, policy=trained.policy, model=trained.graph))


def test_a_bundle_scores_as_the_models_it_was_made_of(world: Any, trained: Trained, bundle: Bundle) -> None:
    data = world.dataset(1203, 8)  # more than one chunk
    theirs = score_with_bundle(data, bundle, world.ladder)
    model = trained.competition.winner
    mine = score_with_models(data, model, trained.tokens, world.ladder)
    np.testing.assert_allclose(theirs.adequacy, mine.adequacy, atol=1e-5)
    np.testing.assert_allclose(theirs.cost_usd, mine.cost_usd, rtol=1e-4)


def test_a_bundle_of_other_tiers_is_refused(world: Any, bundle: Bundle) -> None:
    other = replace(world.dataset(10), tiers=("large", "small"))
    with pytest.raises(DataError, match="v1 routes between small, large, the log is about large, small"):
        score_with_bundle(other, bundle, world.ladder)


def test_costs_relative_to_the_dearest_answer(world: Any) -> None:
    data = world.dataset(2)
    scored = Scored(data, np.full((2, 2), 0.5), np.array([[0.1, 0.4], [0.0, 0.0]]))
    assert scored.cost_in("usd") is scored.cost_usd
    np.testing.assert_array_equal(scored.cost_in("relative"), [[0.25, 1.0], [0.0, 0.0]])
