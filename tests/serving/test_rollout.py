"""A champion is picked up while requests run, a challenger tried beside it, and what does worse taken back."""

import time
from datetime import UTC, datetime

import pytest

from router_ml.shelf import Shelf

ADMIN = {"authorization": "Bearer sk-admin"}


def version(service, call):
    return call(f"{service.url}/readyz").json["policy_version"]


def wait_for(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def promote(service, name):
    pointer = service.home / "models" / "champion"
    fresh = pointer.with_suffix(".new")
    fresh.write_text(f"{name}\n")
    fresh.replace(pointer)


@pytest.fixture
def admin(start_service):
    return start_service(env={"ROUTER_ML_ADMIN_KEY": "sk-admin"})


def test_a_promoted_bundle_is_served_without_a_restart(start_service, call, put_bundle):
    service = start_service()
    put_bundle(service.home / "models", "two", (0.2, 0.95))
    assert service.ask("Hello").json["router"]["policy_version"] == "one"
    promote(service, "two")
    wait_for(lambda: version(service, call) == "two")
    facts = service.ask("Hello", model="router-1.0").json["router"]
    assert facts["policy_version"] == "two"
    assert service.metric('router_ml_bundle_reloads_total{result="loaded"}') == 2
    assert service.metric('router_ml_policy{version="two"}') == 1


@pytest.mark.parametrize("harm", ["truncated", "missing", "no such version", "other tiers"])
def test_a_bundle_that_cannot_be_used_is_refused_once_and_the_old_one_stays(start_service, call, put_bundle, harm):
    service = start_service()
    models = service.home / "models"
    bundle = put_bundle(models, "bad")
    if harm == "truncated":
        (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:50])
    elif harm == "missing":
        (bundle / "policy.json").unlink()
    elif harm == "other tiers":
        (bundle / "policy.json").write_text((bundle / "policy.json").read_text().replace('"large"', '"huge"'))
    promote(service, "nothing" if harm == "no such version" else "bad")
    wait_for(lambda: "bundle_refused" in service.process.log.read_text())
    time.sleep(0.4)
    assert service.process.log.read_text().count("bundle_refused") == 1
    assert service.ask("Hello").json["router"]["policy_version"] == "one"
    put_bundle(models, "good")
    promote(service, "good")
    wait_for(lambda: version(service, call) == "good")


def test_reload_and_rollback_need_the_admin_key(start_service, call):
    closed = start_service()
    for path in ("/admin/reload", "/admin/rollback"):
        reply = call(f"{closed.url}{path}", b"", headers=ADMIN)
        assert reply.status == 403
        assert "ROUTER_ML_ADMIN_KEY" in reply.json["error"]["message"]


def test_reload_serves_the_champion_now(admin, call, put_bundle):
    assert call(f"{admin.url}/admin/reload", b"").status == 401
    assert call(f"{admin.url}/admin/reload", b"", headers={"authorization": "Bearer sk-wrong"}).status == 401
    put_bundle(admin.home / "models", "two")
    promote(admin, "two")
    reply = call(f"{admin.url}/admin/reload", b"", headers=ADMIN)
    assert reply.json["policy_version"] == "two"


def test_a_refused_reload_says_why(admin, call, put_bundle):
    bundle = put_bundle(admin.home / "models", "bad")
    (bundle / "model.onnx").write_bytes(b"")
    promote(admin, "bad")
    reply = call(f"{admin.url}/admin/reload", b"", headers=ADMIN)
    assert reply.status == 503
    assert reply.json["error"]["code"] == "bundle_corrupt"
    assert version(admin, call) == "one"


def test_rollback_serves_the_version_before(admin, call, put_bundle):
    nothing = call(f"{admin.url}/admin/rollback", b"", headers=ADMIN)
    assert nothing.status == 400
    put_bundle(admin.home / "models", "two")
    Shelf(admin.home / "models").promote("two", reason="test", now=datetime.now(UTC))
    wait_for(lambda: version(admin, call) == "two")
    assert call(f"{admin.url}/admin/rollback", b"", headers=ADMIN).json["policy_version"] == "one"
    assert version(admin, call) == "one"


def test_a_reload_interrupts_no_request(start_service, put_bundle):
    service = start_service()
    put_bundle(service.home / "models", "two")
    seen = set()
    for i in range(60):
        if i == 10:
            promote(service, "two")
        seen.add(service.ask("Hello").json["router"]["policy_version"])
        if seen == {"one", "two"}:
            break
        time.sleep(0.02)
    assert seen == {"one", "two"}
