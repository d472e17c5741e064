"""`router-ml models VERSION`: one bundle as a reviewer without MLflow sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from router_ml.bundle import TrainedOn
from router_ml.cli import main
from router_ml.shelf import Shelf

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
DATA = TrainedOn(
    digest="abc",
    n_interactions=12_345,
    first_ts=datetime(2026, 1, 1, tzinfo=UTC),
    last_ts=datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    description="the store",
)
GATES = (
    {"name": "certificate", "passed": True, "detail": "proven", "value": 0.21, "limit": 0.0, "required": True},
    {"name": "saving", "passed": False, "detail": "4 % less", "value": -0.04, "limit": None, "required": True},
    {"name": "drift", "passed": False, "detail": "other traffic", "value": 0.3, "limit": 0.25, "required": False},
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def shelf(make_bundle: Make, tmp_path: Path) -> Shelf:
    make_bundle(
        "v1",
        trained_on=DATA,
        metrics={"apgr": {"value": 0.81, "low": 0.79, "high": 0.83}, "cs_97": {"value": 0.4}},
        certificate={"verdict": "97 % of the quality at 60 % of the cost, proven."},
        mlflow_run_id="f00",
        git_commit="0123abc",
    )
    made = Shelf(tmp_path / "models")
    made.keep_gates("v1", GATES)
    return made


def test_it_says_what_the_bundle_was_made_from_and_what_is_proven(run: Run, shelf: Shelf) -> None:
    code, out, _ = run("models", "v1")
    assert code == 0
    assert "12,345 interactions, 2026-01-01 00:00 UTC to 2026-01-31 12:30 UTC; the store (digest abc)" in out
    for words in ("97 % of the quality at 60 % of the cost, proven.", "f00", "0123abc", "learner linear"):
        assert words in out


def test_metrics_come_with_their_intervals(run: Run, shelf: Shelf) -> None:
    lines = [line.split() for line in run("models", "v1")[1].splitlines()]
    assert ["metric", "value", "low", "high"] in lines
    assert ["apgr", "0.81", "0.79", "0.83"] in lines
    assert ["cs_97", "0.4", "-", "-"] in lines


def test_each_gate_has_its_result_figure_and_limit(run: Run, shelf: Shelf) -> None:
    lines = [line.split(maxsplit=4) for line in run("models", "v1")[1].splitlines()]
    assert ["certificate", "passed", "0.21", "0", "proven"] in lines
    assert ["saving", "failed", "-0.04", "-", "4 % less"] in lines
    assert ["drift", "warned", "0.3", "0.25", "other traffic"] in lines


@pytest.mark.parametrize("line", ['{"passed": true}', '{"name": "size"}', '{"name": 3, "passed": true}', "[]"])
def test_a_gates_file_that_is_none_is_said(line: str, run: Run, shelf: Shelf) -> None:
    (shelf.directory / "gates" / "v1.json").write_text(f"[{line}]")
    code, _, err = run("models", "v1")
    assert code == 1
    assert "v1.json: expected a list of gates; delete it" in err


def test_a_gate_with_less_or_other_than_usual_is_shown_as_it_is(run: Run, shelf: Shelf) -> None:
    (shelf.directory / "gates" / "v1.json").write_text('[{"name": "odd", "passed": true, "value": "high"}]')
    code, out, _ = run("models", "v1")
    assert code == 0
    assert re.search(r"odd +passed +high", out)


def test_champion_and_challenger_are_marked(run: Run, shelf: Shelf, make_bundle: Make) -> None:
    assert run("models", "v1")[1].splitlines()[0].split() == ["version", "v1"]
    make_bundle("v2")
    run("promote", "v1")
    run("challenge", "v2")
    assert run("models", "v1")[1].splitlines()[0].split() == ["version", "v1", "(champion)"]
    text = run("models", "v2")[1]
    assert text.splitlines()[0].split() == ["version", "v2", "(challenger)"]
    assert "no gates were asked" in text
    assert "none: nothing is proven about this bundle" in text


def test_machines_get_the_manifest_the_marks_and_the_gates(run: Run, shelf: Shelf) -> None:
    record = json.loads(run("models", "v1", "--json")[1])
    assert (record["version"], record["champion"], record["challenger"]) == ("v1", False, False)
    assert record["metrics"]["apgr"] == {"value": 0.81, "low": 0.79, "high": 0.83}
    assert record["trained_on"]["last_ts"] == "2026-01-31T12:30:00Z"
    assert [line["name"] for line in record["gates"]] == ["certificate", "saving", "drift"]


def test_the_default_bundle_is_shown_too(run: Run) -> None:
    code, out, _ = run("models", "default")
    assert code == 0
    assert out.splitlines()[0].split() == ["version", "default", "(champion)"]


def test_a_version_that_is_not_there_or_damaged_is_an_error(run: Run, shelf: Shelf) -> None:
    code, _, err = run("models", "v9")
    assert code == 2
    assert "no bundle is called 'v9'" in err
    (shelf.directory / "v1" / "manifest.json").write_text("{")
    code, _, err = run("models", "v1")
    assert code == 1
    assert "manifest.json: cannot be read" in err


@pytest.mark.parametrize("option", [["--history"], ["--prune", "3"]])
def test_one_version_and_all_of_them_are_not_asked_for_at_once(run: Run, shelf: Shelf, option: list[str]) -> None:
    code, _, err = run("models", "v1", *option)
    assert code == 2
    assert "not both" in err
