import json
from pathlib import Path

import pytest

from router_ml.cli import main
from router_ml.schema import parse_interaction
from router_ml_training.simulate.outcomes import load_outcomes


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "workload.parquet"
    assert main(["simulate", "workload", "--n", "120", "--seed", "3", "--out", str(path)]) == 0
    return path


def test_a_workload_and_its_log_are_written_and_summed_up(workload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(load_outcomes(workload)) == 120
    capsys.readouterr()
    out = workload.with_name("log.jsonl")
    tiers = "small=gpt-4o-mini,large=gpt-4o"
    assert main(["simulate", "log", "--outcomes", str(workload), "--tiers", tiers, "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    items = [parse_interaction(line) for line in out.read_text().splitlines()]
    assert summary["interactions"] == len(items) == 120
    assert summary["simulated"] is True
    assert summary["attempts"]["small"] == 120
    assert summary["attempts"]["large"] == sum(len(item.attempts) == 2 for item in items)
    assert sorted(path.name for path in workload.parent.iterdir()) == ["log.jsonl", "workload.parquet"]


def test_the_same_seed_writes_the_same_file(workload: Path) -> None:
    again = workload.with_name("again.parquet")
    assert main(["simulate", "workload", "--n", "120", "--seed", "3", "--out", str(again)]) == 0
    assert again.read_bytes() == workload.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "nope"], "no logging policy is called 'nope'"),
        (["--tiers", "small"], "--tiers: expected small=MODEL,large=MODEL"),
        (["--tiers", "small=gpt-4o-mini,large=x"], "no rows for model 'x'"),
        (["--bar", "2"], "bar must be between 0 and 1"),
        (["--out", "absent/log.jsonl"], "cannot write absent/log.jsonl"),
        (["--seed", "-1"], "--seed: expected a number from 0 up"),
    ],
)
def test_a_wrong_argument_is_one_line_and_leaves_no_file(
    workload: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    out = [] if "--out" in arguments else ["--out", "log.jsonl"]
    assert main(["simulate", "log", "--outcomes", str(workload), *out, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert [path.name for path in workload.parent.iterdir()] == ["workload.parquet"]


def test_a_workload_of_nothing_is_refused(workload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "workload", "--n", "0", "--out", "x.parquet"]) == 2
    assert "--n" in capsys.readouterr().err
