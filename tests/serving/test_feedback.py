"""`POST /v1/feedback`: durable, counted once, late arrival welcome."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from router_ml.store import open_store


@pytest.fixture
def send(service, call):
    return lambda **body: call(f"{service.url}/v1/feedback", body).json


def decision(service, call):
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    return call(f"{service.url}/v1/route", body).json["decision_id"]


def test_a_thumb_joins_its_decision(service, call, send):
    decision_id = decision(service, call)
    answer = send(decision_id=decision_id, adequate=True, tier="small", reason="fine")
    assert answer["recorded"] is True
    found = service.recorded(decision_id).feedback
    assert [(one.adequate, one.tier, one.source, one.reason) for one in found] == [(True, "small", "user", "fine")]
    assert found[0].key == answer["feedback_id"]


def test_a_repeated_key_counts_once(service, call, send):
    decision_id = decision(service, call)
    first = send(decision_id=decision_id, score=0.5, source="judge", key="k1")
    again = send(decision_id=decision_id, score=0.5, source="judge", key="k1")
    assert (first["recorded"], again["recorded"]) == (True, False)
    assert first["feedback_id"] == again["feedback_id"] == "k1"
    assert len(service.recorded(decision_id).feedback) == 1


@pytest.mark.parametrize(
    ("word", "adequate", "reason"),
    [
        ("adequate", True, None),
        ("inadequate", False, None),
        ("good_fit", True, "good_fit"),
        ("overprovisioned", True, "overprovisioned"),
        ("underpowered", False, "underpowered"),
        ("failed", False, "failed"),
    ],
)
def test_words_of_other_routers_are_understood(service, call, send, word, adequate, reason):
    decision_id = decision(service, call)
    assert send(decision_id=decision_id, verdict=word)["recorded"]
    found = service.recorded(decision_id).feedback[0]
    assert (found.adequate, found.reason) == (adequate, reason)


def test_several_verdicts_come_in_one_body(service, call, send):
    decision_id = decision(service, call)
    verdicts = [{"tier": "small", "adequate": False}, {"tier": "large", "score": 0.9, "source": "judge"}]
    assert send(decision_id=decision_id, verdicts=verdicts, key="both")["recorded"]
    assert not send(decision_id=decision_id, verdicts=verdicts, key="both")["recorded"]
    found = service.recorded(decision_id).feedback
    assert {(one.tier, one.adequate, one.score) for one in found} == {("small", False, None), ("large", None, 0.9)}


def test_feedback_for_a_decision_that_is_not_stored_yet_is_kept(send):
    assert send(decision_id="01LATER", adequate=False)["recorded"]


def test_acknowledged_feedback_survives_a_kill(start_service, call):
    service = start_service()
    decision_id = decision(service, call)
    service.recorded(decision_id)
    assert call(f"{service.url}/v1/feedback", {"decision_id": decision_id, "adequate": False}).json["recorded"]
    process = service.process.process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with open_store(f"sqlite:///{service.home / 'events.db'}") as store:
        found = [one for one in store.scan() if one.id == decision_id]
    assert found[0].feedback[0].adequate is False
    again = start_service(home=service.home)
    assert again.recorded(decision_id).feedback[0].adequate is False


def command(service, *arguments):
    program = [sys.executable, "-m", "router_ml.cli", "feedback", "--url", service.url, *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_sends_feedback(service, call):
    decision_id = decision(service, call)
    done = command(service, decision_id, "--inadequate", "--source", "human", "--key", "c1", "--json")
    assert json.loads(done.stdout) == {"feedback_id": "c1", "recorded": True}
    assert "already known" in command(service, decision_id, "--inadequate", "--source", "human", "--key", "c1").stdout
    assert service.recorded(decision_id).feedback[0].adequate is False


def test_the_command_says_what_is_wrong(service):
    done = command(service, "x", "--adequate", "--tier", "smal")
    assert (done.returncode, "did you mean 'small'" in done.stderr) == (2, True)
    away = command(service, "x", "--adequate", "--url", "http://127.0.0.1:9")
    assert (away.returncode, "cannot be reached" in away.stderr) == (1, True)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        threading.Thread(target=greet, args=(other,), daemon=True).start()
        wrong = command(service, "x", "--adequate", "--url", f"http://127.0.0.1:{other.getsockname()[1]}")
    assert (wrong.returncode, "is not `router-ml serve`" in wrong.stderr) == (1, True)


def greet(listener):
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello")
