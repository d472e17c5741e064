"""Every notebook as a program: what it shows on a log whose truth is known, and what it says where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
LENGTH, LINEAR = "router-2026-01-01.1", "router-2026-01-02.1"

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def defined(runs: list[tuple[str, Path, dict[str, str]]], folder: Path) -> list[dict[str, Any]]:
    """Run notebooks by name and home in one process, and return the values of expressions over what they define."""
    cases = [(str(ROOT / "notebooks" / f"{name}.py"), str(home), wanted) for name, home, wanted in runs]
    script = Path(__file__).with_name("run_notebooks.py")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_ML_NOTEBOOK")}
    command = [sys.executable, str(script), json.dumps(cases)]
    found = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    values: list[dict[str, Any]] = json.loads(found.stdout.splitlines()[-1])
    return values


def test_there_are_five_and_all_are_run() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_explore_logs",
        "02_train_and_compare",
        "03_review_challenger",
        "04_certificate_and_policy",
        "05_offpolicy",
    ]


@pytest.fixture(scope="module")
def shown(review_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the notebooks define on the simulated log."""
    expressions = {
        "01_explore_logs": {
            "n": "quality.n_interactions",
            "tiers": "tiers['tier'].to_list()",
            "calls": "tiers['calls'].sum()",
            "attempts": "quality.n_attempts",
            "by_day": "int(over_time['requests'].sum())",
            "live": "quality.modes['live']",
            "sources": "feedback['source'].to_list()",
            "judgements": "int(feedback['judgements'].sum())",
            "examples": "len(shown)",
        },
        "02_train_and_compare": {
            "kept": "competition.filter(competition['kept'])['learner'].to_list()",
            "candidates": "competition['learner'].to_list()",
            "curves": "curves.to_dicts()",
            "pictures": "[one.name for one in (reliability, importance, slices)]",
        },
        "03_review_challenger": {
            "shelf": "shelf['version'].to_list()",
            "champion": "champion.value",
            "challenger": "challenger.value",
            "rows": "found.n_rows",
            "disagreements": "len(found.disagreements)",
            "worse": "found.difference['value'][0]",
            "worst": "worst['prompt'].to_list()",
            "gates": "len(gates)",
            "runs": "runs",
            "of_runs": "problem_of_runs",
        },
        "04_certificate_and_policy": {
            "saving": "setting.saving",
            "loss": "setting.loss",
            "share": "share['share of the answers'].to_list()",
            "points": "len(frontier)",
            "verdict": "verdict",
            "steps": "len(steps)",
            "slices": "slices.columns",
        },
        "05_offpolicy": {
            "refused": "refused",
            "estimates": "estimates['estimator'].n_unique()",
            "ess": "overlap['ess'].to_list()",
            "left_out": "left_out['requests'].to_list()",
        },
    }
    runs = [(name, review_home, wanted) for name, wanted in expressions.items()]
    return dict(zip(expressions, defined(runs, tmp_path_factory.mktemp("elsewhere")), strict=True))


def test_the_log_is_counted_by_tier_day_and_source(shown: dict[str, dict[str, Any]]) -> None:
    log = shown["01_explore_logs"]
    assert (log["n"], log["tiers"]) == (1200, ["small", "large"])
    assert log["calls"] == log["attempts"] >= 1800
    assert log["by_day"] == log["live"]
    assert "check" in log["sources"]
    assert log["judgements"] > 1000
    assert log["examples"] is not None


def test_the_competition_is_won_by_the_learner_that_reads(shown: dict[str, dict[str, Any]]) -> None:
    match = shown["02_train_and_compare"]
    assert match["candidates"] == ["constant", "length", "linear"]
    assert match["kept"] == ["linear"]
    assert {row["learner"]: row["apgr"] > 0.6 for row in match["curves"]} == {
        "constant": False,
        "length": False,
        "linear": True,
    }
    assert match["pictures"] == ["reliability", "feature_importance", "slice_table"]


def test_champion_and_challenger_are_set_side_by_side(shown: dict[str, dict[str, Any]]) -> None:
    duel = shown["03_review_challenger"]
    assert duel["shelf"] == [LINEAR, LENGTH]
    assert (duel["champion"], duel["challenger"]) == (LINEAR, LENGTH)
    assert 0 < duel["disagreements"] < duel["rows"]
    assert duel["worst"]
    assert duel["gates"] == 0
    assert duel["runs"] == {LINEAR: None, LENGTH: None}
    assert "not recorded in MLflow" in duel["of_runs"]


