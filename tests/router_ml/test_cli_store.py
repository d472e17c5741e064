"""`router-ml store`: what the store holds, and deletions that nobody makes by accident."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from router_ml.cli import main
from router_ml.schema import Feedback, Interaction
from router_ml.store import open_store
from router_ml.store.migrations import MIGRATIONS

T0 = datetime(2025, 11, 22, 10, tzinfo=UTC)
Run = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ROUTER_ML_")]:
        monkeypatch.delenv(name)

    def call(*argv: str, typed: str | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO() if typed is None else Terminal(typed))
        code = main(["store", *argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def ids(tmp_path: Path) -> Callable[[], list[str]]:
    url = f"sqlite:///{tmp_path}/router_ml.db"
    with open_store(url) as store:
        store.append(
            [
                Interaction(id=f"{who}{day}", ts=T0 + timedelta(days=day), tenant=who)
                for who in ("acme", "other")
                for day in (0, 1)
            ]
        )
        store.append([Interaction(id="acme0-audit", ts=T0, tenant="acme", mode="audit")])
        store.amend("acme0", Feedback(ts=T0, source="user", adequate=True))

    def found() -> list[str]:
        with open_store(url) as store:
            return [item.id for item in store.scan()]

    return found


@pytest.mark.usefixtures("ids")
def test_info_says_what_the_store_holds(run: Run) -> None:
    code, out, _ = run("info")
    assert code == 0
    assert "interactions  5 (1 audit), from 2025-11-22 10:00 to 2025-11-23 10:00 UTC\nfeedback      1\n" in out
    info = json.loads(run("info", "--json")[1])
    assert (info["interactions"], info["by_mode"]) == (5, {"audit": 1, "live": 4})
    assert info["schema"] == len(MIGRATIONS)


def test_info_on_an_empty_store_has_no_dates(run: Run) -> None:
    open_store("sqlite:///empty.db").close()
    code, out, _ = run("info", "--store", "sqlite:///empty.db")
    assert (code, out.splitlines()[0]) == (0, "interactions  0")


def test_looking_makes_no_store(run: Run, tmp_path: Path) -> None:
    code, _, err = run("info", "--store", "sqlite:///nowhere.db?timeout=1")
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "there is no event store nowhere.db" in err


def test_a_tenant_is_deleted(run: Run, ids: Callable[[], list[str]]) -> None:
    code, out, _ = run("delete", "--tenant", "acme", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"deleted": 3})
    assert ids() == ["other0", "other1"]


def test_the_command_that_reaches_archives_can_be_pasted(run: Run, ids: Callable[[], list[str]]) -> None:
    assert ids()
    _, out, _ = run("delete", "--tenant", "R&D and sons", "--yes")
    assert "--forget-tenant 'R&D and sons'`" in out


def test_requests_are_deleted_by_id(run: Run, ids: Callable[[], list[str]]) -> None:
    code, out, _ = run("delete", "--id", "acme0", "--id", "other1", "--yes")
    assert code == 0
    said, elsewhere = out.splitlines()
    assert said == "deleted 3 interactions, with their feedback"
    assert "`router-ml archive --to URL --forget-id acme0 --forget-id other1`" in elsewhere
    assert ids() == ["other0", "acme1"]


def test_what_is_old_is_deleted_of_everybody_or_of_one_tenant(run: Run, ids: Callable[[], list[str]]) -> None:
    assert run("delete", "--tenant", "other", "--before", "2025-11-23", "--yes")[0] == 0
    assert ids() == ["acme0", "acme0-audit", "acme1", "other1"]
    assert run("delete", "--before", "2025-11-23T10:00:01+00:00", "--yes")[0] == 0
    assert ids() == []


@pytest.mark.parametrize(("typed", "code", "left"), [("y\n", 0, 2), ("\n", 1, 5), ("no\n", 1, 5)])
def test_a_person_is_asked_first(run: Run, ids: Callable[[], list[str]], typed: str, code: int, left: int) -> None:
    done, out, err = run("delete", "--tenant", "acme", typed=typed)
    assert (done, len(ids())) == (code, left)
    assert "Delete all interactions of the tenant 'acme', with their feedback, for good? [y/N]" in err
    assert ("nothing was deleted" in out) is (code == 1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "say what to delete"),
        (["--tenant", ""], "say what to delete"),
        (["--id", "a", "--tenant", "acme"], "say what to delete"),
        (["--before", "yesterday"], "expected a date such as 2026-11-22, got 'yesterday'"),
        (["--id", "a"], "this would delete 1 interactions by their id for good; add --yes"),
        (["--before", "2025-11-23"], "everybody's interactions from before 2025-11-23T00:00:00+00:00 for good"),
    ],
)
def test_what_is_not_clear_deletes_nothing(
    run: Run, ids: Callable[[], list[str]], argv: list[str], message: str
) -> None:
    code, _, err = run("delete", *argv)
    assert code == 2
    assert message in err
    assert len(ids()) == 5
