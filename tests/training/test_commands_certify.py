"""`router-ml certify` as a person runs it, on real files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.schema import Interaction


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: tmp_path / "no default")
    (tmp_path / "router.toml").write_text(config.replace('"constant", ', ""))
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    def call(*arguments: str) -> tuple[int, Any, str]:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments and out else out, err

    return call


def write(path: Path, items: Sequence[Interaction], *, days: int = 0) -> str:
    """Write a log, its requests so many days later, under names of their own."""
    moved = [
        item.model_copy(update={"id": f"{path.stem}-{item.id}", "ts": item.ts + timedelta(days=days)}) for item in items
    ]
    path.write_text("".join(f"{item.to_json()}\n" for item in moved))
    return str(path)


def test_a_bundle_is_certified_on_later_requests_and_not_on_its_own(
    world: Any, home: Path, run: Callable[..., Any]
) -> None:
    own = write(home / "own.jsonl", world.log(600))
    run("train", own, "--no-mlflow", "--promote")
    later = write(home / "later.jsonl", world.log(1500, 9), days=30)

    code, found, err = run("certify", later, "--loss", "0.1", "--json")
    assert (code, err) == (0, "")
    assert found["beyond_constant"]
    assert found["independent"]
    assert found["warnings"] == []
    assert found["saving"]["low"] > 0
    assert found["steps"][0]["shadow_price"] is None
    asked = [step["quality"] for step in found["steps"]]
    assert asked == sorted(asked, reverse=True)
    code, text, _ = run("certify", later, "--loss", "0.1")
    assert text.startswith(found["verdict"])
    assert "1500 of 1500 requests" in text

    code, found, _ = run("certify", later, "--loss", "0.002", "--confidence", "0.8", "--json")
    assert code == 1
    assert found["verdict"].startswith("Keep the constant model (always large)")

    code, found, _ = run("certify", own, "--loss", "0.1", "--json")
    assert (code, found["independent"]) == (1, False)
    assert "was trained on, so it proves nothing" in found["warnings"][0]
    early = write(home / "early.jsonl", world.log(600, 9))
    _, found, _ = run("certify", early, "--loss", "0.1", "--test", "clopper-pearson", "--json")
    assert "600 of these requests are not later than the newest" in found["warnings"][0]


def test_what_cannot_be_certified_is_one_clear_line(world: Any, home: Path, run: Callable[..., Any]) -> None:
    log = write(home / "log.jsonl", world.log(300))
    run("train", log, "--no-mlflow", "--promote")
    chains = write(home / "chains.jsonl", world.log(300, policy="chain"))
    few = write(home / "few.jsonl", world.log(50))
    for arguments, said in (
        ([chains], "known for 0 of 300 requests, and at least 110 are needed"),
        ([few], "known for 50 of 50 requests, and at least 110 are needed"),
        ([few, "--test", "clopper-pearson"], "at least 99 are needed"),
        ([log, "--loss", "3"], "allowed loss: expected a share"),
        ([log, "--confidence", "95"], "confidence: expected a probability"),
        ([log, "--bundle", "nope"], "no bundle is called 'nope'"),
    ):
        code, out, err = run("certify", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("router-ml: error: ")
        assert said in err
