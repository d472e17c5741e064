"""`store.text = false`: no word of a request, of its answers or of what is said about them is on the disk."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from router_ml.store import open_store

# Lower case and without punctuation, so that nothing that cleans or folds text hides it.
CANARY = "xyzzycanary"
ANSWER = "The answer of"
IDLE = "I don't know"


def body(script: str = "", **fields: Any) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": f"tool_{CANARY}", "description": CANARY, "parameters": {}}}
    schema = {"type": "json_schema", "json_schema": {"name": CANARY, "schema": {"title": CANARY}}}
    return {
        "messages": [
            {"role": "system", "content": f"Say {CANARY}."},
            {"role": "user", "content": [{"type": "text", "text": f"{script} {CANARY} please"}], "name": CANARY},
        ],
        "tools": [tool],
        "response_format": schema,
        "metadata": {"note": CANARY},
        "router": {"feature": "support", "trace": CANARY},
        "user": CANARY,
        "stop": [CANARY],
        **fields,
    }


def traces_of(home: Path, *words: str) -> list[str]:
    """Return every file of the service that holds one of these words."""
    files = [path for path in home.rglob("*") if path.is_file() and path.name != "router.toml"]
    needles = [word.lower().encode() for word in words]
    return [str(path) for path in files if any(needle in path.read_bytes().lower() for needle in needles)]


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.e2e
def test_no_word_is_on_the_disk(start_service: Callable[..., Any], call: Callable[..., Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    service = start_service(
        home=home, env={"ROUTER_ML_STORE__TEXT": "false"}, exploration={"audit": 1.0}, background=64
    )
    database = home / "events.db"

    def stored() -> int:
        with open_store(f"sqlite:///{database}") as store:
            return store.count()

    def chat(script: str = "", **fields: Any) -> str:
        reply = call(f"{service.url}/v1/chat/completions", body(script, **fields))
        return str(reply.headers.get("x-router-decision-id"))

    first = chat()
    chat("[mini=idk]")
    chat("[mini=bad-tool]")
    chat("[mini=tool]")
    chat("[mini=500]")
    chat(stream=True)
    call(f"{service.url}/v1/route", body())
    call(f"{service.url}/v1/chat/completions", {"messages": [{"role": "user", "content": [CANARY]}]})
    call(f"{service.url}/v1/chat/completions", body(model=CANARY))
    said = {"decision_id": first, "adequate": False, "reason": f"it said {CANARY}", "key": "thumb"}
    assert call(f"{service.url}/v1/feedback", said).status == 200
    # Six chats, an audit of each, and a decision alone.
    until(lambda: stored() >= 13)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        chat("[mini=idk]")
        call(f"{service.url}/v1/feedback", {**said, "key": "thumb-2"})
        until(lambda: (home / "spill.jsonl").exists())
        assert traces_of(home, CANARY, ANSWER, IDLE) == []
        other.execute("ROLLBACK")
    service.process.stop()
    assert traces_of(home, CANARY, ANSWER, IDLE) == []
    with closing(sqlite3.connect(database)) as file:
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for name in tables for row in file.execute(f"SELECT * FROM {name}")]
    assert CANARY not in json.dumps(rows, default=str).lower()
    assert any("support" in str(row) for row in rows)
