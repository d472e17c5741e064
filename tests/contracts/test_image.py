"""The service's image without Docker: its Dockerfile's steps, done in a folder, make a service that answers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

# The folders of the image that its steps write to.
FOLDERS = ("/src", "/wheel", "/opt/router-ml", "/etc/router-ml", "/var/lib/router-ml")
KEY = "a-key-that-is-long-enough"


@dataclass
class Image:
    """What a Dockerfile has made so far, under a folder instead of `/`."""

    root: Path
    context: Path
    base: Path
    workdir: str = "/"
    environ: dict[str, str] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)

    def here(self, text: str) -> str:
        """Return a text with the image's folders replaced by those below the root."""
        return re.sub(rf"(?<![\w.])({'|'.join(FOLDERS)})\b", lambda found: f"{self.root}{found[1]}", text)

    def do(self, word: str, rest: str) -> None:
        """Follow one instruction."""
        if word == "COPY":
            self._copy(rest)
        elif word == "RUN" and "useradd" in rest:
            Path(self.here("/var/lib/router-ml/models")).mkdir(parents=True)
        elif word == "RUN":
            subprocess.run(
                self.here(rest),
                shell=True,
                cwd=self.here(self.workdir),
                env=self.environment(),
                check=True,
                timeout=280,
            )
        elif word == "WORKDIR":
            self.workdir = rest
            Path(self.here(rest)).mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            self.environ |= dict(part.split("=", 1) for part in shlex.split(rest))
        elif word in {"CMD", "ENTRYPOINT"}:
            self.words[word] = re.findall(r'"([^"]*)"', rest)

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        if sources[0].startswith("--from"):
            return  # every stage works in the same folders
        into = Path(self.here(target if target.startswith("/") else f"{self.workdir}/{target}"))
        for name in sources:
            source = self.context / name
            if source.is_dir():
                shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                path = into / source.name if target.endswith("/") else into
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, path)

    def environment(self) -> dict[str, str]:
        """Return what the image's variables are, the paths of its Python first."""
        given = {name: value for name, value in os.environ.items() if not name.startswith(("ROUTER_ML_", "PYTHON"))}
        path = f"{self.base}:{os.environ['PATH']}"
        own = {name: self.here(value).replace("$PATH", path) for name, value in self.environ.items()}
        return {**given, "PATH": path, **own}


@pytest.fixture(scope="module")
def image(
    root: Path, tmp_path_factory: pytest.TempPathFactory, instructions: Callable[[Path, Mapping[str, str]], list]
) -> Image:
    folder = tmp_path_factory.mktemp("image")
    # The Python of the base image: its own environment, with pip and nothing else.
    subprocess.run([sys.executable, "-m", "venv", folder / "python"], check=True, timeout=120)
    made = Image(folder / "root", root, folder / "python" / "bin")
    for word, rest in instructions(root / "serving" / "Dockerfile", {}):
        made.do(word, rest)
    return made


@contextmanager
def started(image: Image, folder: Path, **environ: str) -> Iterator[tuple[str, Path]]:
    """Run the image's command on a free port; yields its URL and its log."""
    command = [*image.words["ENTRYPOINT"], *image.words["CMD"][:-1], "0"]
    log = folder / "log"
    environment = {**image.environment(), **environ}
    with log.open("wb") as file:
        process = subprocess.Popen([image.here(word) for word in command], cwd=folder, env=environment, stderr=file)
    try:
        yield _url(process, log), log
    finally:
        process.terminate()
        process.wait(30)


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if said := re.search(r"listening on http://[\d.]+:(\d+)", log.read_text(encoding="utf-8")):
            return f"http://127.0.0.1:{said[1]}"
        time.sleep(0.05)
    return ""


def get(url: str, key: str | None = None, host: str | None = None) -> int:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers | ({"host": host} if host else {}))
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_command_serves_and_asks_for_the_key(image: Image, tmp_path: Path) -> None:
    keys = {"ROUTER_ML_SERVING__API_KEY_ENV": "CLIENTS_KEY", "CLIENTS_KEY": KEY}
    with started(image, tmp_path, **keys) as (url, log):
        assert url, log.read_text(encoding="utf-8")
        assert [get(f"{url}/{path}") for path in ("healthz", "readyz", "v1/models", "metrics")] == [200, 200, 401, 401]
        assert get(f"{url}/v1/models", KEY) == 200


def test_without_a_key_it_does_not_start(image: Image, tmp_path: Path) -> None:
    with started(image, tmp_path) as (url, log):
        assert url == ""
        assert "serving.host: on '0.0.0.0' everybody" in log.read_text(encoding="utf-8")


def test_it_writes_nowhere_but_to_its_folder(image: Image, tmp_path: Path) -> None:
    before = {path for path in image.root.rglob("*") if "__pycache__" not in path.parts}
    keys = {"ROUTER_ML_SERVING__API_KEY_ENV": "CLIENTS_KEY", "CLIENTS_KEY": KEY, "TMPDIR": "/nowhere"}
    with started(image, tmp_path, **keys) as (url, log):
        assert url, log.read_text(encoding="utf-8")
    assert {path for path in image.root.rglob("*") if "__pycache__" not in path.parts} == before
    assert {path.name for path in tmp_path.iterdir()} >= {"log", "router_ml.db"}


def test_it_holds_the_service_and_nothing_of_training(image: Image) -> None:
    code = (
        "import importlib.util, router_ml_serving.app\n"
        "names = ('mlflow', 'polars', 'sklearn', 'lightgbm', 'pytest', 'pip', 'hatchling')\n"
        "print([name for name in names if importlib.util.find_spec(name)])"
    )
    command = [image.here("/opt/router-ml/bin/python"), "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, env=image.environment(), timeout=60)
    assert found.stdout == "[]\n", found.stderr
    size = sum(path.stat().st_size for path in Path(image.here("/opt/router-ml")).rglob("*") if path.is_file())
    assert size < 300 * 2**20


def test_it_can_decide(image: Image, tmp_path: Path) -> None:
    command = [image.here("/opt/router-ml/bin/router-ml"), "route", "What is the capital of France?", "--json"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=image.environment(), timeout=60)
    assert found.returncode == 0, found.stderr


def test_the_tracking_server_of_compose_answers_to_its_name(root: Path, tmp_path: Path) -> None:
    services = yaml.safe_load((root / "serving" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    port = free_port()
    here = [word.replace("/var/lib/mlflow", str(tmp_path)) for word in services["mlflow"]["command"]]
    here = [word for word in here if not word.startswith(("--host", "--port"))] + ["--host=127.0.0.1", f"--port={port}"]
    environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *here],
            cwd=tmp_path,
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: get(f"{url}/health", host="mlflow:5000") == 200, (tmp_path / "log").read_text)
        query = "api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
        assert get(f"{url}/{query}", host="mlflow:5000") == 200
        assert get(f"{url}/{query}", host="stranger.example:5000") == 403
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(ready: Callable[[], bool], log: Callable[[], str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with suppress(OSError):
            if ready():
                return
        time.sleep(0.1)
    pytest.fail(f"never ready: {log()}")