def test_the_knob_and_the_certificate_are_shown(shown: dict[str, dict[str, Any]]) -> None:
    knob = shown["04_certificate_and_policy"]
    assert 0 < knob["saving"] < 1
    assert knob["loss"] < 0.1
    assert sum(knob["share"]) == pytest.approx(1.0)
    assert knob["points"] > 5
    assert knob["verdict"].startswith(("No certificate", "Certified", "Keep the constant"))
    assert knob["slices"] == ["name", "n_rows", "loss", "saving", "status"]


def test_off_policy_estimates_are_made_where_the_log_allows_them(shown: dict[str, dict[str, Any]]) -> None:
    found = shown["05_offpolicy"]
    assert found["refused"] == []
    assert found["estimates"] == 6
    assert all(value > 100 for value in found["ess"])
    assert found["left_out"][0] == 600


@pytest.fixture(scope="module")
def said(review_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each notebook says of a folder with nothing, no log, a damaged one, a wrong configuration, one version."""
    homes = {name: tmp_path_factory.mktemp(name) for name in ("nothing", "no_log", "damaged", "mistaken")}
    for name in ("no_log", "damaged"):
        shutil.copy(review_home / "router.toml", homes[name])
    lines = (review_home / "log.jsonl").read_text().splitlines()[:200]
    lines[10:60] = [line[: len(line) // 2] for line in lines[10:60]]
    (homes["damaged"] / "log.jsonl").write_text("\n".join(lines))
    (homes["mistaken"] / "router.toml").write_text("[policy]\nqualty = 0.9\n")
    few = shutil.copytree(review_home, tmp_path_factory.mktemp("few") / "home")
    shutil.rmtree(few / "models" / LENGTH)
    (few / "models" / LINEAR / "model.onnx").write_bytes(b"damaged")
    refused = shutil.copytree(review_home, tmp_path_factory.mktemp("refused") / "home")
    (refused / "models" / LENGTH / "model.onnx").write_bytes(b"damaged")
    wanted = {"message": "problem", "of_log": "problem_of_log"}
    runs = [(path.stem, home, wanted) for home in homes.values() for path in NOTEBOOKS]
    runs += [
        ("03_review_challenger", few, {"said": "too_few", "found": "found"}),
        ("04_certificate_and_policy", few, {"said": "problem_of_bundle", "found": "setting"}),
        ("05_offpolicy", few, {"said": "problem_of_bundle", "found": "report"}),
        ("03_review_challenger", refused, {"said": "problem_of_duel", "found": "found"}),
    ]
    values = defined(runs, tmp_path_factory.mktemp("elsewhere"))
    return {"few": values[-4:], **{name: values[5 * i : 5 * i + 5] for i, name in enumerate(homes)}}


def test_without_a_configuration_every_notebook_says_what_to_do(said: dict[str, list[dict[str, Any]]]) -> None:
    for shown in said["nothing"]:
        assert "There is no `router.toml`" in shown["message"]
        assert "router-ml demo" in shown["message"]
        assert shown["of_log"] is None


def test_without_a_log_every_notebook_says_what_to_do(said: dict[str, list[dict[str, Any]]]) -> None:
    for shown in said["no_log"]:
        assert shown["message"] == ""
        assert "There is no log of interactions" in shown["of_log"]


def test_a_damaged_log_is_named_with_the_first_reason(said: dict[str, list[dict[str, Any]]]) -> None:
    for shown in said["damaged"]:
        assert "50 of 200 rows" in shown["of_log"]
        assert "not valid JSON" in shown["of_log"]


def test_a_mistake_in_the_configuration_is_explained(said: dict[str, list[dict[str, Any]]]) -> None:
    for shown in said["mistaken"]:
        assert "qualty" in shown["message"]


def test_one_version_is_too_few_to_compare_and_a_damaged_one_is_named(said: dict[str, list[dict[str, Any]]]) -> None:
    compared, certified, estimated, refused = said["few"]
    assert "it takes two to compare" in compared["said"]
    for shown in (certified, estimated, refused):
        assert "model.onnx" in shown["said"]
    assert {shown["found"] for shown in said["few"]} == {None}
