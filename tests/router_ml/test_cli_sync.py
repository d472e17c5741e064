"""`router-ml sync`: the commands and the watch as a process, against a real S3 server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.shelf import Shelf

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def trainer(make_bundle: Callable[..., Path], objects: Any, tmp_path: Path) -> Path:
    """The configuration of a machine with one bundle in service."""
    Shelf(make_bundle("v1").parent).promote("v1", reason="first", now=NOW)
    return configuration(tmp_path / "trainer.toml", tmp_path / "models", objects)


@pytest.fixture
def replica(objects: Any, tmp_path: Path) -> Path:
    return configuration(tmp_path / "replica.toml", tmp_path / "replica", objects)


def configuration(file: Path, models: Path, objects: Any) -> Path:
    file.write_text(
        f'models_dir = "{models}"\n[objects]\nmodels = "{objects.url}/models"\n'
        f'endpoint_url = "{objects.endpoint}"\nretry_s = 0.5\n'
    )
    return file


@pytest.mark.e2e
def test_push_and_pull(
    trainer: Path, replica: Path, objects: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sync", "push", "--config", str(trainer)]) == 0
    assert capsys.readouterr().out == f"pushed v1; champion v1 in {objects.url}/models\n"
    assert main(["sync", "pull", "--config", str(replica), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {
        "url": f"{objects.url}/models",
        "versions": ["v1"],
        "champion": "v1",
        "challenger": None,
        "changed": True,
    }
    assert Shelf(tmp_path / "replica").champion() == "v1"
    assert main(["sync", "pull", "--config", str(replica)]) == 0
    assert capsys.readouterr().out == f"nothing to be pulled; champion v1 in {tmp_path / 'replica'}\n"


@pytest.mark.e2e
def test_another_url_goes_before_the_configured_one(
    trainer: Path, replica: Path, objects: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["sync", "push", "--config", str(trainer), "--to", f"{objects.url}/elsewhere"])
    assert main(["sync", "pull", "--config", str(replica)]) == 1
    assert "/models: no bundle and no champion there" in capsys.readouterr().err
    assert main(["sync", "pull", "--config", str(replica), "--from", f"{objects.url}/elsewhere"]) == 0
    assert main(["sync", "pull", "v7", "--config", str(replica), "--from", f"{objects.url}/elsewhere"]) == 2
    assert "no whole bundle 'v7' is there" in capsys.readouterr().err


def test_without_a_url_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sync", "push"]) == 2
    assert "which bucket? Pass --to s3://bucket/prefix, or set models in [objects]" in capsys.readouterr().err
    assert main(["sync", "watch", "--every", "0", "--from", "s3://bucket/models"]) == 2
    assert "--every: expected seconds" in capsys.readouterr().err


@pytest.mark.e2e
def test_a_watch_follows_and_ends_cleanly(trainer: Path, replica: Path, objects: Any, tmp_path: Path) -> None:
    main(["sync", "push", "--config", str(trainer)])
    command = [
        sys.executable,
        "-m",
        "router_ml.cli",
        "sync",
        "watch",
        "--every",
        "0.1",
        "--config",
        str(replica),
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as watching:
        try:
            assert watching.stdout is not None
            assert watching.stderr is not None
            first = json.loads(watching.stdout.readline())
            assert (first["ok"], first["state"]) == (True, f"in step with {objects.url}/models: champion v1")
            Shelf(tmp_path / "models").rollback(now=NOW)
            main(["sync", "push", "--config", str(trainer)])
            assert json.loads(watching.stdout.readline())["state"].endswith("champion default")
            watching.send_signal(signal.SIGTERM)
            assert watching.wait(10) == 0
            assert (watching.stdout.read(), watching.stderr.read()) == ("", "")
        finally:
            watching.kill()
    assert Shelf(tmp_path / "replica").champion() is None


@pytest.mark.e2e
def test_the_doctor_says_whether_the_depot_can_be_reached(trainer: Path, objects: Any, capsys: Any) -> None:
    main(["sync", "push", "--config", str(trainer)])
    main(["doctor", "--config", str(trainer)])
    assert f"{objects.url}/models, 1 bundles" in capsys.readouterr().out
    trainer.write_text(trainer.read_text().replace(objects.url, "s3://no-such-bucket"))
    assert main(["doctor", "--config", str(trainer)]) == 1
    assert "there is no bucket 'no-such-bucket'" in capsys.readouterr().out


@pytest.mark.e2e
def test_before_the_first_push_there_is_nothing_to_pull_if_any(
    trainer: Path, replica: Path, objects: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sync", "pull", "--config", str(replica)]) == 1
    assert main(["sync", "pull", "--if-any", "--config", str(replica)]) == 0
    assert capsys.readouterr().out == f"nothing to be pulled; champion default in {tmp_path / 'replica'}\n"
    # Who names a bundle wants it, and a bucket that is not there is no empty one.
    assert main(["sync", "pull", "--if-any", "v1", "--config", str(replica)]) == 1
    assert main(["sync", "pull", "--if-any", "--config", str(replica), "--from", "s3://no-such-bucket/models"]) == 1
    capsys.readouterr()
    main(["sync", "push", "--config", str(trainer)])
    assert main(["sync", "pull", "--if-any", "--config", str(replica)]) == 0
    assert Shelf(tmp_path / "replica").champion() == "v1"
