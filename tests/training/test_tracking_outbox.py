"""What MLflow could not be told: kept whole on disk, told later, once, in order."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from router_ml.errors import RouterError
from router_ml_training.gates import GateLine
from router_ml_training.pipeline import Run
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_outbox import flush_outbox, keep_gates, keep_run, outbox_of
from tests.training.tracking_records import alias_version, record_around, renamed

NOWHERE = MlflowSettings(tracking_uri="http://127.0.0.1:1")


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return outbox_of(tmp_path / "models")


@pytest.mark.slow
def test_runs_and_gates_are_told_once_in_order(
    trained_run: Run, outbox: Path, tmp_path: Path, mlflow_local: MlflowSettings
) -> None:
    first = trained_run.bundle.path
    later = renamed(first, "router-2026-02-02.1", tmp_path)
    keep_run(record_around(first), outbox)
    keep_gates("router-2026-02-01.1", "a key", [GateLine("size", True, "small", 1.0, 2.0)], outbox)
    keep_run(record_around(later, key="another"), outbox)
    with pytest.raises(RouterError, match="cannot be reached"):
        flush_outbox(NOWHERE, outbox)

    assert flush_outbox(mlflow_local, outbox) == ["router-2026-02-01.1", "router-2026-02-02.1"]
    assert alias_version("challenger", settings=mlflow_local) == "router-2026-02-02.1"
    judged = _client(mlflow_local).get_model_version("router", "1")
    assert (judged.tags["gate.size"], judged.tags["validation_status"]) == ("passed", "passed")
    assert list(outbox.iterdir()) == []
    assert flush_outbox(mlflow_local, outbox) == []


@pytest.mark.slow
def test_a_run_that_was_recorded_in_the_meantime_is_not_recorded_again(
    trained_run: Run, outbox: Path, mlflow_local: MlflowSettings
) -> None:
    record = record_around(trained_run.bundle.path)
    for _ in range(2):  # killed between the recording and the clearing: the same is told again
        keep_run(record, outbox)
        flush_outbox(mlflow_local, outbox)
    assert len(_client(mlflow_local).search_model_versions("name = 'router'")) == 1


def test_an_empty_outbox_asks_nobody(outbox: Path) -> None:
    assert flush_outbox(NOWHERE, outbox) == []


def test_a_version_kept_twice_is_kept_once(trained_run: Run, outbox: Path) -> None:
    for _ in range(2):
        keep_run(record_around(trained_run.bundle.path), outbox)
    assert [path.name for path in outbox.iterdir()] == ["router-2026-02-01.1"]


def test_what_is_damaged_is_an_error_that_names_it(trained_run: Run, outbox: Path) -> None:
    kept = keep_run(record_around(trained_run.bundle.path), outbox)
    (kept / "record.json").write_text('{"name": 1')
    with pytest.raises(RouterError, match=r"router-2026-02-01\.1: cannot be read .*delete it"):
        flush_outbox(NOWHERE, outbox)


@pytest.mark.slow
def test_one_that_was_being_cleared_when_the_process_was_killed_stops_nobody(
    trained_run: Run, outbox: Path, mlflow_local: MlflowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, remove = record_around(trained_run.bundle.path), shutil.rmtree

    def killed(path: Any, *args: Any, **options: Any) -> None:
        if outbox in Path(path).parents and Path(path).exists():
            (Path(path) / "record.json").unlink()
            raise KeyboardInterrupt
        remove(path, *args, **options)

    keep_run(record, outbox)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            flush_outbox(mlflow_local, outbox)
    assert flush_outbox(mlflow_local, outbox) == []
    keep_run(record, outbox)
    assert flush_outbox(mlflow_local, outbox) == [record.name]
    assert list(outbox.iterdir()) == []


def test_an_outbox_that_cannot_be_written_is_an_error(trained_run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outbox = tmp_path / "file" / "outbox"
    with pytest.raises(RouterError, match="cannot be kept for MLflow"):
        keep_run(record_around(trained_run.bundle.path), outbox)
    with pytest.raises(RouterError, match="cannot be kept for MLflow"):
        keep_gates("v", "key", [], outbox)


def _client(settings: MlflowSettings) -> Any:
    import mlflow

    return mlflow.MlflowClient(settings.tracking_uri)
