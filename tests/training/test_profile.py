"""Profiles: a window of traffic in counts, kept in the bundle, and nothing about anybody in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from router_ml.bundle import PROFILE, load_bundle, write_bundle
from router_ml.errors import BundleCorrupt
from router_ml.features import DENSE_NAMES
from router_ml.manifest import ManifestDraft, TrainedOn
from router_ml_training.dataset import build_dataset
from router_ml_training.learning import Trained, learn
from router_ml_training.profile import OTHER_CLASS, Profile, load_profile, profile_of
from router_ml_training.settings import TrainingSettings


def test_every_part_that_the_log_knows_is_there(world: Any) -> None:
    data = world.dataset(300, policy="chain")
    adequacy = np.random.default_rng(0).random((300, 2))
    found = profile_of(data, adequacy)
    assert found.n == 300
    assert found.first_ts == datetime(2026, 1, 1, tzinfo=UTC)
    assert set(found.features) == set(DENSE_NAMES)
    assert found.adequacy["small"].mean == pytest.approx(adequacy[:, 0].mean())
    assert found.first_tier is not None
    assert found.first_tier.bins == (0,)
    assert found.escalation is not None
    assert found.escalation.mean == pytest.approx(1 - data.quality[:, 0].mean())
    assert found.cost_usd["large"].n == found.output_tokens["large"].n == int(data.escalated.any(axis=1).sum())
    assert found.feedback["small"].mean == pytest.approx(data.quality[:, 0].mean())
    assert set(found.streams) == {"escalation", "chosen_answer_length"}


def test_a_table_of_outcomes_has_no_policy_and_all_tokens(world: Any) -> None:
    found = profile_of(world.dataset(100))
    assert found.first_tier is None
    assert found.escalation is None
    assert found.output_tokens["large"].n == 100
    assert found.streams["quality"]["small"].n == 100
    assert found.adequacy == {}


def test_rows_without_words_have_no_classes_and_everything_else(world: Any) -> None:
    data = world.dataset(60)
    wordless = replace(data, text=csr_array(data.text.shape, dtype=np.float32))
    found = profile_of(wordless)
    assert found.classes is None
    assert found.model_copy(update={"classes": profile_of(data).classes}) == profile_of(data)


def test_classes_are_tenants_features_and_templates_and_rare_ones_are_one(world: Any) -> None:
    def whose(i: int) -> str:
        return f"tenant-{i % 3}" if i < 90 else f"rare-{i}"

    items = [item.model_copy(update={"tenant": whose(i)}) for i, item in enumerate(world.log(100))]
    found = profile_of(build_dataset(items, ("small", "large"))).classes
    assert found is not None
    counts = dict(zip(found.bins, found.counts, strict=True))
    assert counts.pop(OTHER_CLASS) == 10
    assert sorted(counts.values()) == [30, 30, 30]


def test_adequacy_of_rows_that_the_model_was_fitted_on_is_left_out(world: Any) -> None:
    adequacy = np.full((50, 2), 0.5)
    adequacy[:30] = np.nan
    assert profile_of(world.dataset(50), adequacy).adequacy["small"].n == 20


def test_it_is_the_same_after_json(world: Any) -> None:
    found = profile_of(world.dataset(80, policy="chain"))
    assert Profile.model_validate_json(found.to_bytes()) == found


def test_it_holds_no_word_of_a_request(world: Any) -> None:
    items = [
        item.model_copy(update={"tenant": "acme", "session_id": f"ses-{i}"}) for i, item in enumerate(world.log(60))
    ]
    written = profile_of(build_dataset(items, ("small", "large"))).to_bytes().decode()
    for word in ("greet", "derive", "summarise", "alpha", "acme", "ses-", "number 7"):
        assert word not in written


def test_an_empty_window_has_a_profile(world: Any) -> None:
    found = profile_of(world.dataset(20).rows(np.zeros(0, np.int64)))
    assert (found.n, found.features, found.last_ts) == (0, {}, None)


@pytest.fixture(scope="module")
def trained(world: Any) -> Trained:
    settings = TrainingSettings(learners=("constant",))
    return learn(world.dataset(300), world.ladder, settings)


def put(folder: Path, trained: Trained, profile: bytes | None) -> Path:
    draft = ManifestDraft(
        version="v1",
        created=datetime(2026, 1, 2, tzinfo=UTC),
        trained_on=TrainedOn(digest="abc", n_interactions=300, description="made up"),
        learner="constant",
    )
    return write_bundle(folder, manifest=draft, policy=trained.policy, model=trained.graph, profile=profile)


def test_a_bundle_keeps_it_and_checks_it(world: Any, trained: Trained, tmp_path: Path) -> None:
    profile = profile_of(world.dataset(100))
    path = put(tmp_path, trained, profile.to_bytes())
    assert load_profile(path) == profile
    assert PROFILE in load_bundle(path).manifest.files
    (path / PROFILE).write_bytes(profile.to_bytes().replace(b'"n":100', b'"n":101'))
    with pytest.raises(BundleCorrupt, match=r"profile\.json: does not match its checksum"):
        load_bundle(path)


def test_a_bundle_without_one_is_as_good(trained: Trained, tmp_path: Path) -> None:
    path = put(tmp_path, trained, None)
    assert load_profile(path) is None
    assert PROFILE not in load_bundle(path).manifest.files


@pytest.mark.parametrize("edit", [lambda raw: b"{", lambda raw: json.dumps({**json.loads(raw), "format": 9}).encode()])
def test_what_is_no_profile_is_refused(
    world: Any, trained: Trained, tmp_path: Path, edit: Callable[[bytes], bytes]
) -> None:
    path = put(tmp_path, trained, edit(profile_of(world.dataset(20)).to_bytes()))
    with pytest.raises(BundleCorrupt, match="not a profile of traffic"):
        load_profile(path)
