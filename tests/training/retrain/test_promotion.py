"""Who becomes champion when something comes between: a crash, a person, another champion, a version that is gone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from router_ml.bundle import write_bundle
from router_ml.pointers import Pointers
from router_ml.shelf import DEFAULT, Shelf
from router_ml.switches import Switch, append_switch
from router_ml_training.pipeline import next_version
from router_ml_training.retrain.finishing import rival_of, was_promoted
from tests.router_ml.conftest import build_draft, build_model, build_policy
from tests.training.retrain.retrained import ran

Make = Callable[[str], Path]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
# Killed after the record of a switch has its line, before the champion file names the new one.
BETWEEN = """
import os, signal, sys
import router_ml.pointers, router_ml.shelf
from router_ml.cli import main
router_ml.shelf.default_bundle_path = lambda: __import__("pathlib").Path("no default")
router_ml.pointers.replace_file = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(main(["retrain", "--no-mlflow"]))
"""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Put a bundle of a version onto the shelf in `tmp_path / "models"`."""

    def written(version: str) -> Path:
        draft = build_draft(version)
        return write_bundle(tmp_path / "models", manifest=draft, policy=build_policy(), model=build_model())

    return written


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_the_switch_promotes_when_it_is_taken_up(
    home: Path, run: Callable[..., Any]
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", BETWEEN], cwd=home, env=environment, capture_output=True, timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    shelf = Shelf(home / "models")
    assert (shelf.champion(), len(shelf.switches())) == (None, 1)
    code, found = run()
    assert (code, found["promoted"], ran(found)) == (0, True, ["promote"])
    assert shelf.champion() == found["version"]


def test_only_who_was_certainly_in_service_counts_as_promoted(tmp_path: Path, make: Make) -> None:
    make("v1")
    make("v2")
    shelf = Shelf(tmp_path / "models")
    prevented = Switch(NOW.isoformat(), "promote", None, "v1", "person", "killed")
    append_switch(Pointers(shelf.directory).record_file, prevented)
    assert not was_promoted(shelf, "v1")
    shelf.promote("v1", reason="first", now=NOW)
    assert was_promoted(shelf, "v1")
    shelf.challenge("v2", reason="to be tried", now=NOW)
    shelf.withdraw(reason="worse", now=NOW)
    assert not was_promoted(shelf, "v2")
    shelf.promote("v2", reason="second", now=NOW)
    assert (was_promoted(shelf, "v1"), was_promoted(shelf, "v2")) == (True, True)


def test_a_champion_has_to_beat_whom_it_replaced(tmp_path: Path, make: Make) -> None:
    make("v1")
    make("v2")
    shelf = Shelf(tmp_path / "models")
    assert rival_of(shelf, "v1") == DEFAULT
    shelf.promote("v1", reason="first", now=NOW)
    assert (rival_of(shelf, "v1"), rival_of(shelf, "v2")) == (DEFAULT, "v1")
    shelf.promote("v2", reason="second", now=NOW)
    assert rival_of(shelf, "v2") == "v1"
    shutil.rmtree(shelf.directory / "v1")
    assert rival_of(shelf, "v2") == "v2"


def test_a_champion_that_changed_after_the_gates_is_compared_with_first(
    home: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = run()
    _, second = run("--force")
    shelf = Shelf(home / "models")
    third = next_version(shelf, datetime.now(UTC))

    def steps_in(shelf: Shelf, version: str) -> bool:
        if version == third:
            shelf.rollback(now=NOW, reason="a person, while the run was recorded")
        return False

    with monkeypatch.context() as patch:
        patch.setattr("router_ml_training.retrain.finishing.was_promoted", steps_in)
        code, message = run("--force")
    assert code == 1
    assert f"{first['version']} is the champion now, and {third} was compared with {second['version']}" in message
    assert shelf.champion() == first["version"]

    code, found = run()
    assert (code, found["version"], ran(found)) == (0, third, ["gate", "promote"])
    assert found["gate"]["champion"] == first["version"]


def test_who_lost_against_one_champion_is_compared_with_the_next(home: Path, run: Callable[..., Any]) -> None:
    _, first = run()
    run("--force")
    text = (home / "router.toml").read_text()
    (home / "router.toml").write_text(f"{text}[gates]\nmax_mb = 0.0001\n")
    _, third = run("--force")
    assert not third["promoted"]
    assert run()[1]["nothing_new"]
    shelf = Shelf(home / "models")
    shelf.rollback(now=NOW)
    code, again = run()
    assert (code, again["version"], ran(again)) == (0, third["version"], ["gate", "promote"])
    assert again["gate"]["champion"] == first["version"]


def test_a_number_is_not_given_twice(tmp_path: Path, make: Make) -> None:
    shelf = Shelf(tmp_path / "models")
    for number in (1, 2, 3):
        make(f"router-2026-11-22.{number}")
    for number in (1, 2):
        shelf.promote(f"router-2026-11-22.{number}", reason="better", now=NOW)
    shelf.rollback(now=NOW)
    shelf.keep_gates("router-2026-11-22.3", [])
    for number in (2, 3):
        shutil.rmtree(shelf.directory / f"router-2026-11-22.{number}")
    assert next_version(shelf, NOW) == "router-2026-11-22.4"
    assert next_version(shelf, NOW + timedelta(days=1)) == "router-2026-11-23.1"


def test_a_bundle_that_was_damaged_is_made_anew_when_the_gates_change(home: Path, run: Callable[..., Any]) -> None:
    text = (home / "router.toml").read_text()
    (home / "router.toml").write_text(f"{text}[gates]\nmax_mb = 0.0001\n")
    _, first = run()
    (home / "models" / first["version"] / "model.onnx").write_bytes(b"damaged")
    (home / "router.toml").write_text(text)
    code, found = run()
    assert (code, found["version"]) == (0, f"{first['version'][:-1]}2")
    assert ran(found) == ["register", "gate", "promote"]
