"""`router-ml demo` from end to end, on the simulated workload and on real outcomes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router_ml.config import load_config
from router_ml_training.settings import MlflowSettings
from tests.training.tracking_records import alias_version

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

OUTCOMES = os.environ.get("ROUTER_ML_OUTCOMES")
KEYS = {
    "n_train",
    "n_test",
    "quality",
    "saving_at_97",
    "apgr",
    "random_saving_at_97",
    "oracle_saving_at_97",
    "ece",
    "g",
    "r",
}


def demo(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "router_ml.cli", "demo", "--json", "--dir", str(folder / "demo"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    assert set(record) >= KEYS
    assert set(record["quality"]) == {"always_small", "always_large", "routed"}
    return record


def test_the_workload_demo_routes_better_than_a_random_mix_and_says_it_is_simulated(tmp_path: Path) -> None:
    record = demo(tmp_path, "--n", "2600", "--live", "80")
    assert record["simulated"] is True
    assert record["apgr"] > 0.6
    assert record["saving_at_97"] > record["random_saving_at_97"]
    live = record["live"]["before_retraining"]
    assert live["requests"] == 60
    assert live["failed"] == 0
    versions = record["versions"]
    assert len({versions["first"], versions["retrained"], versions["again"]}) == 3
    assert record["retrained"]["promoted"] or record["retrained_again"]["promoted"]
    config = load_config(tmp_path / "demo" / "router.toml", {})
    mlflow = MlflowSettings.model_validate(config.sections["mlflow"])
    assert alias_version("champion", settings=mlflow) == versions["champion"] != versions["first"]
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "simulated" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    "arguments", [("--live", "0"), ("--n", "50"), ("--quality", "97"), ("--outcomes", "x.parquet")]
)
def test_a_demo_that_cannot_be_shown_says_why_and_leaves_nothing_behind(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "router_ml.cli", "demo", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(OUTCOMES is None, reason="ROUTER_ML_OUTCOMES is not set: no real outcome tables to run on")
def test_a_real_table_gives_figures_that_are_not_simulated(tmp_path: Path) -> None:
    assert OUTCOMES is not None
    record = demo(
        tmp_path,
        "--outcomes",
        f"{OUTCOMES}/mmlu_pro.parquet",
        "--tiers",
        "small=gemini-1.5-flash-002,large=gemini-1.5-pro-002",
    )
    assert record["simulated"] is False
    assert record["apgr"] > 0.55
    assert record["oracle_saving_at_97"] > record["saving_at_97"] > record["random_saving_at_97"]
