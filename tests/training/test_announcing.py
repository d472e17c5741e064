"""`router-ml promote` and `rollback` as a person runs them: MLflow's alias follows, and its absence stops nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router_ml.config import load_config
from router_ml.shelf import Shelf
from router_ml_training.announcing import tell_mlflow
from router_ml_training.pipeline import Run
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking import log_training
from tests.training.mlflow_server import MlflowServer, Wire
from tests.training.tracking_records import alias_version, record_around, renamed

A, B = "router-2026-02-01.1", "router-2026-02-01.2"


@pytest.fixture
def home(tmp_path: Path, trained_run: Run) -> Path:
    """A folder with two bundles, and a configuration that says nothing of MLflow."""
    shutil.copytree(trained_run.bundle.path, tmp_path / "models" / A)
    renamed(trained_run.bundle.path, B, tmp_path / "models")
    (tmp_path / "router.toml").write_text('models_dir = "models"\n')
    return tmp_path


@pytest.fixture
def run(home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("router-ml")), *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return call


@pytest.mark.slow
@pytest.mark.e2e
def test_the_alias_follows_and_waits_while_the_server_is_away(
    home: Path, run: Callable[..., Any], mlflow_server: MlflowServer
) -> None:
    name, wire = uuid.uuid4().hex, Wire(mlflow_server.port, b"")
    settings = MlflowSettings(tracking_uri=mlflow_server.url, experiment=f"e-{name}", registered_model=f"m-{name}")
    for version in (A, B):
        log_training(record_around(home / "models" / version, key=f"{name}{version}"), settings=settings)
    section = f'[mlflow]\ntracking_uri = "{wire.url}"\nexperiment = "e-{name}"\nregistered_model = "m-{name}"\n'
    (home / "router.toml").write_text(f'models_dir = "models"\n{section}')

    def alias() -> str | None:
        return alias_version("champion", settings=settings)

    done = run("promote", A)
    assert (done.returncode, done.stderr) == (0, "")
    assert alias() == A
    assert run("promote", B, "--no-mlflow").returncode == 0
    assert alias() == A
    assert run("promote", B).returncode == 0
    assert alias() == B

    wire.close()
    done = run("rollback")
    assert done.returncode == 0, "the switch needs no MLflow"
    assert "MLflow's alias 'champion' waits in" in done.stderr
    assert (Shelf(home / "models").champion(), alias()) == (A, B)
    wire.mend()
    done = run("follow", "--json")
    assert done.returncode == 0, done.stderr
    assert '"changed": false' in done.stdout
    assert (Shelf(home / "models").champion(), alias()) == (A, A)
    wire.close()


def test_where_nothing_was_ever_recorded_mlflow_is_not_begun(home: Path, run: Callable[..., Any]) -> None:
    done = run("promote", A)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in home.iterdir()) == ["models", "router.toml"]
    assert not (home / "models" / ".retrain").exists()


def test_a_section_that_is_wrong_is_a_warning(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "router.toml").write_text('[mlflow]\ntraking_uri = "x"\n')
    tell_mlflow(load_config(home / "router.toml", {}), Shelf(home / "models"))
    assert "stays where it is" in caplog.text
    assert "did you mean 'tracking_uri'" in caplog.text


@pytest.mark.slow
def test_a_database_is_found_whatever_options_follow_it(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "own.db").write_text("no database")
    (home / "router.toml").write_text(f'[mlflow]\ntracking_uri = "sqlite:///{home}/own.db?timeout=5"\n')
    tell_mlflow(load_config(home / "router.toml", {}), Shelf(home / "models"))
    assert "waits in" in caplog.text
