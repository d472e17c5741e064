"""`router-ml follow`: a person moves an alias in MLflow, and the bundle it names goes into service."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.errors import BundleError
from router_ml.shelf import Shelf
from router_ml.store import open_store
from router_ml_training.retrain.following import follow
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_aliases import note_champion
from router_ml_training.tracking_registry import bundle_digest, set_alias
from tests.training.mlflow_server import MlflowServer, Wire
from tests.training.tracking_records import alias_version, renamed, twin

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
pytestmark = pytest.mark.slow


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, world: Any, mlflow_local: MlflowSettings
) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: tmp_path / "no default")
    manual = config.replace("[training]", '[training]\npromote = "manual"')
    mlflow = f'[mlflow]\ntracking_uri = "{mlflow_local.tracking_uri}"\nartifacts = "{mlflow_local.artifacts}"\n'
    (tmp_path / "router.toml").write_text(f'{manual}[store]\nurl = "sqlite:///events.db"\n{mlflow}')
    with open_store(f"sqlite:///{tmp_path}/events.db") as store:
        store.append(world.log(400))
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    def call(*arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else err

    return call


def test_the_champion_changes_when_a_person_moves_the_alias(
    home: Path, run: Callable[..., Any], mlflow_local: MlflowSettings
) -> None:
    shelf = Shelf(home / "models")
    code, made = run("retrain")
    assert (code, made["waits"]) == (0, True)
    assert alias_version("challenger", settings=mlflow_local) == made["version"]
    code, found = run("follow")
    assert (code, found["champion"]) == (1, None)
    assert shelf.champion() is None

    set_alias("champion", made["version"], settings=mlflow_local)
    code, found = run("follow", "--wait", "5")
    assert (code, found) == (0, {"champion": made["version"], "changed": True, "before": None})
    assert shelf.champion() == made["version"]
    assert shelf.switches()[-1].reason == "MLflow's alias 'champion' was moved to it"
    assert run("follow")[1]["changed"] is False

    # Another machine has MLflow, and no bundle yet.
    elsewhere = Shelf(home / "elsewhere")
    elsewhere.directory.mkdir()
    assert follow(elsewhere, mlflow_local, anyway=False, now=NOW).changed
    assert elsewhere.champion() == made["version"]


def test_a_bundle_that_failed_a_gate_is_put_into_service_only_by_who_says_so(
    home: Path, run: Callable[..., Any], mlflow_local: MlflowSettings
) -> None:
    with (home / "router.toml").open("a") as file:
        file.write("[gates]\nmax_mb = 0.0001\n")
    code, made = run("retrain")
    assert (code, made["promoted"], made["waits"]) == (0, False, False)
    set_alias("champion", made["version"], settings=mlflow_local)
    code, message = run("follow")
    assert code == 1
    assert "did not pass the gate size, so it is not put into service" in message
    elsewhere = Shelf(home / "elsewhere")
    elsewhere.directory.mkdir()
    with pytest.raises(BundleError, match="did not pass the gate size"):
        follow(elsewhere, mlflow_local, anyway=False, now=NOW)
    assert Shelf(home / "models").champion() is None
    code, found = run("follow", "--anyway")
    assert (code, found["champion"]) == (0, made["version"])
    assert Shelf(home / "models").switches()[-1].reason.endswith("although it failed size")


def test_a_run_that_mlflow_could_not_be_told_of_is_recorded_by_the_next(
    home: Path, run: Callable[..., Any], mlflow_local: MlflowSettings
) -> None:
    text = (home / "router.toml").read_text()
    away = text.replace(mlflow_local.tracking_uri, "http://127.0.0.1:1").replace('promote = "manual"', "")
    (home / "router.toml").write_text(away)
    code, first = run("retrain")
    assert (code, first["promoted"], first["mlflow_run_id"]) == (0, True, None)
    assert (home / "models" / ".retrain" / "outbox" / first["version"]).is_dir()
    (home / "router.toml").write_text(text.replace('promote = "manual"', ""))
    _, second = run("retrain", "--force")
    assert second["mlflow_run_id"] is not None
    assert not (home / "models" / ".retrain" / "outbox" / first["version"]).exists()
    assert alias_version("champion", settings=mlflow_local) == second["version"]
    shutil.rmtree(home / "models" / first["version"])
    set_alias("champion", first["version"], settings=mlflow_local)
    assert run("follow")[1]["champion"] == first["version"]


def test_what_was_rolled_back_is_not_followed_back_into_service(
    home: Path, run: Callable[..., Any], mlflow_local: MlflowSettings
) -> None:
    _, first = run("retrain")
    _, made = run("retrain", "--force")
    shelf = Shelf(home / "models")
    shelf.promote(first["version"], reason="by hand", now=NOW)
    set_alias("champion", made["version"], settings=mlflow_local)
    assert run("follow")[0] == 0
    shelf.rollback(now=NOW, reason="error rate 40 %", cause="automatic")
    code, message = run("follow")
    assert code == 1
    assert "was rolled back at 2026-11-22T12:00:00+00:00 (error rate 40 %)" in message
    assert shelf.champion() == first["version"]
    assert run("follow", "--anyway")[1]["champion"] == made["version"]

    # Gates that MLflow has not been told of are on the shelf.
    other = Shelf(home / "elsewhere")
    other.directory.mkdir()
    shutil.copytree(shelf.path(made["version"]), other.directory / made["version"])
    other.keep_gates(made["version"], [{"name": "slices", "passed": False, "required": True}])
    with pytest.raises(BundleError, match="did not pass the gate slices"):
        follow(other, mlflow_local, anyway=False, now=NOW)


def test_a_run_with_nothing_new_tells_mlflow_what_waits(
    home: Path, run: Callable[..., Any], mlflow_local: MlflowSettings
) -> None:
    text = (home / "router.toml").read_text()
    (home / "router.toml").write_text(text.replace(mlflow_local.tracking_uri, "http://127.0.0.1:1"))
    _, first = run("retrain")
    kept = home / "models" / ".retrain" / "outbox" / first["version"]
    assert kept.is_dir()
    (home / "router.toml").write_text(text)
    assert run("retrain")[1]["nothing_new"]
    assert not kept.exists()
    assert alias_version("challenger", settings=mlflow_local) == first["version"]


def test_a_bundle_of_another_machine_with_the_same_name_is_not_taken_for_ones_own(
    home: Path, run: Callable[..., Any], mlflow_local: MlflowSettings
) -> None:
    _, made = run("retrain")
    set_alias("champion", made["version"], settings=mlflow_local)
    elsewhere = Shelf(home / "elsewhere")
    elsewhere.directory.mkdir()
    own = twin(Shelf(home / "models").path(made["version"]), elsewhere.directory)
    with pytest.raises(BundleError, match=f"another bundle by {made['version']} than the one in {own}"):
        follow(elsewhere, mlflow_local, anyway=True, now=NOW)
    assert elsewhere.champion() is None
    own.rename(home / "away")
    assert follow(elsewhere, mlflow_local, anyway=False, now=NOW).changed
    assert bundle_digest(elsewhere.path(made["version"])) != bundle_digest(home / "away")


def test_what_was_promoted_here_since_stays_when_the_alias_could_not_follow(
    home: Path, run: Callable[..., Any], mlflow_local: MlflowSettings
) -> None:
    _, made = run("retrain")
    set_alias("champion", made["version"], settings=mlflow_local)
    assert run("follow")[1]["changed"]
    shelf = Shelf(home / "models")
    unknown = renamed(shelf.path(made["version"]), "router-2020-01-01.1", shelf.directory)
    assert run("promote", unknown.name)[0] == 0
    code, message = run("follow")
    assert code == 1
    assert "so the alias is out of date: move it, or say --anyway" in message
    assert shelf.champion() == unknown.name
    assert run("follow", "--anyway")[1]["champion"] == made["version"]


def test_an_alias_that_was_caught_up_with_and_left_again_is_out_of_date(
    home: Path, run: Callable[..., Any], mlflow_local: MlflowSettings
) -> None:
    _, made = run("retrain")
    set_alias("champion", made["version"], settings=mlflow_local)
    shelf = Shelf(home / "models")
    other = renamed(shelf.path(made["version"]), "router-2020-01-01.1", shelf.directory).name
    shelf.promote(other, reason="by hand", now=NOW)
    note_champion(bundle_digest(shelf.path(made["version"])), shelf)  # looked at, and refused
    shelf.promote(made["version"], reason="by hand", now=NOW)
    assert run("follow") == (0, {"champion": made["version"], "changed": False, "before": made["version"]})
    shelf.promote(other, reason="by hand", now=NOW)
    assert run("follow")[0] == 1
    assert shelf.champion() == other


def test_waiting_outlasts_a_server_that_is_away(
    home: Path, run: Callable[..., Any], mlflow_server: MlflowServer
) -> None:
    name, wire = uuid.uuid4().hex, Wire(mlflow_server.port, b"")
    server = MlflowSettings(tracking_uri=mlflow_server.url, experiment=f"e-{name}", registered_model=f"m-{name}")
    section = f'[mlflow]\ntracking_uri = "{wire.url}"\nexperiment = "e-{name}"\nregistered_model = "m-{name}"\n'
    text = (home / "router.toml").read_text()
    (home / "router.toml").write_text(text[: text.index("[mlflow]")] + section)
    _, made = run("retrain")
    set_alias("champion", made["version"], settings=server)
    wire.close()
    code, message = run("follow", "--wait", "0.2", "--every", "1")
    assert code == 1
    assert "cannot be reached" in message
    back = threading.Timer(2.5, wire.mend)
    back.start()
    code, found = run("follow", "--wait", "60", "--every", "1")
    back.join()
    wire.close()
    assert (code, found["champion"]) == (0, made["version"])


@pytest.mark.parametrize("words", [("--every", "0"), ("--every", "-3"), ("--wait", "-1"), ("--wait", "soon")])
def test_a_pause_that_is_none_is_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["follow", *words]) == 2
    assert f"argument {words[0]}: expected" in capsys.readouterr().err
