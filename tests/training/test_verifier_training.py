"""From a log with answers to a bundle that judges them, and to `Router.judge`, as in the service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import ManifestDraft, TrainedOn, load_bundle, write_bundle
from router_ml.config import ExplorationSettings, PolicySettings
from router_ml.router import Router
from router_ml.schema import Answer, Plan, Request
from router_ml_training.dataset import Dataset
from router_ml_training.learning import Trained, learn
from router_ml_training.scored import Scored, score_with_bundle
from router_ml_training.settings import TrainingSettings
from router_ml_training.verifier_training import learn_to_judge


@pytest.fixture(scope="module")
def trained(judged_world: Dataset, world: Any) -> Trained:
    return learn(judged_world, world.ladder, TrainingSettings(learners=("linear",)))


@pytest.fixture(scope="module")
def router(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Router:
    assert trained.judge is not None
    draft = ManifestDraft(
        version="v1",
        created="2026-01-01T00:00:00Z",
        trained_on=TrainedOn(digest="d", n_interactions=600, description="made up"),
        learner="linear",
    )
    folder: Path = tmp_path_factory.mktemp("shelf")
    path = write_bundle(
        folder, manifest=draft, policy=trained.policy, model=trained.graph, verifier=trained.judge.graph
    )
    return Router(load_bundle(path), PolicySettings(), ExplorationSettings(up=0.0), {})


def test_a_log_with_answers_gives_a_judge_and_plans(trained: Trained) -> None:
    assert trained.judge is not None
    assert trained.judge.verified.earned
    assert trained.judge.max_difference < 1e-5
    assert trained.policy.plans is not None
    assert trained.test.posterior is not None
    assert not np.isnan(trained.test.posterior[:, 0]).any()


def test_the_router_judges_as_the_trained_verifier_does(trained: Trained, router: Router) -> None:
    request = Request(messages=({"role": "user", "content": "alpha derive beta gamma"},))
    decision = router.route(request, decision_id="d", rng=np.random.default_rng(0))
    decision = replace(decision, plan=Plan("small", "large"))
    good, poor = (
        router.judge(request, Answer(text, "stop", output_tokens=90), decision=decision)
        for text in ("The answer is 7. omega alpha", "I think that it could perhaps be wrong, maybe 3 + 4 = 8")
    )
    assert good is not None
    assert poor is not None
    assert good.score is not None
    assert poor.score is not None
    assert good.score > poor.score + 0.3


def test_a_bundle_judges_rows_as_the_models_it_was_made_of(
    trained: Trained, router: Router, judged_world: Dataset, world: Any
) -> None:
    rows = judged_world.rows(trained.split.test)
    theirs = score_with_bundle(rows, router.bundle, world.ladder)
    assert theirs.posterior is not None
    assert trained.test.posterior is not None
    assert theirs.posterior[:, 0] == pytest.approx(trained.test.posterior[:, 0], abs=1e-4)


def test_a_log_without_answers_gives_no_judge(world: Any) -> None:
    data = world.dataset(200)
    scored = Scored(data, np.full((200, 2), 0.5), np.ones((200, 2)))
    rng = np.random.default_rng(0)
    assert learn_to_judge(scored, np.full((200, 2), 100.0), seed=0, num_threads=1, rng=rng) is None
