"""The servers that are compared, each a process of its own, and what each has used of the machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "CLIENT_CORE",
    "SERVER_CORE",
    "Server",
    "litellm_server",
    "load",
    "minimal_server",
    "mock_upstream",
    "noop_server",
    "pinned",
    "router_server",
    "stream_load",
]

SERVER_CORE, CLIENT_CORE = 0, 1
_HERE = Path(__file__).resolve().parent
_READY = "listening on "
_START_S, _STOP_S = 60.0, 20.0
# Nothing listens on this port: for those who never call an upstream.
_NOWHERE = "http://127.0.0.1:9"
# Background calls are off: they are calls of their own, not the cost of passing one on.
_TOML = """
models_dir = "{home}/models"
[[tiers]]
name = "small"
model = "gpt-4o-mini"
base_url = "{upstream}/v1"
[[tiers]]
name = "large"
model = "gpt-4o"
base_url = "{upstream}/v1"
[exploration]
audit = 0.0
shadow = 0.0
[store]
url = "sqlite:///{home}/events.db"
[serving]
port = 0
workers = {workers}
spill = "{home}/spill.jsonl"
stream_adequacy = 0.0
"""
_LITELLM = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "{upstream}/v1", api_key: none}}
general_settings: {{master_key: sk-bench}}
litellm_settings: {{telemetry: false}}
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

    def resident_mb(self) -> float:
        """Return the memory that it holds, in millions of bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="utf-8").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


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
def router_server(
    bundle: Path,
    *,
    name: str = "route",
    upstream: str = _NOWHERE,
    workers: int = 1,
    pin: bool = True,
    python: str = sys.executable,
) -> Iterator[Server]:
    """Run `router-ml serve` with one bundle and an event store of its own, all events and metrics on.

    Args:
        bundle: What it decides with.
        name: Of the server, in tables.
        upstream: Base URL of both tiers, without /v1.
        workers: Processes that serve.
        pin: False lets it use every core.
        python: The interpreter of the environment that it runs in.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "models").mkdir()
        shutil.copytree(bundle, home / "models" / "bench")
        (home / "models" / "champion").write_text("bench\n", encoding="utf-8")
        config = home / "router.toml"
        config.write_text(_TOML.format(home=home.as_posix(), upstream=upstream, workers=workers), encoding="utf-8")
        command = [python, "-m", "router_ml.cli", "serve", "--config", str(config)]
        with _running(name, command, home, cores=(SERVER_CORE,) if pin else ()) as server:
            yield server


@contextlib.contextmanager
def mock_upstream() -> Iterator[Server]:
    """Run the model endpoint that costs next to nothing, beside the client."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, str(_HERE / "mock_upstream.py")]
        with _running("direct", command, Path(home), cores=(CLIENT_CORE,)) as server:
            yield server


@contextlib.contextmanager
def minimal_server(upstream: str) -> Iterator[Server]:
    """Run the proxy that does nothing but pass on."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, str(_HERE / "minimal_proxy.py"), "--upstream", upstream]
        with _running("minimal", command, Path(home)) as server:
            yield server


@contextlib.contextmanager
def litellm_server(program: Path, upstream: str) -> Iterator[Server]:
    """Run LiteLLM's proxy with one model and nothing else switched on.

    Args:
        program: Its `litellm` command; it may live in an environment of its own.
        upstream: Base URL of the model, without /v1.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        home = Path(folder)
        (home / "config.yaml").write_text(_LITELLM.format(upstream=upstream), encoding="utf-8")
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        command = [str(program), "--config", str(home / "config.yaml"), "--host", "127.0.0.1", "--port", port]
        with _running("litellm", command, home, url=f"http://127.0.0.1:{port}") as server:
            yield server


def load(
    url: str, body: Path, *, concurrency: int, seconds: float, pin: bool = True, key: str | None = None
) -> dict[str, Any]:
    """Load an endpoint from a client process on the other core; see load.py for what it returns."""
    command = [sys.executable, str(_HERE / "load.py"), "--url", url, "--body", str(body)]
    command += ["--concurrency", str(concurrency), "--seconds", str(seconds), *(["--key", key] if key else [])]
    return _said([*(pinned(CLIENT_CORE) if pin else []), *command], url)


def stream_load(url: str, body: Path, *, streams: int) -> dict[str, Any]:
    """Open many streams at once from a client process on the other core; see stream_load.py for what it returns."""
    command = [sys.executable, str(_HERE / "stream_load.py"), "--url", url, "--body", str(body)]
    return _said([*pinned(CLIENT_CORE), *command, "--streams", str(streams)], url)


def _said(command: Sequence[str], url: str) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the client failed on {url}: {done.stderr.strip()}")
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


@contextlib.contextmanager
def _running(
    name: str, command: Sequence[str], home: Path, *, cores: Sequence[int] = (SERVER_CORE,), url: str | None = None
) -> Iterator[Server]:
    log = home / "stderr.log"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ROUTER_ML_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*(pinned(*cores) if cores else []), *command], stdout=stderr, stderr=stderr, env=environ, cwd=home
        )
    try:
        yield Server(name, _url(process, log) if url is None else _answering(process, url, log), process.pid)
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
        time.sleep(0.01)
    raise RuntimeError(f"the server did not start: {log.read_text(encoding='utf-8').strip()}")


def _answering(process: subprocess.Popen[bytes], url: str, log: Path) -> str:
    # For a server that does not say when it is ready.
    deadline = time.monotonic() + _START_S
    host, _, port = url.removeprefix("http://").partition(":")
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
            return url
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text(encoding='utf-8').strip()}")
