"""A challenger is tried beside the champion, and what does worse is taken back: a real service, asked over HTTP."""

import time
from datetime import UTC, datetime

import pytest

from router_ml.shelf import Shelf

ADMIN = {"authorization": "Bearer sk-admin"}
# The small tier does not know, and the large one does.
IDLE = "no answer [mini=idk]"


def state(service, call):
    return call(f"{service.url}/admin/rollout", headers=ADMIN).json


def asked(service, session, prompt="Hello"):
    """Return the version that decided a request of a session."""
    reply = service.ask(prompt, model="router-1.0", router={"session_id": session})
    return reply.json["router"]["policy_version"]


def wait_for(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def admin(start_service):
    return start_service(env={"ROUTER_ML_ADMIN_KEY": "sk-admin"})


def test_everything_about_the_roll_out_needs_the_admin_key(start_service, admin, call):
    closed = start_service()
    for path, body in (("/admin/rollout", None), ("/admin/switches", None), ("/admin/canary", {"share": 0.1})):
        assert call(f"{closed.url}{path}", body, headers=ADMIN).status == 403
        assert call(f"{admin.url}{path}", body).status == 401


@pytest.mark.parametrize("body", [{}, {"share": 1.0}, {"share": -0.1}, {"share": "x"}, {"share": 0.1, "shard": 1}, []])
def test_a_share_that_is_none_is_refused(admin, call, body):
    reply = call(f"{admin.url}/admin/canary", body, headers=ADMIN)
    assert reply.status == 400
    assert reply.json["error"]["type"] == "invalid_request_error"


def test_without_a_challenger_there_is_no_canary(admin, call):
    reply = call(f"{admin.url}/admin/canary", {"share": 0.1}, headers=ADMIN)
    assert reply.status == 400
    assert "there is no challenger" in reply.json["error"]["message"]


def test_a_canary_keeps_each_session_with_one_router_and_ends_when_told(start_service, call, put_bundle):
    service = start_service(env={"ROUTER_ML_ADMIN_KEY": "sk-admin"})
    shelf = Shelf(service.home / "models")
    put_bundle(shelf.directory, "two")
    shelf.challenge("two", reason="try it", now=datetime.now(UTC))
    wait_for(lambda: state(service, call)["challenger"] == "two")
    assert {asked(service, f"s{i}") for i in range(10)} == {"one"}
    after = call(f"{service.url}/admin/canary", {"share": 0.5, "reason": "half of it"}, headers=ADMIN).json
    assert (after["challenger"], after["share"], after["canary"]["against"]) == ("two", 0.5, "one")
    seen = {f"s{i}": asked(service, f"s{i}") for i in range(20)}
    assert set(seen.values()) == {"one", "two"}
    assert {name: asked(service, name) for name in seen} == seen
    metrics = state(service, call)["canary"]["metrics"]
    counted = metrics["escalation"]["champion"]["n"], metrics["escalation"]["challenger"]["n"]
    versions = list(seen.values())
    assert counted == (versions.count("one"), versions.count("two"))
    assert call(f"{service.url}/admin/canary", {"share": 0}, headers=ADMIN).json["share"] == 0.0
    assert {asked(service, f"s{i}") for i in range(10)} == {"one"}
    told = call(f"{service.url}/admin/switches", headers=ADMIN).json["switches"]
    assert [(one["action"], one["to"], one["reason"]) for one in told] == [
        ("challenge", "two", "try it"),
        ("canary", "two", "half of it"),
        ("canary", "two", "POST /admin/canary"),
    ]
    assert told[1]["evidence"] == {"share": 0.5, "share_before": None}


def test_the_challenger_decides_in_the_background_for_the_record(start_service, call, put_bundle):
    service = start_service(env={"ROUTER_ML_ADMIN_KEY": "sk-admin"})
    shelf = Shelf(service.home / "models")
    put_bundle(shelf.directory, "two", (0.2, 0.99))
    shelf.challenge("two", reason="", now=datetime.now(UTC))
    wait_for(lambda: state(service, call)["challenger"] == "two")
    time.sleep(0.3)
    decision_id = service.ask("Hello").json["router"]["decision_id"]
    other = service.recorded(decision_id).tags["challenger"]
    assert (other["version"], set(other["propensity"])) == ("two", {"small", "large"})
    shadow = state(service, call)["shadow"]
    assert shadow["n"] == 1
    assert shadow["agreement"] in (0.0, 1.0)


@pytest.fixture
def careful(start_service, put_bundle, tmp_path):
    """Start a service whose champion asks the large tier, and has a challenger that takes the small one for better."""

    def start(**settings):
        put_bundle(tmp_path / "models", "one", (0.6, 0.95))
        put_bundle(tmp_path / "models", "two", (0.98, 0.95))
        (tmp_path / "models" / "champion").write_text("one\n")
        toml = "[rollout]\nalpha = 0.05\ncanary_share = 0.5\n"
        return start_service(
            env={"ROUTER_ML_ADMIN_KEY": "sk-admin"}, home=tmp_path, toml=toml, memory_classes=0, **settings
        )

    return start


def test_a_challenger_that_does_worse_is_withdrawn_with_its_numbers(careful, call):
    service = careful()
    shelf = Shelf(service.home / "models")
    shelf.challenge("two", reason="", now=datetime.now(UTC))
    wait_for(lambda: state(service, call)["share"] == 0.5)
    for i in range(300):
        asked(service, f"s{i}", IDLE)
        if shelf.challenger() is None:
            break
    last = shelf.switches()[-1]
    assert (last.action, last.before, last.cause) == ("withdraw", "two", "automatic")
    assert last.reason.startswith("escalations: 100.0% of 30 with two, 0.0% of ")
    assert last.evidence["largest_e_value"] >= last.evidence["threshold"] == pytest.approx(80)
    assert {asked(service, f"t{i}") for i in range(10)} == {"one"}
    log = service.process.log.read_text()
    assert log.count("rollout_alarm") == log.count("withdrawn") == 1
    assert "no answer" not in log


def test_a_promoted_bundle_that_does_worse_is_rolled_back_once_by_two_workers(careful, call):
    service = careful(workers=2)
    shelf = Shelf(service.home / "models")
    for i in range(120):
        asked(service, f"s{i}", IDLE)
    shelf.promote("two", reason="looked better", now=datetime.now(UTC))
    time.sleep(0.5)
    for i in range(500):
        asked(service, f"t{i}", IDLE)
        if shelf.champion() != "two":
            break
    assert shelf.champion() == "one"
    time.sleep(0.5)
    assert {asked(service, f"u{i}", IDLE) for i in range(40)} == {"one"}
    assert [(one.action, one.after, one.cause) for one in shelf.switches()] == [
        ("promote", "two", "person"),
        ("rollback", "one", "automatic"),
    ]
