"""A run as it is remembered: what its report says of the model, and life with and without MLflow."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router_ml.shelf import Shelf
from router_ml_training.gates import GateLine
from router_ml_training.pipeline import Run
from router_ml_training.records import mlflow_tracker, record_gates, record_run, report_of_run
from router_ml_training.run_record import run_key
from router_ml_training.settings import MlflowSettings, TrainingSettings
from router_ml_training.tracking_aliases import name_champion
from router_ml_training.tracking_outbox import outbox_of
from tests.training.tracking_records import alias_version

SETTINGS = TrainingSettings(learners=("constant", "linear"), seed=3)
NOWHERE = MlflowSettings(tracking_uri="http://127.0.0.1:1")
LINES = (GateLine("size", True, "small", 1.0, 2.0),)


@pytest.fixture
def shelf(trained_run: Run, tmp_path: Path) -> Shelf:
    """A shelf with the run's bundle on it."""
    shutil.copytree(trained_run.bundle.path, tmp_path / "models" / trained_run.version)
    return Shelf(tmp_path / "models")


@pytest.fixture
def outbox(shelf: Shelf) -> Path:
    return outbox_of(shelf.directory)


def begun(run: Run, settings: MlflowSettings) -> str | None:
    track = mlflow_tracker(settings, run.created)
    return track(run.trained, run.assessment, run.certification, run.dataset, run.version)


def test_the_report_says_how_the_model_was_made(trained_run: Run) -> None:
    report = report_of_run(trained_run, title="A title", draw=False)
    assert report.title == "A title"
    assert report.model.more["heads"] == "small marginal, large chained"
    assert report.model.more["parity"].startswith("11,000 rows, largest difference ")
    assert report.model.more["split"] == "by time"


@pytest.mark.slow
def test_the_run_that_was_begun_is_the_one_that_is_recorded(
    trained_run: Run, mlflow_local: MlflowSettings, shelf: Shelf, outbox: Path
) -> None:
    run_id = begun(trained_run, mlflow_local)
    assert run_id is not None
    run = replace(trained_run, mlflow_run_id=run_id)
    assert record_run(run, SETTINGS, mlflow_local, shelf, gates=LINES) == run_id
    name_champion(run.version, shelf, mlflow_local)

    client = _client(mlflow_local)
    recorded = client.get_run(run_id)
    assert recorded.info.run_name == run.version
    assert {"saving", "quality_kept", "brier_small", "gate.size"} <= set(recorded.data.metrics)
    assert recorded.data.tags["certificate"] == run.certification.verdict
    champion = client.get_model_version_by_alias("router", "champion")
    assert (champion.run_id, champion.tags["gate.size"]) == (run_id, "passed")
    assert not outbox.exists()


@pytest.mark.slow
def test_a_run_is_not_lost_when_mlflow_cannot_be_reached(
    trained_run: Run, mlflow_local: MlflowSettings, shelf: Shelf, outbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, key = trained_run, run_key(trained_run.version, trained_run.dataset.digest, trained_run.created)
    with caplog.at_level(logging.WARNING):
        assert begun(run, NOWHERE) is None
        assert record_run(run, SETTINGS, NOWHERE, shelf) is None
        record_gates(run.version, key, None, LINES, NOWHERE, outbox)
        name_champion(run.version, shelf, NOWHERE)
    for said in ("cannot be begun in MLflow", "the run is not recorded in MLflow", "'champion' waits in"):
        assert said in caplog.text

    later = replace(run, version="router-2026-02-02.1")
    record_run(replace(later, bundle=run.bundle), SETTINGS, mlflow_local, shelf)
    assert alias_version("champion", settings=mlflow_local) == run.version
    champion = _client(mlflow_local).get_model_version_by_alias("router", "champion")
    assert champion.tags["gate.size"] == "passed"
    assert list(outbox.iterdir()) == []


@pytest.mark.slow
def test_gates_of_a_recorded_run_are_recorded_at_once(
    trained_run: Run, mlflow_local: MlflowSettings, shelf: Shelf, outbox: Path
) -> None:
    run_id = record_run(trained_run, SETTINGS, mlflow_local, shelf)
    record_gates(trained_run.version, "a key", run_id, LINES, mlflow_local, outbox)
    assert _client(mlflow_local).get_run(run_id).data.tags["gate.size"] == "passed"
    assert not outbox.exists()


def _client(settings: MlflowSettings) -> Any:
    import mlflow

    return mlflow.MlflowClient(settings.tracking_uri)


def test_a_report_that_is_drawn_already_is_not_drawn_again(
    trained_run: Run, shelf: Shelf, outbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_of_run(trained_run)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("every feature is shuffled a second time")

    monkeypatch.setattr("router_ml_training.records.importance_of", never)
    assert record_run(trained_run, SETTINGS, NOWHERE, shelf, report=report) is None
    assert (outbox / trained_run.version).is_dir()
