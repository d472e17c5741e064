"""The way to MLflow: clear errors within seconds where there is none, and no secret in any of them."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router_ml.errors import RouterError
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_client import connected


def enter(uri: str) -> None:
    with connected(MlflowSettings(tracking_uri=uri)) as mlflow:
        mlflow.search_experiments()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def other_port() -> Iterator[int]:
    """A web server that is no MLflow."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


class _NotFound(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("scheme", ["http", "postgresql", "mysql+pymysql"])
def test_a_server_that_does_not_answer_is_an_error_within_seconds(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        began = time.monotonic()
        with pytest.raises(RouterError, match=r"cannot be reached.*tracking_uri"):
            enter(f"{scheme}://127.0.0.1:{taken.getsockname()[1]}/db")
    assert time.monotonic() - began < 5


def test_a_server_that_takes_the_call_and_says_nothing_is_an_error_within_seconds(silent_port: int) -> None:
    began = time.monotonic()
    with pytest.raises(RouterError, match=r"cannot be reached: timed out"):
        enter(f"http://127.0.0.1:{silent_port}")
    assert time.monotonic() - began < 8


@pytest.mark.slow
def test_a_web_server_that_is_no_mlflow_is_an_error(other_port: int) -> None:
    with pytest.raises(RouterError, match=r"could not be used: .*404.*Check \[mlflow\] tracking_uri"):
        enter(f"http://user:secret@127.0.0.1:{other_port}/wrong")


@pytest.mark.slow
def test_a_name_and_a_password_in_the_address_are_never_shown(other_port: int) -> None:
    for port in (1, other_port):
        with pytest.raises(RouterError) as caught:
            enter(f"http://someone:se%40cret@127.0.0.1:{port}")  # pragma: allowlist secret
        assert not {"someone", "se%40cret", "se@cret"} & set(str(caught.value).replace(":", " ").split())
        assert "cret" not in str(caught.value)
        assert "http://***@127.0.0.1" in str(caught.value)


def test_an_address_that_is_none_is_an_error() -> None:
    with pytest.raises(RouterError, match=r"http://host:port cannot be reached"):
        enter("http://host:port")


def test_a_database_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RouterError, match="cannot be reached"):
        enter(f"sqlite:///{tmp_path}/file/sub/mlflow.db")


@pytest.mark.slow
def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RouterError, match="not a database"):
        enter(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.slow
def test_mlflow_reports_nothing_to_its_makers(mlflow_local: MlflowSettings) -> None:
    code = f"""
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_client import connected
with connected(MlflowSettings(tracking_uri={mlflow_local.tracking_uri!r})):
    from mlflow.telemetry.utils import is_telemetry_disabled
    raise SystemExit(0 if is_telemetry_disabled() else 1)
"""
    # Without the variables that would switch it off by themselves, as in continuous integration.
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_password_in_the_query_is_never_shown(scheme: str) -> None:
    uri = f"{scheme}://127.0.0.1:1/db?user=someone&password=se%40cret&sslPassword=oth+er"  # pragma: allowlist secret
    with pytest.raises(RouterError) as caught:
        enter(uri)
    said = str(caught.value)
    assert not [word for word in ("se%40cret", "se@cret", "oth+er", "oth er") if word in said]
    assert "?user=someone&password=***&sslPassword=***" in said
