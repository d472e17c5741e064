"""Retraining while the event store goes away: one clear message, and the next run goes on from what is done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.shelf import Shelf
from router_ml.store import open_store
from router_ml_training.commands import retrain
from router_ml_training.engine import Engine
from router_ml_training.executor import LocalExecutor
from router_ml_training.learners.boosting import grow_here

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, world: Any, postgres_of_its_own: Any) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: tmp_path / "no default")
    where: str = postgres_of_its_own.database()
    (tmp_path / "router.toml").write_text(f'{config}[store]\nurl = "{where}"\n')
    with open_store(where) as store:
        store.append(world.log(500))
    return where


def at(step: str, then: Callable[[], None]) -> Callable[[], contextlib.AbstractContextManager[Callable[[str], None]]]:
    """Do something when a step begins; any text of that beginning will do."""

    @contextlib.contextmanager
    def steps() -> Iterator[Callable[[str], None]]:
        done: list[str] = []

        def progress(text: str) -> None:
            if text.startswith(step) and not done:
                done.append(text)
                then()

        yield progress

    return steps


class CutOff(LocalExecutor):
    """Does something between finding out what there is to read and reading it."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def map(self, task: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        self._then()
        yield from super().map(task, items)


def test_a_database_that_is_away_is_said_and_the_run_goes_on_later(
    url: str, tmp_path: Path, postgres_of_its_own: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    postgres_of_its_own.stop()
    assert main(["retrain", "--no-mlflow", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("router-ml: error: ")
    assert "postgresql" in err
    assert err.count("\n") == 1
    assert Shelf(tmp_path / "models").versions() == []
    postgres_of_its_own.start()
    assert main(["retrain", "--no-mlflow", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["promoted"]


def test_a_database_that_goes_away_while_it_trains_does_not_matter(
    url: str,
    tmp_path: Path,
    postgres_of_its_own: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrain, "steps", at("step: train", postgres_of_its_own.stop))
    assert main(["retrain", "--no-mlflow", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["promoted"]
    assert postgres_of_its_own.process is None
    postgres_of_its_own.start()
    assert main(["retrain", "--no-mlflow", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nothing_new"]


def test_a_database_that_goes_away_while_it_is_read_is_said(
    url: str,
    tmp_path: Path,
    postgres_of_its_own: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = CutOff(postgres_of_its_own.stop)
    with monkeypatch.context() as patch:
        patch.setattr(retrain, "open_engine", lambda _: contextlib.nullcontext(Engine(cut, grow_here)))
        code = main(["retrain", "--no-mlflow", "--json"])
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert err.startswith("router-ml: error: ")
    assert list((tmp_path / "models").rglob("*.tmp")) == []
    postgres_of_its_own.start()
    assert main(["retrain", "--no-mlflow", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_interactions"], found["version"][-2:]) == (500, ".1")
