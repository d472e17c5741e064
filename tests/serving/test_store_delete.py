"""`router-ml store delete` beside a running service: the text is gone from its files, and the service goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router_ml.store import open_store

CANARY = "xyzzycanary"


def router_ml(home: Path, *argv: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "router_ml.cli", *argv, "--json", "--config", str(home / "router.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.e2e
def test_a_tenant_is_deleted_beside_the_service(start_service: Callable[..., Any], call: Callable[..., Any]) -> None:
    service = start_service(exploration={"audit": 1.0})
    url = f"sqlite:///{service.home}/events.db"

    def ask(tenant: str) -> str:
        message = {"role": "user", "content": f"{CANARY}-{tenant}"}
        headers = {"x-router-tenant": tenant}
        reply = call(f"{service.url}/v1/chat/completions", {"messages": [message]}, headers=headers)
        return str(reply.headers["x-router-decision-id"])

    def until_stored(*ids: str) -> None:
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            with open_store(url) as store:
                if {one.id for one in store.scan()} >= set(ids):
                    return
            time.sleep(0.05)
        pytest.fail(f"never stored: {ids}")

    gone, kept = ask("acme"), ask("other")
    until_stored(gone, f"{gone}-audit", kept, f"{kept}-audit")
    said = {"decision_id": gone, "adequate": True, "reason": f"{CANARY}-acme", "key": "thumb"}
    assert call(f"{service.url}/v1/feedback", said).json["recorded"]
    assert router_ml(service.home, "store", "delete", "--tenant", "acme", "--yes") == {"deleted": 2}
    files = [path for path in service.home.iterdir() if path.is_file()]
    assert [path.name for path in files if f"{CANARY}-acme".encode() in path.read_bytes()] == []
    assert not call(f"{service.url}/v1/feedback", {**said, "key": "thumb-2"}).json["recorded"]
    again = ask("acme")
    until_stored(again, kept)
    info = router_ml(service.home, "store", "info")
    assert info["by_mode"]["live"] == 2
    assert info["feedback"] == 0
