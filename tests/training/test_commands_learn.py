"""`train`, `retrain`, `evaluate` and `report` as a person runs them, on real files, without MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import load_bundle
from router_ml.cli import main
from router_ml.schema import Interaction
from router_ml.shelf import Shelf
from router_ml.store import open_store


@pytest.fixture(autouse=True)
def no_default_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle that ships with the project is no part of these tests: its training decides nothing here."""
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: tmp_path / "no default")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "router.toml").write_text(f'{config}[store]\nurl = "sqlite:///events.db"\n')
    return tmp_path


def write(path: Path, items: Sequence[Interaction]) -> str:
    path.write_text("".join(f"{item.to_json()}\n" for item in items))
    return str(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    def call(*arguments: str) -> tuple[int, Any, str]:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments and out else out, err

    return call


def worse(world: Any, n: int, seed: int) -> list[Interaction]:
    """A log whose training part was judged by nobody who looked."""
    drawn = world.draw(n, np.random.default_rng(seed))
    cut = int(0.6 * n)
    labels = np.concatenate((np.random.default_rng(0).permutation(drawn.quality[:cut]), drawn.quality[cut:]))
    items: list[Interaction] = world.log_of(drawn, labels=labels)
    return items


def test_train_evaluate_and_report_on_a_log(world: Any, home: Path, run: Callable[..., Any]) -> None:
    log, fresh = write(home / "log.jsonl", world.log(500)), write(home / "fresh.jsonl", world.log(300, 9))
    code, made, err = run("train", log, "--no-mlflow", "--json", "--report", str(home / "train.html"))
    assert (code, err) == (0, "")
    assert made["learner"] == "linear"
    assert made["verdict"].startswith("Use 'linear'")
    assert made["mlflow_run_id"] is None
    assert not made["promoted"]
    assert (home / "train.html").read_text().startswith("<!doctype html>")
    shelf = Shelf(home / "models")
    assert shelf.champion() is None
    assert load_bundle(shelf.path(made["version"])).manifest.trained_on.n_interactions == 500

    code, found, _ = run("evaluate", fresh, "--bundle", made["version"], "--json")
    assert code == 0
    assert found["version"] == made["version"]
    assert (found["n_train"], found["n_test"]) == (500, 300)
    assert found["apgr"] > 0.6
    assert found["saving_at_97"] > found["random_saving_at_97"]
    _, by_folder, _ = run("evaluate", fresh, "--bundle", str(shelf.path(made["version"])), "--json")
    assert by_folder == found

    code, text, _ = run("report", fresh, "--bundle", made["version"], "--out", "page.html")
    assert code == 0
    assert "page.html" in text
    assert made["version"] in (home / "page.html").read_text()


def test_a_report_is_on_the_event_store_where_no_log_is_named_and_shows_the_gates_of_its_version(
    world: Any, home: Path, run: Callable[..., Any]
) -> None:
    log = write(home / "log.jsonl", world.log(300))
    _, made, _ = run("train", log, "--no-mlflow", "--json")
    with open_store(f"sqlite:///{home}/events.db") as store:
        store.append(world.log(120, 9))
    gates = [{"name": "saving", "passed": False, "detail": "saves 0.1 less", "value": -0.1, "limit": 0.0}]
    Shelf(home / "models").keep_gates(made["version"], gates)
    code, _, _ = run("report", "--bundle", made["version"], "--out", "page.html")
    page = (home / "page.html").read_text()
    assert code == 0
    assert "Strategies on 120 test requests" in page
    assert "Gates before promotion" in page
    assert "saves 0.1 less" in page
    code, _, err = run("evaluate", "--bundle", made["version"], "--source", "native")
    assert (code, err) == (0, "")


def test_train_can_promote_and_says_how_otherwise(world: Any, home: Path, run: Callable[..., Any]) -> None:
    log = write(home / "log.jsonl", world.log(300))
    _, text, _ = run("train", log, "--no-mlflow")
    assert "is on the shelf, unproven; `router-ml promote router-" in text
    assert text.startswith("No certificate, so nothing is proven about this policy")
    _, text, _ = run("train", log, "--no-mlflow", "--promote")
    assert text.rstrip().endswith("is in service")
    assert str(Shelf(home / "models").champion()).endswith(".2")
    _, found, _ = run("evaluate", log, "--json")
    assert found["version"] == Shelf(home / "models").champion()


def test_retrain_promotes_from_the_store_and_keeps_the_champion_when_it_is_worse(
    world: Any, home: Path, run: Callable[..., Any]
) -> None:
    with open_store(f"sqlite:///{home}/events.db") as store:
        store.append(world.log(600))
    code, first, _ = run("retrain", "--no-mlflow", "--json")
    assert code == 0
    assert first["promoted"]
    assert first["gate"]["reason"] == "there is no champion yet"
    assert first["n_interactions"] == 600
    champion = (home / "models" / "champion").read_bytes()

    with open_store(f"sqlite:///{home}/poor.db") as store:
        store.append(worse(world, 900, 5))
    code, second, _ = run("retrain", "--no-mlflow", "--json", "--store", f"sqlite:///{home}/poor.db")
    assert code == 0, "the run did what it was asked to: a scheduler has nothing to repair"
    assert not second["promoted"]
    assert second["gate"]["reason"].startswith(f"worse than {first['version']} on 180 held-out rows")
    assert (home / "models" / "champion").read_bytes() == champion

    code, text, _ = run("retrain", "--no-mlflow", "--store", f"sqlite:///{home}/poor.db")
    assert code == 0
    assert "not promoted; the champion stays: worse than" in text.rstrip().rsplit("\n", 1)[-1]
    code, _, _ = run("retrain", "--no-mlflow", "--store", f"sqlite:///{home}/poor.db", "--fail-when-kept")
    assert code == 3


def test_retrain_learns_from_a_log_besides_the_store(world: Any, home: Path, run: Callable[..., Any]) -> None:
    items = world.log(400)
    with open_store(f"sqlite:///{home}/events.db") as store:
        store.append(items[:250])
    log = write(home / "old.jsonl", items[200:])
    _, found, _ = run("retrain", "--no-mlflow", "--json", "--log", log)
    assert found["n_interactions"] == 400


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "missing.jsonl"], "missing.jsonl"),
        (["train", "empty.jsonl"], "the log holds no interaction"),
        (["train", "small.jsonl", "--source", "natve"], "no source is called 'natve' (did you mean 'native'?)"),
        (["train", "small.jsonl"], "too few to split"),
        (["retrain"], "no such event store"),
        (["evaluate", "small.jsonl", "--bundle", "nope"], "no bundle is called 'nope'"),
        (["evaluate", "small.jsonl", "--quality", "97"], "--quality: expected a share"),
    ],
)
def test_a_mistake_is_one_clear_line_and_leaves_nothing_behind(
    world: Any, home: Path, run: Callable[..., Any], arguments: list[str], said: str
) -> None:
    (home / "empty.jsonl").write_text("")
    write(home / "small.jsonl", world.log(30))
    no_mlflow = ["--no-mlflow"] if arguments[0] != "evaluate" else []
    code, out, err = run(*arguments, *no_mlflow)
    assert code == 2
    assert out == ""
    assert err.startswith("router-ml: error: ")
    assert said in err
    assert Shelf(home / "models").versions() == []


