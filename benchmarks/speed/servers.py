"""The two servers that are compared, each a process of its own, and the processor time that each has used."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CLIENT_CORE", "SERVER_CORE", "Server", "load", "noop_server", "pinned", "route_server"]

SERVER_CORE, CLIENT_CORE = 0, 1
_HERE = Path(__file__).resolve().parent
_READY = "listening on "
_START_S, _STOP_S = 60.0, 20.0
# Upstreams are never called by /v1/route; nothing listens on this port.
_TOML = """
models_dir = "{home}/models"
[[tiers]]
name = "small"
model = "gpt-4o-mini"
base_url = "http://127.0.0.1:9/v1"
[[tiers]]
name = "large"
model = "gpt-4o"
base_url = "http://127.0.0.1:9/v1"
[store]
url = "sqlite:///{home}/events.db"
[serving]
port = 0
spill = "{home}/spill.jsonl"
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its name, its base URL and its process."""

    name: str
    url: str
    pid: int

    def cpu_s(self) -> float:
        """Return the processor time of all its threads so far, in seconds (resolution: one tick, usually 10 ms)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pinned(*cores: int) -> list[str]:
    """Return the words to put before a command so that it keeps to these cores; none where that cannot be done."""
    if shutil.which("taskset") is None or not set(cores) <= os.sched_getaffinity(0):
        return []
    return ["taskset", "-c", ",".join(map(str, cores))]


@contextlib.contextmanager
def noop_server() -> Iterator[Server]:
    """Run the no-op endpoint."""
    command = [sys.executable, str(_HERE / "noop_app.py")]
    with tempfile.TemporaryDirectory() as home, _running("no-op", command, Path(home)) as server:
        yield server


@contextlib.contextmanager
def route_server(bundle: Path) -> Iterator[Server]:
    """Run `router-ml serve` with one bundle and an event store of its own, all events on."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "models").mkdir()
        shutil.copytree(bundle, home / "models" / "bench")
        (home / "models" / "champion").write_text("bench\n", encoding="utf-8")
        config = home / "router.toml"
        config.write_text(_TOML.format(home=home.as_posix()), encoding="utf-8")
        command = [sys.executable, "-m", "router_ml.cli", "serve", "--config", str(config)]
        with _running("route", command, home) as server:
            yield server


def load(url: str, body: Path, *, concurrency: int, seconds: float) -> dict[str, Any]:
    """Load an endpoint from a client process on the other core; see load.py for what it returns."""
    command = [*pinned(CLIENT_CORE), sys.executable, str(_HERE / "load.py"), "--url", url, "--body", str(body)]
    command += ["--concurrency", str(concurrency), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the client failed on {url}: {done.stderr.strip()}")
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


@contextlib.contextmanager
def _running(name: str, command: Sequence[str], home: Path) -> Iterator[Server]:
    log = home / "stderr.log"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ROUTER_ML_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen([*pinned(SERVER_CORE), *command], stderr=stderr, env=environ, cwd=home)
    try:
        yield Server(name, _url(process, log), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith(_READY)]
        if said:
            return said[0].removeprefix(_READY)
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text(encoding='utf-8').strip()}")
