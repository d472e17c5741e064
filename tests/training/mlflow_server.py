"""A real MLflow server for the tests, and a way to it that can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

READY_S = 90


class MlflowServer:
    """`mlflow server` on a database of its own; artifacts go through it into `artifacts`."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder, self.artifacts = folder, folder / "artifacts"
        shutil.copyfile(database, folder / "mlflow.db")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> MlflowServer:
        """Start the server, and return when it answers."""
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--backend-store-uri": f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination": str(self.artifacts),
            "--workers": "1",
        }
        command = [sys.executable, "-m", "mlflow", "server", *(part for pair in options.items() for part in pair)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--serve-artifacts"], env=environment(), stdout=log, stderr=log, start_new_session=True
            )
        wait_for(f"{self.url}/health", self.process, self.folder / "log")
        return self

    def stop(self) -> None:
        """End the server and its workers."""
        end(self.process)


class Wire:
    """A way to a server that breaks when a request with some word passes; nothing listens then, until it is mended."""

    def __init__(self, port: int, word: bytes) -> None:
        self._to, self._word = ("127.0.0.1", port), word
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.broken = threading.Event()
        self._listen()

    def mend(self) -> None:
        """Let everybody through, under the same address, from now on."""
        self._word, self._listener = b"", socket.create_server(("127.0.0.1", self._port))
        self.broken.clear()
        self._listen()

    def close(self) -> None:
        """Let nobody through any more."""
        self.broken.set()
        # Closing alone does not wake whoever waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._to) as server:
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()
            while data := _received(client):
                if self._word and self._word in data:
                    self.close()
                if self.broken.is_set():
                    return
                server.sendall(data)


def environment() -> dict[str, str]:
    """The environment of MLflow's own processes: nothing is reported, no jobs run beside it."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**os.environ, **quiet, "GIT_PYTHON_REFRESH": "quiet", "PATH": programs}


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when a server answers; fail when it ends first, or takes too long."""
    give_up = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"{url} did not start: {log.read_text()[-2_000:]}")
            time.sleep(0.1)


def end(process: subprocess.Popen[bytes] | None) -> None:
    """End a process that leads a group of its own, and the group."""
    if process is not None:
        os.killpg(process.pid, 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(10)


def _copy(source: socket.socket, target: socket.socket) -> None:
    while data := _received(source):
        try:
            target.sendall(data)
        except OSError:
            return


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65_536)
    except OSError:
        return b""
