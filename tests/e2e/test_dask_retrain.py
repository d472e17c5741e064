"""The same retraining on a Dask cluster of two workers: the bundle has the same contract, and routes as well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import Bundle, load_bundle
from router_ml.schema import parse_interaction
from router_ml.shelf import Shelf
from router_ml.store import open_store
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.scored import score_with_bundle
from router_ml_training.simulate.outcomes import load_outcomes, parse_tiers
from router_ml_training.simulate.policies import simulate_log

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(600)]

TOML = """
models_dir = "{home}/models"

[store]
url = "sqlite:///{home}/events.db"

[training]
learners = ["constant", "gbdt"]
test_share = 0.4
certify_share = 0.0
num_threads = 2
engine = "{engine}"

[[tiers]]
name = "small"
model = "gpt-4o-mini"

[[tiers]]
name = "large"
model = "gpt-4o"
"""
PROGRAM = "import sys; from router_ml.cli import main; sys.exit(main(sys.argv[1:]))"
LIMIT_S = 280.0
TIERS = "small=gpt-4o-mini,large=gpt-4o"


def started(*arguments: str) -> subprocess.Popen[str]:
    """Start a command of router-ml in a process and a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def retraining(log: Path, home: Path, engine: str) -> subprocess.Popen[str]:
    home.mkdir()
    config = home / "router.toml"
    config.write_text(TOML.format(home=home, engine=engine))
    store = f"sqlite:///{log}"
    return started("retrain", "--store", store, "--config", str(config), "--no-mlflow", "--json")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An event store with six thousand requests, every tier's outcome known."""
    folder = tmp_path_factory.mktemp("log")
    workload, lines = str(folder / "workload.parquet"), str(folder / "log.jsonl")
    ended(started("simulate", "workload", "--n", "6000", "--out", workload, "--json"))
    ended(
        started(
            "simulate", "log", "--outcomes", workload, "--tiers", TIERS, "--policy", "full", "--out", lines, "--json"
        )
    )
    path = folder / "events.db"
    with open_store(f"sqlite:///{path}") as store, Path(lines).open(encoding="utf-8") as file:
        store.append([parse_interaction(line) for line in file])
    return path


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve thousand other requests: on the held-out ones of a run, the same router twice may be 0.01 APGR apart."""
    path = tmp_path_factory.mktemp("unseen") / "workload.parquet"
    ended(started("simulate", "workload", "--n", "12000", "--seed", "1", "--out", str(path), "--json"))
    outcomes = load_outcomes(path, parse_tiers(TIERS))
    return build_dataset(simulate_log(outcomes, "full", rng=np.random.default_rng(0)), outcomes.tiers)


def apgr_of(bundle: Bundle, rows: Dataset) -> float:
    """Return the mean share of the quality gap that is won when the neediest requests get the large tier first."""
    adequacy = score_with_bundle(rows, bundle, bundle.ladder).adequacy
    gains = (rows.quality[:, 1] - rows.quality[:, 0])[np.argsort(adequacy[:, 0] - adequacy[:, 1], kind="stable")]
    won = np.concatenate(([0.0], np.cumsum(gains))) / gains.sum()
    return float(np.mean((won[1:] + won[:-1]) / 2.0))


@pytest.fixture(scope="module")
def alone(log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    home = tmp_path_factory.mktemp("alone") / "home"
    return home, ended(retraining(log, home, "local"))


def test_the_bundle_of_a_cluster_has_the_same_contract_and_routes_as_well(
    alone: tuple[Path, dict[str, Any]], log: Path, unseen: Dataset, tmp_path: Path
) -> None:
    here, record = alone
    there = tmp_path / "home"
    found = ended(retraining(log, there, "dask"))
    assert found["learner"] == record["learner"] == "gbdt"
    local, spread = (load_bundle(Shelf(home / "models").champion_path()) for home in (here, there))
    assert apgr_of(local, unseen) > 0.7
    assert apgr_of(spread, unseen) == pytest.approx(apgr_of(local, unseen), abs=0.01)
    assert spread.manifest.feature_schema_hash == local.manifest.feature_schema_hash
    assert spread.manifest.trained_on.digest == local.manifest.trained_on.digest
    assert set(spread.manifest.files) == set(local.manifest.files)
    assert [point.quality for point in spread.policy.frontier] == [point.quality for point in local.policy.frontier]


def test_a_worker_that_is_killed_in_the_middle_costs_nothing_but_time(
    alone: tuple[Path, dict[str, Any]], log: Path, unseen: Dataset, tmp_path: Path
) -> None:
    here, there = alone[0], tmp_path / "home"
    process = retraining(log, there, "dask")
    os.kill(worker_of(process), signal.SIGKILL)
    found = ended(process)
    assert found["promoted"]
    local, spread = (load_bundle(Shelf(home / "models").champion_path()) for home in (here, there))
    assert apgr_of(spread, unseen) == pytest.approx(apgr_of(local, unseen), abs=0.01)


def worker_of(process: subprocess.Popen[str]) -> int:
    """Return a worker of the run's cluster that has begun to grow trees: it has loaded LightGBM."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until and process.poll() is None:
        growing = [pid for pid in descendants(process.pid) if pid != process.pid and has_loaded(pid, "lightgbm")]
        if growing:
            return growing[0]
        time.sleep(0.02)
    out, err = process.communicate(timeout=10)
    raise AssertionError(f"no worker ever grew a tree: {out} {err}")


def has_loaded(pid: int, library: str) -> bool:
    try:
        return library in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """Return all processes below one, it included."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text().split())
            except OSError:
                continue
    return found
