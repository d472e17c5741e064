"""What the tests of retraining look at: which steps ran, and whether everything on the shelf is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from router_ml.bundle import load_bundle
from router_ml.shelf import Shelf
from router_ml.store import open_store

__all__ = ["STEPS", "append", "ran", "states", "whole"]

STEPS = ["read", "label", "split", "train", "evaluate", "certify", "export", "register", "gate", "promote"]


def states(record: dict[str, Any]) -> dict[str, str]:
    return {line["name"]: line["state"] for line in record["steps"]}


def ran(record: dict[str, Any]) -> list[str]:
    return [name for name, state in states(record).items() if state == "run"]


def append(home: Path, items: list[Any]) -> None:
    with open_store(f"sqlite:///{home}/events.db") as store:
        store.append(items)


def whole(home: Path, version: str) -> None:
    """One bundle, one champion, nothing half-written."""
    shelf = Shelf(home / "models")
    assert [entry.version for entry in shelf.versions()] == [version]
    assert shelf.champion() == version
    assert load_bundle(shelf.path(version)).version == version
    assert [switch.after for switch in shelf.switches()] == [version]
    assert list((home / "models").rglob("*.tmp")) == []
    assert not list((home / "models" / ".retrain" / "making").glob("*"))
