"""Retraining as one path: a bundle that loads, versions that count up, a worse one never in service, no leftovers."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from router_ml.bundle import load_bundle
from router_ml.errors import BundleCorrupt, BundleMismatch, DataError, ParityError
from router_ml.features import featurize
from router_ml.schema import Request
from router_ml.shelf import Shelf
from router_ml_training import learning, pipeline
from router_ml_training.dataset import Dataset
from router_ml_training.pipeline import Run, next_version, promote_if_not_worse, train_bundle
from router_ml_training.profile import load_profile
from router_ml_training.settings import TrainingSettings
from router_ml_training.tasks import AdequacyModel
from router_ml_training.tokens import TokenModel

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SETTINGS = TrainingSettings(learners=("constant", "length", "linear", "gbdt"))
FAST = TrainingSettings(learners=("linear",))


@pytest.fixture(autouse=True)
def no_default_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle that ships with the project is no part of these tests: its training decides nothing here."""
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: tmp_path / "no default")


def train(data: Dataset, world: Any, shelf: Shelf, settings: TrainingSettings = FAST, **options: Any) -> Run:
    fields = {"quality": 0.97, "now": NOW, "description": "600 made-up requests", **options}
    return train_bundle(data, world.ladder, settings, shelf, **fields)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lied_to(data: Dataset) -> Dataset:
    """The same rows with the training labels shuffled; the held-out ones stay true."""
    cut = int(0.6 * len(data))
    shuffled = np.random.default_rng(0).permutation(data.quality[:cut])
    return replace(data, quality=np.concatenate((shuffled, data.quality[cut:])))


def test_from_a_log_to_a_bundle_in_service_and_a_worse_one_kept_out(world: Any, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "models")
    first = train(world.dataset(600, simulated="audit"), world, shelf, SETTINGS, git_commit="abc123")
    assert first.version == "router-2026-11-22.1"
    assert shelf.champion() is None
    assert load_profile(first.bundle.path) is not None
    assert {name for name, _, _ in first.drift} >= {"structure.log_input_tokens"}

    bundle = load_bundle(shelf.path(first.version))
    manifest = bundle.manifest
    assert (manifest.learner, manifest.git_commit, manifest.simulated) == (first.trained.learner, "abc123", True)
    assert manifest.created == NOW
    trained_on = manifest.trained_on
    assert (trained_on.n_interactions, trained_on.description) == (600, "600 made-up requests")
    assert trained_on.digest == first.dataset.digest
    assert trained_on.first_ts == datetime(2026, 1, 1, tzinfo=UTC)
    assert set(manifest.libraries) >= {"router-ml", "lightgbm", "onnxruntime"}
    assert manifest.metrics["apgr"].value == first.assessment.figures["apgr"].value
    assert {"ece_small", "brier_large"} <= set(manifest.metrics)
    scores = bundle.score(featurize(Request([{"role": "user", "content": "prove alpha beta"}])))
    easy = bundle.score(featurize(Request([{"role": "user", "content": "greet alpha beta"}])))
    assert easy.adequacy[0] > scores.adequacy[0] + 0.2

    assert promote_if_not_worse(first, shelf, now=NOW).passed
    assert shelf.champion() == first.version
    before = files(tmp_path / "models")

    second = train(lied_to(world.dataset(600, 7)), world, shelf)
    assert second.version == "router-2026-11-22.2"
    report = promote_if_not_worse(second, shelf, now=NOW + timedelta(hours=1))
    assert not report.passed
    assert f"worse than {first.version}" in report.reason
    after = files(tmp_path / "models")
    assert after["champion"] == before["champion"] == f"{first.version}\n".encode()
    assert after["switches.jsonl"] == before["switches.jsonl"]
    assert shelf.champion() == first.version
    assert {entry.version for entry in shelf.versions()} == {first.version, second.version}
    assert json.loads(before["switches.jsonl"])["reason"] == "there is no champion yet"