@pytest.mark.parametrize("arguments", [["train", "--no-mlflow", "--report"], ["report", "--out"]])
def test_a_page_that_cannot_be_written_is_known_before_the_work_is_done(
    world: Any, home: Path, run: Callable[..., Any], arguments: list[str]
) -> None:
    command, *options = arguments
    log = write(home / "log.jsonl", world.log(30))
    code, _, err = run(command, log, *options, str(home / "no" / "page.html"))
    assert code == 2
    assert f"there is no folder {home / 'no'}" in err
    assert not (home / "models").exists()


def test_training_without_tiers_says_what_is_missing(world: Any, home: Path, run: Callable[..., Any]) -> None:
    (home / "router.toml").write_text("")
    code, _, err = run("train", write(home / "log.jsonl", world.log(30)), "--no-mlflow")
    assert code == 2
    assert "no [[tiers]]: training needs to know the tiers and their prices" in err


def test_evaluating_on_another_ladder_is_refused(world: Any, home: Path, run: Callable[..., Any]) -> None:
    log = write(home / "log.jsonl", world.log(300))
    run("train", log, "--no-mlflow", "--promote")
    config = (home / "router.toml").read_text().replace('name = "large"', 'name = "huge"')
    (home / "router.toml").write_text(config)
    renamed = (home / "log.jsonl").read_text().replace('"large"', '"huge"')
    (home / "log.jsonl").write_text(renamed)
    code, _, err = run("evaluate", log)
    assert code == 2
    assert "routes between small, large, the log is about small, huge" in err
