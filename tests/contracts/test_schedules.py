"""The schedules that the docs and deployments show are ones that cron, systemd, Airflow and Kubernetes understand."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_ml.errors import RouterError, UsageError

CRON = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "howto" / "schedule-retraining.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def fits(field: str, low: int, high: int) -> bool:
    """Whether one field of a crontab names numbers in its range: `*`, `7`, `1-5`, `*/5`, `1,2`."""
    for part in field.split(","):
        match = re.fullmatch(r"(\*|\d+(?:-\d+)?)(?:/\d+)?", part)
        if match is None:
            return False
        if match[1] != "*" and not all(low <= int(number) <= high for number in match[1].split("-")):
            return False
    return True


def commands(text: str) -> list[str]:
    return re.findall(r"router-ml (\w+)", text)


def test_cron_lines_have_five_fields_and_a_command(page: str) -> None:
    (block,) = blocks(page, "cron")
    lines = block.splitlines()
    assert len(lines) == 2
    for line in lines:
        *fields, command = line.split(maxsplit=5)
        assert all(fits(field, *limits) for field, limits in zip(fields, CRON, strict=True)), line
        assert "%" not in command  # cron reads it as a line break
        assert commands(command)
    assert not fits("60", 0, 59)
    assert not fits("every", 0, 59)


def test_systemd_units_have_known_sections_and_verify(page: str, tmp_path: Path) -> None:
    service, timer = blocks(page, "systemd")
    assert re.findall(r"^\[(\w+)\]$", service, re.MULTILINE) == ["Unit", "Service"]
    assert re.findall(r"^\[(\w+)\]$", timer, re.MULTILINE) == ["Unit", "Timer", "Install"]
    for line in (service + timer).splitlines():
        assert re.fullmatch(r"\[\w+\]|#.*|[A-Z]\w+=\S.*|", line), line
    if shutil.which("systemd-analyze") is None:
        return
    # The program of the docs is not on this machine; that one that is there shows the rest to be right.
    (tmp_path / "router-retrain.service").write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", service))
    (tmp_path / "router-retrain.timer").write_text(timer)
    units = [str(tmp_path / f"router-retrain.{kind}") for kind in ("service", "timer")]
    found = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert not re.search(r"router-retrain\.\w+:\d+", found.stderr), found.stderr


def test_the_airflow_dag_is_python_and_runs_the_command(page: str) -> None:
    (block,) = blocks(page, "python")
    tree = ast.parse(block)
    compile(tree, "dag", "exec")
    calls = {ast.unparse(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    task = {key.arg: ast.literal_eval(key.value) for key in calls["BashOperator"].keywords}
    assert commands(task["bash_command"]) == ["retrain"]
    schedule = next(key.value for key in calls["DAG"].keywords if key.arg == "schedule")
    assert all(fits(f, *limits) for f, limits in zip(ast.literal_eval(schedule).split(), CRON, strict=True))


@pytest.mark.parametrize(("ended", "task"), [(0, 0), (1, 1), (2, 2), (137, 137)])
def test_the_airflow_task_fails_when_the_command_does(page: str, ended: int, task: int, tmp_path: Path) -> None:
    (block,) = blocks(page, "python")
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    operator = next(node for node in calls if ast.unparse(node.func) == "BashOperator")
    command = next(ast.literal_eval(key.value) for key in operator.keywords if key.arg == "bash_command")
    program = tmp_path / ".venv" / "bin" / "router-ml"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nexit {ended}\n")
    program.chmod(0o755)
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, check=False).returncode == task


@pytest.fixture
def job(root: Path) -> dict[str, Any]:
    text = (root / "serving" / "kubernetes" / "retrain.yaml").read_text(encoding="utf-8")
    (found,) = [one for one in yaml.safe_load_all(text) if one["kind"] == "CronJob"]
    spec: dict[str, Any] = found["spec"]["jobTemplate"]["spec"]
    return spec


def test_the_job_is_tried_again_where_that_helps(job: dict[str, Any]) -> None:
    (container,) = job["template"]["spec"]["containers"]
    (rule,) = job["podFailurePolicy"]["rules"]
    given_up = {"containerName": container["name"], "operator": "In", "values": [UsageError.exit_code]}
    assert rule == {"action": "FailJob", "onExitCodes": given_up}
    assert RouterError.exit_code not in given_up["values"]
    assert job["backoffLimit"] > 0
    assert job["template"]["spec"]["restartPolicy"] == "Never", "or the policy does not count"


@pytest.mark.parametrize(
    ("ends", "pod", "did"),
    [
        ({}, 0, ["pull", "retrain", "push"]),
        ({"retrain": 1}, 1, ["pull", "retrain", "push"]),
        ({"retrain": 2}, 2, ["pull", "retrain", "push"]),
        ({"pull": 1}, 1, ["pull"]),
        ({"push": 1}, 1, ["pull", "retrain", "push"]),
    ],
)
def test_the_job_ends_as_retraining_did(
    job: dict[str, Any], ends: dict[str, int], pod: int, did: list[str], tmp_path: Path
) -> None:
    (container,) = job["template"]["spec"]["containers"]
    program = tmp_path / "router-ml"
    cases = "\n".join(f"*{word}*) exit {code} ;;" for word, code in ends.items())
    program.write_text(f'#!/bin/sh\necho "$1 $2" >> {tmp_path}/did\ncase "$1 $2" in\n{cases}\nesac\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = [*container["command"], *container["args"]]
    assert subprocess.run(command, env=environment, check=False).returncode == pod
    lines = (tmp_path / "did").read_text().splitlines()
    assert [word for line in lines for word in ("pull", "retrain", "push") if word in line] == did
