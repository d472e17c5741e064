"""`POST /v1/feedback`: durable, counted once, late arrival welcome."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest

from router_ml.shelf import Shelf
from router_ml.store import open_store
from router_ml_serving.keys import issue_key


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


def test_the_same_verdicts_in_another_order_count_once(service, call, send):
    decision_id = decision(service, call)
    verdicts = [
        {"tier": "small", "adequate": False},
        {"tier": "large", "adequate": True},
        {"score": 1, "source": "judge"},
    ]
    assert send(decision_id=decision_id, verdicts=verdicts, key="all")["recorded"]
    assert not send(decision_id=decision_id, verdicts=verdicts[::-1], key="all")["recorded"]
    assert len(service.recorded(decision_id).feedback) == 3


@pytest.mark.parametrize("tiers", [(None, None), ("small", "small"), (None, "small")])
def test_a_source_speaks_once_about_an_answer(service, call, tiers):
    verdicts = [{"adequate": True, "source": "judge"} | ({"tier": tier} if tier else {}) for tier in tiers]
    refused = call(f"{service.url}/v1/feedback", {"decision_id": "x", "verdicts": verdicts})
    assert refused.status == 400
    assert "source 'judge' speaks twice" in refused.json["error"]["message"]


def test_a_dry_run_checks_everything_and_writes_nothing(service, call, send):
    decision_id = decision(service, call)
    answer = send(decision_id=decision_id, verdict="failed", tier="small", key="k", dry_run=True)
    assert (answer["recorded"], answer["dry_run"], answer["decision_id"]) == (False, True, decision_id)
    (shown,) = answer["feedback"]
    assert shown | {"ts": None} == {
        "ts": None,
        "source": "user",
        "tier": "small",
        "adequate": False,
        "reason": "failed",
        "key": "k",
    }
    assert service.recorded(decision_id).feedback == ()
    assert send(decision_id=decision_id, verdict="failed", tier="small", key="k")["recorded"]
    wrong = call(f"{service.url}/v1/feedback", {"decision_id": "x", "adequate": True, "tier": "smal", "dry_run": True})
    assert wrong.status == 400


def test_the_decision_and_the_key_may_come_in_headers_or_in_the_answers_own_facts(service, call):
    decision_id = decision(service, call)
    url, headers = f"{service.url}/v1/feedback", {"x-router-decision-id": decision_id, "idempotency-key": "h1"}
    facts = {"router": {"decision_id": decision_id, "tier": "small", "attempts": 1}}
    assert call(url, {"adequate": True}, headers=headers).json == {"feedback_id": "h1", "recorded": True}
    assert call(url, {"adequate": True, "key": "h1", **facts}, headers=headers).json["recorded"] is False
    assert call(url, {"adequate": True, "key": "h2", **facts}).json["recorded"] is True
    assert {one.key for one in service.recorded(decision_id).feedback} == {"h1", "h2"}


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        ({"adequate": True}, {}, "decision_id is missing"),
        ({"adequate": True, "decision_id": "a"}, {"x-router-decision-id": "b"}, "'a' in one place, 'b' in another"),
        ({"adequate": True, "decision_id": "a", "key": "a"}, {"idempotency-key": "b"}, "send it once"),
        ({"adequate": True, "decision_id": "x" * 129}, {}, "1 to 128 visible ASCII characters"),
        ({"adequate": True, "decision_id": "two words"}, {}, "1 to 128 visible ASCII characters"),
        ({"adequate": True, "decision_id": "x", "key": "a\u0000"}, {}, "key: expected 1 to 128 visible"),
        ({"adequate": True, "decision_id": "x"}, {"idempotency-key": "x" * 129}, "header idempotency-key: expected"),
        ({"adequate": True, "decision_id": "x", "source": "rule"}, {}, "'user', 'judge', 'human' or 'check'"),
        ({"adequate": True, "decision_id": "x", "source": "retry"}, {}, "'user', 'judge', 'human' or 'check'"),
        ({"decision_id": "x", "verdicts": [{"adequat": True}]}, {}, "did you mean 'adequate'?"),
        ({"decision_id": "x", "verdicts": [{"adequate": True}] * 33}, {}, "at most 32"),
        ({"decision_id": "x"}, {}, "give beside decision_id one of adequate, score or verdict"),
    ],
)
def test_a_mistake_is_named(service, call, body, headers, said):
    refused = call(f"{service.url}/v1/feedback", body, headers=headers)
    assert (refused.status, said in refused.json["error"]["message"]) == (400, True), refused.body


def test_feedback_has_a_limit_of_its_own(service, call):
    refused = call(f"{service.url}/v1/feedback", {"decision_id": "x", "adequate": True, "reason": "x" * 300_000})
    assert (refused.status, refused.json["error"]["code"]) == (413, "request_too_large")


def test_no_reason_is_kept_where_no_text_is(start_service, call):
    service = start_service(toml="", env={"ROUTER_ML_STORE__TEXT": "false"})
    decision_id = decision(service, call)
    sent = {"decision_id": decision_id, "verdict": "underpowered", "reason": "she asked about her tax return"}
    assert call(f"{service.url}/v1/feedback", sent).json["recorded"]
    assert service.recorded(decision_id).feedback[0].reason == "underpowered"


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


ADMIN = {"authorization": "Bearer sk-admin"}


@pytest.fixture(scope="module")
def compared(start_service):
    """A service that says what its roll-out has counted."""
    return start_service(env={"ROUTER_ML_ADMIN_KEY": "sk-admin"}, exploration={"audit": 1.0})


@pytest.fixture
def counted(compared, call):
    """Judge a decision by several bodies; return how many judgements were counted, and how many of them were bad."""

    def negatives():
        found = call(f"{compared.url}/admin/rollout", headers=ADMIN).json["lately"]["negative"]
        return found["n"], found["bad"]

    def counted(decision_id, *bodies):
        compared.recorded(decision_id)
        before = negatives()
        for body in bodies:
            assert call(f"{compared.url}/v1/feedback", {"decision_id": decision_id, **body}).json["recorded"]
        after = negatives()
        return after[0] - before[0], after[1] - before[1]

    return counted


def test_a_decision_counts_once_for_the_roll_out_however_often_it_is_judged(compared, call, counted):
    bodies = [{"adequate": False}, {"adequate": False, "source": "human"}, {"adequate": True}]
    assert counted(decision(compared, call), *bodies) == (1, 1)
    answered = compared.ask("Hello").headers["x-router-decision-id"]
    assert counted(answered, *bodies[::-1]) == (1, 0)


def test_several_verdicts_are_one_voice_the_weightiest_about_the_answer_that_was_shown(compared, counted):
    answered = compared.ask("Hello").headers["x-router-decision-id"]
    verdicts = [
        {"adequate": False},
        {"adequate": True, "source": "human", "tier": "small"},
        {"adequate": False, "source": "check", "tier": "large"},
    ]
    assert counted(answered, {"verdicts": verdicts}) == (1, 0)


def test_the_roll_out_counts_no_other_answer_than_the_one_it_chose_to_show(compared, counted):
    answered = compared.ask("Hello").headers["x-router-decision-id"]
    assert counted(answered, {"adequate": False, "tier": "large"}) == (0, 0)
    assert counted(f"{answered}-audit", {"adequate": False, "tier": "large"}, {"adequate": False}) == (0, 0)
    named = compared.ask("Hello", model="small").headers["x-router-decision-id"]
    assert counted(named, {"adequate": False}) == (0, 0)
    assert counted(answered, {"adequate": False, "tier": "small"}) == (1, 1)


def test_feedback_counts_for_the_tenants_of_the_canary_alone(start_service, call, put_bundle):
    toml = '[rollout]\ncanary_tenants = ["acme"]\ncanary_share = 0.5\n'
    service = start_service(env={"ROUTER_ML_ADMIN_KEY": "sk-admin"}, toml=toml)
    put_bundle(service.home / "models", "two")
    Shelf(service.home / "models").challenge("two", reason="", now=datetime.now(UTC))
    deadline = time.monotonic() + 10
    while not (canary := state(service, call)["canary"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert canary["version"] == "two"
    for tenant in ("acme", "other"):
        for _ in range(4):
            decision_id = service.ask("Hello", router={"tenant": tenant}).headers["x-router-decision-id"]
            service.recorded(decision_id)
            assert call(f"{service.url}/v1/feedback", {"decision_id": decision_id, "adequate": True}).json["recorded"]
    negative = state(service, call)["canary"]["metrics"]["negative"]
    assert negative["champion"]["n"] + negative["challenger"]["n"] == 4


def state(service, call):
    return call(f"{service.url}/admin/rollout", headers=ADMIN).json


def test_nobody_judges_the_decision_of_another_tenant(start_service, call, tmp_path):
    now = datetime.now(UTC)
    acme, other = (
        {"authorization": f"Bearer {issue_key(tmp_path / 'keys', tenant=one, name='', now=now)[1]}"}
        for one in ("acme", "other")
    )
    service = start_service(keys_file=str(tmp_path / "keys"))
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    decision_id = call(f"{service.url}/v1/route", body, headers=acme).json["decision_id"]
    service.recorded(decision_id)

    def judge(who, **more):
        return call(f"{service.url}/v1/feedback", {"decision_id": decision_id, "adequate": False, **more}, headers=who)

    for more in ({}, {"dry_run": True}):
        refused = judge(other, **more)
        assert (refused.status, refused.json["error"]["code"]) == (403, "wrong_tenant")
        assert "acme" not in refused.body.decode()
    assert service.recorded(decision_id).feedback == ()
    assert judge(acme).json["recorded"]
    late = call(f"{service.url}/v1/feedback", {"decision_id": "01LATER", "adequate": False}, headers=other)
    assert late.json["recorded"]


def test_a_key_judges_only_in_the_name_of_the_sources_of_its_tenant(start_service, call, tmp_path):
    now = datetime.now(UTC)
    acme, other = (
        {"authorization": f"Bearer {issue_key(tmp_path / 'keys', tenant=one, name='', now=now)[1]}"}
        for one in ("acme", "other")
    )
    tenants = '[tenants.acme]\nfeedback_sources = ["judge", "user"]\n'
    service = start_service(toml=tenants, keys_file=str(tmp_path / "keys"))

    def judge(who, **said):
        return call(f"{service.url}/v1/feedback", {"decision_id": "01LATER", **said}, headers=who)

    assert judge(acme, adequate=True).json["recorded"]
    assert judge(acme, adequate=True, source="judge").json["recorded"]
    both = [{"source": "user", "adequate": True}, {"source": "human", "adequate": False}]
    for said in ({"adequate": False, "source": "human"}, {"verdicts": both, "dry_run": True}):
        refused = judge(acme, **said)
        assert (refused.status, refused.json["error"]["code"]) == (403, "forbidden")
        assert "tenants.acme.feedback_sources allows judge, user" in refused.json["error"]["message"]
    assert judge(other, adequate=False, source="human").json["recorded"]


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
