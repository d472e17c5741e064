"""Benchmarks: what they write, whose figures they replace, and that each explains itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.results_file import Row, Stamp, goal_text, missed, read_rows, stamp, write_rows

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = (
    "speed/run.py",
    "speed/train.py",
    "speed/load.py",
    "speed/stream_load.py",
    "speed/noop_app.py",
    "speed/minimal_proxy.py",
    "speed/mock_upstream.py",
    "quality/run.py",
)
KEYS = ["protocol", "metric", "value", "low", "high", "n", "must", "aim", "better", "machine", "date", "commit"]
MADE = Stamp("2 cores", "2026-01-02T03:04:05Z", "abc1234")


def row(protocol="A", metric="APGR", value=0.7, **fields):
    return Row(protocol, metric, value, **{"low": 0.6, "high": 0.8, "n": 10, **fields})


def run(script, *arguments, **environ):
    environment = {k: v for k, v in os.environ.items() if k != "ROUTER_ML_OUTCOMES"} | environ
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_explains_itself(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")


def test_without_tables_the_quality_benchmark_says_so_and_writes_nothing(tmp_path):
    out = tmp_path / "results.json"
    done = run("quality/run.py", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "ROUTER_ML_OUTCOMES" in done.stderr
    assert not out.exists()


def test_a_missing_table_is_one_clear_error(tmp_path):
    out = tmp_path / "results.json"
    done = run("quality/run.py", "--protocol", "A", "--out", str(out), ROUTER_ML_OUTCOMES=str(tmp_path))
    assert done.returncode == 1
    assert "routellm_mmlu.parquet" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_figure_has_exactly_these_keys_in_this_order(tmp_path):
    path = tmp_path / "results.json"
    write_rows(path, [row(must=0.69, aim=0.73)], MADE, protocols=["A"])
    (record,) = json.loads(path.read_text())
    assert list(record) == KEYS
    assert record["value"] == 0.7
    assert record["machine"] == "2 cores"


def test_a_run_replaces_its_own_figures_and_no_others(tmp_path):
    path = tmp_path / "results.json"
    write_rows(path, [row("A"), row("A", "of old times")], MADE, protocols=["A"])
    write_rows(path, [row("B", value=0.1)], MADE, protocols=["B"])
    later = Stamp("4 cores", "2027-01-02T03:04:05Z", "def5678")
    write_rows(path, [row("A", value=0.9)], later, protocols=["A"])
    figures = {(one["protocol"], one["metric"]): (one["value"], one["commit"]) for one in read_rows(path)}
    assert figures == {("A", "APGR"): (0.9, "def5678"), ("B", "APGR"): (0.1, "abc1234")}


def test_writing_the_same_again_changes_no_byte(tmp_path):
    path = tmp_path / "results.json"
    for protocol in ("B", "A"):
        write_rows(path, [row(protocol), row(protocol, "CS(0.97)")], MADE, protocols=[protocol])
    before = path.read_bytes()
    write_rows(path, [row("B"), row("B", "CS(0.97)")], MADE, protocols=["B"])
    assert path.read_bytes() == before


def test_an_unknown_value_is_null(tmp_path):
    path = tmp_path / "results.json"
    write_rows(path, [row(value=None, low=None, high=None)], MADE, protocols=["A"])
    assert read_rows(path)[0]["value"] is None


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([row("B")], "owns A"),
        ([row(), row()], "twice"),
        ([row(value=float("nan"))], "not finite"),
        ([row(low=float("-inf"))], "not finite"),
    ],
)
def test_wrong_figures_are_refused_and_the_file_stays(tmp_path, rows, reason):
    path = tmp_path / "results.json"
    write_rows(path, [row(value=0.5)], MADE, protocols=["A"])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=reason):
        write_rows(path, rows, MADE, protocols=["A"])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ['{"protocol": "A"}', '[{"protocol": "A"}]', "[1]", "not JSON"])
def test_a_file_that_is_something_else_is_not_overwritten(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json|Expecting value"):
        write_rows(path, [row()], MADE, protocols=["A"])
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("fields", "verdict", "said"),
    [
        ({"value": 0.70, "must": 0.69, "aim": 0.73}, False, "must kept"),
        ({"value": 0.68, "must": 0.69, "aim": 0.73}, True, "missed"),
        ({"value": 0.74, "must": 0.69, "aim": 0.73}, False, "aim reached"),
        ({"value": 8.0, "must": 9.0, "aim": 6.0, "better": "lower"}, False, "must kept"),
        ({"value": 9.5, "must": 9.0, "aim": 6.0, "better": "lower"}, True, "missed"),
        ({"value": None, "must": 0.5}, True, "missed"),
        ({"value": 0.5}, None, ""),
    ],
)
def test_a_must_is_judged_in_the_direction_that_is_better(fields, verdict, said):
    assert missed(row(**fields)) is verdict
    assert goal_text(row(**fields)) == said


def test_the_stamp_names_cores_processor_and_python():
    made = stamp()
    assert made.machine.split(", ")[0] == f"{os.cpu_count()} cores"
    assert made.machine.endswith(f"Python {sys.version_info.major}.{sys.version_info.minor}")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*/results.json")), ids=lambda path: path.parent.name
)
def test_committed_results_are_figures(path):
    records = read_rows(path)
    assert records
    names = [(one["protocol"], one["metric"]) for one in records]
    assert len(set(names)) == len(names)
    for one in records:
        assert list(one) == KEYS
        assert one["better"] in ("higher", "lower")
        assert one["n"] >= 1
        assert one["low"] is None or one["high"] is None or one["low"] <= one["high"]
