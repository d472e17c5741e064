"""What a running service takes: memory, time to start, space on the disk; and what a second worker brings."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.results_file import Row
from benchmarks.speed.prompts import chat_body
from benchmarks.speed.servers import load, router_server

__all__ = ["measured"]

_ROOT = Path(__file__).resolve().parents[2]
_LOADED_S = 3.0


def measured(bundle: Path, *, rounds: int, seconds: float, say: Callable[[str], None], install: bool) -> list[Row]:
    """Measure workers and footprint.

    Args:
        bundle: What the service decides with.
        rounds: Starts and turns that a median is taken of.
        seconds: Counted seconds of a turn.
        say: Told what is being done.
        install: Whether to install the service in an environment of its own; that needs a package index.
    """
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body.json"
        body.write_bytes(chat_body())
        rows = [_workers(bundle, body, rounds, seconds, say)]
        python = sys.executable
        if install:  # what runs there has nothing beside it that is only for developing
            say("installing the service alone")
            environment = Path(folder) / "env"
            written, compiled = _installed_mb(environment)
            rows.append(_row("footprint", "serving install, MB", [written + compiled], 250.0, 200.0))
            rows.append(_row("footprint", "serving install without bytecode, MB", [written]))
            python = str(environment / "bin" / "python")
        return rows + _started(bundle, body, rounds, say, python)


def _workers(bundle: Path, body: Path, rounds: int, seconds: float, say: Callable[[str], None]) -> Row:
    ratios = []
    with (
        router_server(bundle, name="one", pin=False) as one,
        router_server(bundle, name="two", pin=False, workers=2) as two,
    ):
        for number in range(rounds + 1):
            rates = {}
            for server in (one, two) if number % 2 else (two, one):
                done = load(f"{server.url}/v1/route", body, concurrency=64, seconds=seconds, pin=False)
                rates[server.name] = done["counted"] / done["seconds"]
            if number:  # the first round warms up
                ratios.append(rates["two"] / rates["one"])
            say(f"workers: round {number} of {rounds}")
    return _row("workers", "rate of 2 workers / 1 worker", ratios, 1.7, 1.85, better="higher")


def _started(bundle: Path, body: Path, rounds: int, say: Callable[[str], None], python: str) -> list[Row]:
    taken, idle, used = [], [], []
    for number in range(rounds):
        started = time.perf_counter()
        with router_server(bundle, python=python) as server:
            taken.append(time.perf_counter() - started)
            idle.append(server.resident_mb())
            load(f"{server.url}/v1/route", body, concurrency=64, seconds=_LOADED_S)
            used.append(server.resident_mb())
        say(f"start {number + 1} of {rounds}")
    return [
        _row("footprint", "start to ready, s", taken, 1.5, 1.0),
        _row("footprint", "resident memory after load, MB", used, 130.0, 100.0),
        _row("footprint", "resident memory idle, MB", idle),
    ]


def _installed_mb(environment: Path) -> tuple[float, float]:
    # What is installed, and its bytecode. pip writes that too, uv only when it is told to. Without it, and where Python
    # may not write it either (PYTHONDONTWRITEBYTECODE), every start compiles all modules again, which takes a second.
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--compile-bytecode"]
    install += ["--python", str(environment / "bin" / "python")]
    commands = [
        [sys.executable, "-m", "venv", "--without-pip", str(environment)],
        [*install, "-r", str(_ROOT / "requirements" / "serving.lock")],
        [*install, str(_ROOT)],
    ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    sizes = {path: path.lstat().st_size / 1e6 for path in environment.rglob("*") if path.is_file()}
    compiled = sum(size for path, size in sizes.items() if path.suffix == ".pyc")
    return sum(sizes.values()) - compiled, compiled


def _row(
    protocol: str,
    metric: str,
    values: Sequence[float],
    must: float | None = None,
    aim: float | None = None,
    *,
    better: str = "lower",
) -> Row:
    median = statistics.median(values)
    direction = "higher" if better == "higher" else "lower"
    return Row(protocol, metric, median, min(values), max(values), len(values), must, aim, direction)
