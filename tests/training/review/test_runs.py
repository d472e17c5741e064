"""Two runs of a real MLflow side by side, and what is said where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from router_ml.errors import DataError, RouterError
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.gates import GateLine
from router_ml_training.pipeline import Run
from router_ml_training.review.runs import run_table
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking import log_gates, log_training
from tests.training.tracking_records import record_around


@pytest.mark.slow
def test_settings_figures_and_gates_of_two_runs_stand_beside_each_other(
    mlflow_local: MlflowSettings, trained_run: Run, tmp_path: Path
) -> None:
    first = record_around(trained_run.bundle.path)
    again = replace(
        first,
        name="router-2026-02-02.1",
        key="another key",
        params={"learner": "gbdt"},
        metrics={"apgr": Figure(0.7, 0.68, None), "allow": Figure(1.0)},
    )
    runs = {one.name: log_training(one, settings=mlflow_local) for one in (first, again)}
    log_gates(runs[again.name], [GateLine("size", True, "small", 4.99, 200.0)], settings=mlflow_local)

    relative = mlflow_local.model_copy(update={"tracking_uri": "sqlite:///mlflow.db"})
    found = {(row["kind"], row["name"]): row for row in run_table(runs, relative, tmp_path).to_dicts()}
    learner, apgr = found["setting", "learner"], found["figure", "apgr"]
    assert [learner[name] for name in runs] == ["linear", "gbdt"]
    assert [apgr[name] for name in runs] == ["0.6600 (0.6400 to 0.6800)", "0.7000 (0.6800 to ?)"]
    assert ("figure", "apgr_low") not in found
    assert ("figure", "allow") in found
    assert [found["gate", "size"][name] for name in runs] == ["-", "passed: 4.99, limit 200"]
    assert found["tag", "data.rows"][first.name] == "1000"
    with pytest.raises(RouterError, match="could not be used"):
        run_table({"v": "no-such-run"}, mlflow_local, tmp_path)


def test_what_was_not_recorded_or_is_not_there_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="v2: not recorded in MLflow"):
        run_table({"v1": "run", "v2": None}, MlflowSettings(), tmp_path)
    with pytest.raises(DataError, match="There is no MLflow database at"):
        run_table({"v1": "run"}, MlflowSettings(), tmp_path)
    (tmp_path / "there.db").write_text("no database")
    located = MlflowSettings(tracking_uri="sqlite:///there.db?timeout=5")
    with pytest.raises(RouterError, match="could not be used"):
        run_table({"v1": "run"}, located, tmp_path)
    (tmp_path / "there.db").unlink()
    assert list(tmp_path.iterdir()) == []
