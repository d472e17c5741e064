"""A retraining that is killed, kept out or out of room: taken up where it was, with nothing half-done."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from router_ml.errors import RouterError
from router_ml.shelf import Shelf
from router_ml_training.retrain.lock import held
from tests.training.retrain.retrained import STEPS, ran, states, whole

# A process that is killed, as by the system, at the beginning of a step or in the middle of writing something.
CHILD = """
import contextlib, os, signal, sys
from router_ml.cli import main
import router_ml.shelf, router_ml.durable
from router_ml_training.commands import retrain
from router_ml_training.retrain import finishing, results, retraining

where, what = sys.argv[1].split(":")
router_ml.shelf.default_bundle_path = lambda: __import__("pathlib").Path("no default")

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def step(text):
    if where == "step" and text == f"step: {what}":
        die()

@contextlib.contextmanager
def steps():
    yield step

retrain.steps = steps
if where == "write":
    save = results.Results.save
    def saving(self, name, key, value):
        if name == what:
            router_ml.durable._sync_folder = die
        save(self, name, key, value)
    results.Results.save = saving
if where == "bundle":
    finishing._shelve = die
if where == "end":
    retraining._outcome = die
sys.exit(main(["retrain", "--no-mlflow", "--json"]))
"""


# Holds the lock, until it is killed.
HOLDER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from router_ml_training.retrain.lock import held
from router_ml_training.retrain.results import private_folder

with held(private_folder(Path("models/.retrain")) / "lock", now=datetime(2026, 11, 22, 12, tzinfo=UTC)):
    print("held", flush=True)
    sys.stdin.read()
"""
# No file may grow beyond 30 kB from the training on, as on a disk with no more room.
FULL_DISK = """
import contextlib, resource, signal, sys
from router_ml.cli import main
from router_ml_training.commands import retrain
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def step(text):
    if text == "step: train":
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))

@contextlib.contextmanager
def steps():
    yield step

retrain.steps = steps
sys.exit(main(["retrain", "--no-mlflow"]))
"""


def killed(home: Path, at: str) -> None:
    command = [sys.executable, "-c", CHILD, at]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=home, env=environment, capture_output=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


@pytest.mark.slow
def test_a_run_killed_at_any_step_is_taken_up_there(home: Path, run: Callable[..., Any]) -> None:
    for step in STEPS:
        killed(home, f"step:{step}")
        assert Shelf(home / "models").champion() is None
    code, last = run()
    assert code == 0
    assert ran(last) == ["promote"]
    assert last["version"].endswith(".1")
    whole(home, last["version"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "again"),
    [
        ("write:train", STEPS[3:]),
        ("bundle:register", STEPS[7:]),
        ("write:register", STEPS[7:]),
        ("write:gate", STEPS[8:]),
        ("end:promote", STEPS[9:]),
    ],
)
def test_a_run_killed_while_it_writes_leaves_nothing_half_done(
    home: Path, run: Callable[..., Any], at: str, again: list[str]
) -> None:
    killed(home, at)
    code, last = run()
    assert code == 0
    assert ran(last) == again
    whole(home, last["version"])


def test_a_second_run_is_refused_and_told_who_is_at_work(home: Path, run: Callable[..., Any]) -> None:
    (home / "models").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=home, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder:
        try:
            assert holder.stdout.readline() == "held\n"
            code, message = run()
            assert code == 1
            assert f"another retraining is at work: process {holder.pid} on " in message
            assert "since 2026-11-22T12:00:00+00:00" in message
        finally:
            holder.kill()
    code, found = run()
    assert code == 0
    whole(home, found["version"])


def test_a_full_disk_is_said_and_what_is_done_is_kept(
    home: Path, run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK],
        cwd=home,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "router-ml: error: " in ended.stderr
    assert "cannot be written (File too large); free some space and run again" in ended.stderr
    code, found = run()
    assert code == 0
    assert states(found)["split"] == "cached"
    whole(home, found["version"])


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("router_ml_training.retrain.lock.fcntl.flock", refuse)
    with pytest.raises(RouterError, match="cannot be locked"), held(tmp_path / "lock", now=datetime.now(UTC)):
        pass