def test_the_same_data_make_the_same_bundle_but_for_its_name(world: Any, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    one, other = (train(world.dataset(300), world, shelf) for _ in range(2))
    assert files(one.bundle.path)["model.onnx"] == files(other.bundle.path)["model.onnx"]
    assert files(one.bundle.path)["policy.json"] == files(other.bundle.path)["policy.json"]


def test_versions_count_up_within_the_utc_day_and_skip_what_is_taken(world: Any, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    assert next_version(shelf, NOW) == "router-2026-11-22.1"
    for version in ("router-2026-11-22.9", "router-2026-11-22.10", "router-2026-11-22.x", "router-2026-11-21.44"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "manifest.json").write_text("{}")
    assert next_version(shelf, NOW) == "router-2026-11-22.11"
    late = datetime(2026, 11, 22, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    assert next_version(shelf, late) == "router-2026-11-23.1"


def test_before_the_first_promotion_the_default_bundle_is_the_champion(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = train(world.dataset(600), world, Shelf(tmp_path / "package"))
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: default.bundle.path)
    shelf = Shelf(tmp_path / "models")
    report = promote_if_not_worse(train(lied_to(world.dataset(600, 7)), world, shelf), shelf, now=NOW)
    assert not report.passed
    assert report.champion == default.version
    assert shelf.champion() is None


class _Damaged:
    """An exporter with a fault: the tiers of its graph are swapped."""

    def __init__(self, true: Any) -> None:
        self._true = true

    def __call__(self, adequacy: AdequacyModel, tokens: TokenModel) -> bytes:
        model = onnx.load_from_string(self._true(adequacy, tokens))
        (last,) = [node for node in model.graph.node if "adequacy" in node.output]
        last.op_type = "Gather"
        last.attribute.append(helper.make_attribute("axis", 1))
        last.input.append("swapped")
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0]), "swapped"))
        return bytes(model.SerializeToString())


def test_a_graph_that_is_not_the_model_leaves_nothing_behind(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path / "models")
    tracked: list[str] = []
    monkeypatch.setattr(learning, "to_onnx", _Damaged(learning.to_onnx))
    with pytest.raises(ParityError, match="nothing was written"):
        train(world.dataset(300), world, shelf, track=lambda *_: tracked.append("called"))
    assert list(tmp_path.iterdir()) == []
    assert tracked == []


def test_a_bundle_that_cannot_be_written_leaves_nothing_half_done(world: Any, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    data = world.dataset(300)
    train(data, world, shelf)
    before = files(tmp_path)

    def crash(*_: object) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, world, shelf, track=crash)
    assert files(tmp_path) == before


def test_too_little_to_learn_from_leaves_nothing_behind(world: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few to split"):
        train(world.dataset(30), world, Shelf(tmp_path / "models"))
    assert list(tmp_path.iterdir()) == []


def test_the_tracker_is_told_before_the_bundle_is_written_and_its_id_is_kept(world: Any, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    seen: list[tuple[str, bool]] = []

    def track(trained: Any, assessment: Any, certification: Any, dataset: Dataset, version: str) -> str:
        seen.append((version, (tmp_path / version).exists()))
        return "run-1"

    told: list[str] = []
    run = train(world.dataset(300), world, shelf, track=track, progress=told.append)
    assert seen == [(run.version, False)]
    assert run.mlflow_run_id == run.bundle.manifest.mlflow_run_id == "run-1"
    assert told[-3:] == [
        "measuring on held-out rows",
        "certifying on rows that nothing has touched",
        "recording the run",
    ]


def test_a_log_without_times_has_no_time_range(world: Any, tmp_path: Path) -> None:
    trained_on = train(world.dataset(300, ts_assigned=True), world, Shelf(tmp_path)).bundle.manifest.trained_on
    assert (trained_on.first_ts, trained_on.last_ts) == (None, None)


def test_a_champion_of_another_release_is_replaced_and_a_damaged_one_is_not(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path)
    first, second = (train(world.dataset(300), world, shelf) for _ in range(2))
    promote_if_not_worse(first, shelf, now=NOW)

    def other_release(path: Path) -> Any:
        raise BundleMismatch(f"{path}: made for feature schema 0123")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "load_bundle", other_release)
        report = promote_if_not_worse(second, shelf, now=NOW)
    assert report.passed
    assert report.reason.startswith("the champion cannot be served any more:")
    assert shelf.champion() == second.version
    (shelf.path(second.version) / "model.onnx").write_bytes(b"rotten")
    with pytest.raises(BundleCorrupt, match="checksum"):
        promote_if_not_worse(first, shelf, now=NOW)
    assert shelf.champion() == second.version


def test_a_long_log_is_certified_on_rows_that_nothing_has_touched(world: Any, tmp_path: Path) -> None:
    run = train(world.dataset(900), world, Shelf(tmp_path))
    split = run.trained.split
    parts = (split.train, split.tune, split.certify, split.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(900))
    assert len(split.certify) == 135
    fitted = set(run.trained.competition.fitted.ts.tolist())
    assert run.trained.certify is not None
    assert not fitted & set(run.trained.certify.dataset.ts.tolist())
    record = run.bundle.manifest.certificate
    assert record == run.certification.to_dict()
    assert (record["n_set_aside"], record["n_known"], record["allowed_loss"]) == (135, 135, 0.03)


def test_a_short_log_is_learned_from_whole_and_says_that_nothing_is_proven(world: Any, tmp_path: Path) -> None:
    run = train(world.dataset(300), world, Shelf(tmp_path))
    assert len(run.trained.split.certify) == 0
    assert run.trained.certify is None
    record = run.bundle.manifest.certificate
    assert record is not None
    assert record["verdict"].startswith("No certificate")
    assert record["beyond_constant"] is False
