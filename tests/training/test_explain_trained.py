"""Explanations of bundles as training makes them: linear models and trees alike."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import load_bundle
from router_ml.config import ExplorationSettings, PolicySettings
from router_ml.explain import Explanation, explain
from router_ml.router import Router
from router_ml.schema import Request
from router_ml.shelf import Shelf
from router_ml_training.pipeline import train_bundle
from router_ml_training.settings import TrainingSettings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_default_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: tmp_path / "no default")


@pytest.fixture(params=["linear", "gbdt"])
def router(request: pytest.FixtureRequest, world: Any, tmp_path: Path) -> Router:
    shelf = Shelf(tmp_path / "models")
    settings = TrainingSettings(learners=(request.param,))
    run = train_bundle(
        world.dataset(600), world.ladder, settings, shelf, quality=0.97, now=NOW, description="made-up requests"
    )
    return Router(load_bundle(shelf.path(run.version)), PolicySettings(), ExplorationSettings(), {})


def explained(router: Router, text: str) -> Explanation:
    request = Request(messages=({"role": "user", "content": text},))
    decision = router.route(request, decision_id="d", rng=np.random.default_rng(0))
    return explain(router, request, decision)


def test_what_makes_a_request_hard_or_easy_is_found(router: Router) -> None:
    hard = explained(router, "alpha beta prove gamma delta number 7")
    assert hard.contributions, "something in a request matters to every learner that found a pattern"
    words = {
        one.name: one
        for text in ("alpha prove beta", "alpha greet beta")
        for one in explained(router, text).contributions
    }
    if router.bundle.manifest.learner == "linear":
        assert words['"prove"'].change["small"] < 0 < words['"greet"'].change["small"]
    assert hard.qualities[0].high == 1.0
    assert hard.frontier_point is not None
