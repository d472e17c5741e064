"""A run as it is remembered: what its report says of the model, what MLflow is given, and life without MLflow."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from router_ml.shelf import Shelf
from router_ml_training.pipeline import Run, train_bundle
from router_ml_training.records import mlflow_tracker, report_of_run
from router_ml_training.settings import MlflowSettings, TrainingSettings

NOW = datetime(2026, 2, 1, tzinfo=UTC)
SETTINGS = TrainingSettings(learners=("constant", "linear"), seed=3)


@pytest.fixture(scope="module")
def run(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    shelf = Shelf(tmp_path_factory.mktemp("models"))
    data = world.dataset(400, policy="chain")
    return train_bundle(data, world.ladder, SETTINGS, shelf, quality=0.97, now=NOW, description="400 made up")


def test_the_report_says_how_the_model_was_made(run: Run) -> None:
    report = report_of_run(run, title="A title")
    assert report.title == "A title"
    assert report.model.more["heads"] == "small marginal, large chained"
    assert report.model.more["parity"].startswith("11,000 rows, largest difference ")
    assert report.model.more["split"] == "by time"


@pytest.mark.slow
def test_mlflow_gets_the_parameters_figures_and_pictures_of_the_run(run: Run, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = MlflowSettings(tracking_uri=uri, artifacts=str(tmp_path / "artifacts"))
    track = mlflow_tracker(settings, SETTINGS, NOW, "400 made up")
    run_id = track(run.trained, run.assessment, run.certification, run.dataset, run.version)
    assert run_id is not None

    import mlflow

    client = mlflow.MlflowClient(uri)
    recorded = client.get_run(run_id)
    params, metrics = recorded.data.params, recorded.data.metrics
    assert recorded.info.run_name == run.version
    assert params["learners"] == "constant,linear"
    assert (params["learner"], params["seed"], params["split_by"]) == (run.trained.learner, "3", "time")
    assert {"saving", "quality_kept", "loss_constant", "loss_linear", "brier_small"} <= set(metrics)
    assert recorded.data.tags["dataset_digest"] == run.dataset.digest
    assert recorded.data.tags["simulated"] == "false"
    assert {"report.html", "figures"} <= {item.path for item in client.list_artifacts(run_id)}


def test_a_run_is_not_lost_when_mlflow_cannot_be_reached(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    settings = MlflowSettings(tracking_uri=f"sqlite:///{tmp_path}/file/sub/mlflow.db")
    track = mlflow_tracker(settings, SETTINGS, NOW, "400 made up")
    with caplog.at_level(logging.WARNING):
        assert track(run.trained, run.assessment, run.certification, run.dataset, run.version) is None
    assert "the run is not recorded in MLflow" in caplog.text
