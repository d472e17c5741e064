"""A folder with a configuration and an event store, and the command as a person runs it there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.store import open_store


@pytest.fixture(autouse=True)
def no_default_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle that ships with the project is no part of these tests: its training decides nothing here."""
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: tmp_path / "no default")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, world: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "router.toml").write_text(f'{config}[store]\nurl = "sqlite:///events.db"\n')
    with open_store(f"sqlite:///{tmp_path}/events.db") as store:
        store.append(world.log(500))
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    def call(*arguments: str) -> tuple[int, Any]:
        code = main(["retrain", "--no-mlflow", "--json", *arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else err

    return call
