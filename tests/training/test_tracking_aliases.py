"""MLflow's alias `champion` follows the shelf: at once, or later; and what a person did meanwhile counts."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from router_ml.errors import RouterError
from router_ml.shelf import Shelf
from router_ml_training.pipeline import Run
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking import log_training
from router_ml_training.tracking_aliases import Seen, name_champion, note_champion, seen_champion, tell_aliases
from router_ml_training.tracking_outbox import keep_run, outbox_of
from router_ml_training.tracking_registry import bundle_digest, set_alias
from tests.training.tracking_records import alias_version, record_around, renamed

NOWHERE = MlflowSettings(tracking_uri="http://127.0.0.1:1")
NOW = datetime(2026, 11, 22, tzinfo=UTC)
A, B, C = (f"router-2026-02-01.{number}" for number in (1, 2, 3))


@pytest.fixture
def shelf(trained_run: Run, tmp_path: Path) -> Shelf:
    """A shelf with three bundles."""
    first = trained_run.bundle.path
    shutil.copytree(first, tmp_path / "models" / A)
    for version in (B, C):
        renamed(first, version, tmp_path / "models")
    return Shelf(tmp_path / "models")


@pytest.fixture
def recorded(shelf: Shelf, mlflow_local: MlflowSettings) -> MlflowSettings:
    """MLflow, which knows all three; the alias is at the first, which is in service."""
    for version in (A, B, C):
        log_training(record_around(shelf.path(version), key=version), settings=mlflow_local)
    promote(shelf, A)
    assert name_champion(A, shelf, mlflow_local)
    return mlflow_local


def promote(shelf: Shelf, version: str) -> None:
    shelf.promote(version, reason="better", now=NOW)


def waiting(shelf: Shelf) -> Path:
    return outbox_of(shelf.directory) / "aliases.json"


@pytest.mark.slow
def test_what_was_promoted_while_mlflow_was_away_is_told_when_it_is_back(
    shelf: Shelf, recorded: MlflowSettings, caplog: pytest.LogCaptureFixture
) -> None:
    for version in (B, C):
        promote(shelf, version)
        assert not name_champion(version, shelf, NOWHERE)
    assert "alias 'champion' waits in" in caplog.text
    with pytest.raises(RouterError, match="cannot be reached"):
        tell_aliases(shelf, NOWHERE)
    assert alias_version("champion", settings=recorded) == A
    tell_aliases(shelf, recorded)
    assert alias_version("champion", settings=recorded) == C
    assert seen_champion(shelf) == Seen(bundle_digest(shelf.path(C)), C)
    assert not waiting(shelf).exists()
    tell_aliases(shelf, NOWHERE)  # nothing waits: nobody is asked


@pytest.mark.slow
@pytest.mark.parametrize("remembered", [True, False])
def test_an_alias_that_a_person_moved_meanwhile_stays(
    shelf: Shelf, recorded: MlflowSettings, remembered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if not remembered:  # never looked from here: it should be at what was replaced
        (shelf.directory / ".retrain" / "alias.json").unlink()
    promote(shelf, B)
    name_champion(B, shelf, NOWHERE)
    set_alias("champion", C, settings=recorded)
    with caplog.at_level(logging.WARNING):
        tell_aliases(shelf, recorded)
    assert alias_version("champion", settings=recorded) == C
    assert f"stays at {C}: it was to be moved to {B} while MLflow was away, and somebody has moved it" in caplog.text
    assert not waiting(shelf).exists()


@pytest.mark.slow
def test_where_nothing_was_seen_what_was_replaced_counts(shelf: Shelf, recorded: MlflowSettings) -> None:
    (shelf.directory / ".retrain" / "alias.json").unlink()
    promote(shelf, B)
    name_champion(B, shelf, NOWHERE)
    tell_aliases(shelf, recorded)
    assert alias_version("champion", settings=recorded) == B


@pytest.mark.slow
def test_a_service_that_rolled_back_by_itself_is_nobody_who_moved_the_alias(
    shelf: Shelf, recorded: MlflowSettings
) -> None:
    promote(shelf, B)
    name_champion(B, shelf, recorded)
    shelf.rollback(now=NOW, cause="automatic")
    promote(shelf, C)
    name_champion(C, shelf, NOWHERE)
    tell_aliases(shelf, recorded)
    assert alias_version("champion", settings=recorded) == C


@pytest.mark.slow
def test_the_default_bundle_takes_the_alias_away(shelf: Shelf, recorded: MlflowSettings) -> None:
    assert shelf.rollback(now=NOW) == "default"
    assert name_champion(None, shelf, recorded)
    assert alias_version("champion", settings=recorded) is None
    assert seen_champion(shelf) == Seen(None, None)


@pytest.mark.slow
def test_a_bundle_that_mlflow_does_not_know_leaves_the_alias_where_it_is(
    shelf: Shelf, mlflow_local: MlflowSettings, caplog: pytest.LogCaptureFixture
) -> None:
    log_training(record_around(shelf.path(A)), settings=mlflow_local)
    promote(shelf, B)
    assert not name_champion(B, shelf, mlflow_local)
    assert "stays where it is" in caplog.text
    assert not waiting(shelf).exists()
    # One whose run waits to be recorded is known soon.
    keep_run(record_around(shelf.path(B), key="b"), outbox_of(shelf.directory))
    assert not name_champion(B, shelf, mlflow_local)
    assert waiting(shelf).exists()


@pytest.mark.slow
def test_what_is_told_directly_needs_no_telling_later(shelf: Shelf, recorded: MlflowSettings) -> None:
    promote(shelf, B)
    name_champion(B, shelf, NOWHERE)
    promote(shelf, C)
    name_champion(C, shelf, recorded)
    tell_aliases(shelf, recorded)
    assert alias_version("champion", settings=recorded) == C


@pytest.mark.slow
def test_a_wish_that_an_earlier_release_kept_is_granted(shelf: Shelf, recorded: MlflowSettings) -> None:
    (shelf.directory / ".retrain" / "alias.json").unlink()
    promote(shelf, B)
    waiting(shelf).parent.mkdir(parents=True, exist_ok=True)
    waiting(shelf).write_text(f'{{"champion": "{B}"}}')
    tell_aliases(shelf, recorded)
    assert alias_version("champion", settings=recorded) == B
    assert not waiting(shelf).exists()


def test_what_cannot_be_read_or_written_is_an_error_that_names_it(shelf: Shelf) -> None:
    waiting(shelf).parent.mkdir(parents=True)
    waiting(shelf).write_text("{")
    with pytest.raises(RouterError, match=r"aliases\.json: cannot be read .*delete it"):
        tell_aliases(shelf, NOWHERE)
    waiting(shelf).write_text('{"champion": {"colour": 1}}')
    with pytest.raises(RouterError, match=r"aliases\.json: cannot be read .*delete it"):
        tell_aliases(shelf, NOWHERE)
    for content in ("[]", '{"colour": 1}'):
        (shelf.directory / ".retrain" / "alias.json").write_text(content)
        with pytest.raises(RouterError, match=r"alias\.json: cannot be read .*delete it"):
            seen_champion(shelf)
    shutil.rmtree(shelf.directory / ".retrain")
    (shelf.directory / ".retrain").write_text("")
    with pytest.raises(RouterError, match=r"alias\.json: cannot be written"):
        note_champion(None, shelf)
