"""What follows an exchange: the roll-out, the share of the dearest tier and weak negatives count what is evidence."""

import asyncio
import json
import socket
import time
from contextlib import closing
from urllib.parse import urlsplit

import httpx
import pytest

from router_ml.config import load_config
from router_ml.store import open_store
from router_ml_serving.app import create_app
from router_ml_serving.settings import serving_settings
from router_ml_serving.upstream import Reply

ADMIN = {"authorization": "Bearer sk-admin"}
SHORT = "[use_cases.short]\ntotal_ms = 400\n"
RETRIES = 'router_ml_feedback_total{new="true",source="retry"}'


@pytest.fixture(scope="module")
def admin(start_service):
    return start_service(env={"ROUTER_ML_ADMIN_KEY": "sk-admin"}, toml=SHORT, retries=0)


@pytest.fixture
def counted(admin, call):
    """Return what came of one more request: the outcomes that were counted, and how many of them were bad."""

    def lately():
        found = call(f"{admin.url}/admin/rollout", headers=ADMIN).json["lately"]
        return {metric: (found[metric]["n"], found[metric]["bad"]) for metric in ("escalation", "error")}

    def counted(prompt, **fields):
        before = lately()
        reply = admin.ask(prompt, **fields)
        return reply.status, {
            metric: (n - before[metric][0], bad - before[metric][1]) for metric, (n, bad) in lately().items()
        }

    return counted


@pytest.mark.parametrize(
    ("prompt", "status", "outcome"),
    [
        ("Hello", 200, {"escalation": (1, 0), "error": (1, 0)}),
        # The request's own fault, whoever answers.
        ("Hello [mini=400]", 400, {"escalation": (0, 0), "error": (0, 0)}),
        # The tier's: a bundle may name a model that there is not, or one that is always busy.
        ("Hello [mini=404][maxi=404]", 404, {"escalation": (0, 0), "error": (1, 1)}),
        ("Hello [mini=429][maxi=429]", 429, {"escalation": (0, 0), "error": (1, 1)}),
        ("Hello [mini=501][maxi=501]", 501, {"escalation": (0, 0), "error": (1, 1)}),
        ("Hello [mini=501]", 200, {"escalation": (0, 0), "error": (1, 0)}),
        # Shown is the first answer: there was one.
        ("Hello [mini=idk][maxi=501]", 200, {"escalation": (1, 1), "error": (1, 0)}),
    ],
)
def test_the_roll_out_counts_what_the_client_got(counted, prompt, status, outcome):
    assert counted(prompt) == (status, outcome)


def test_an_escalation_that_the_deadline_cut_counts(counted):
    cut = counted("Hello [mini=idk][maxi=slow]", router={"use_case": "short"})
    assert cut == (200, {"escalation": (1, 1), "error": (1, 0)})


def test_a_client_that_left_while_a_better_answer_was_fetched_says_nothing(admin, call, upstream):
    before = call(f"{admin.url}/admin/rollout", headers=ADMIN).json["lately"]
    upstream.calls()
    send_and_leave(admin, "Hello [mini=idk][maxi=hang]", after_s=0.5)
    assert [sent["model"] for sent in upstream.cancelled()] == ["maxi"]
    time.sleep(0.1)
    assert call(f"{admin.url}/admin/rollout", headers=ADMIN).json["lately"] == before


def test_a_client_that_left_before_its_answer_was_judged_says_nothing(admin, tmp_path):
    said = {"choices": [{"index": 0, "message": {"content": "42"}, "finish_reason": "stop"}]}
    leaves = [True, False]

    class Upstream:
        async def complete(self, tier, sent, **_):
            if leaves.pop(0):
                asyncio.current_task().cancel()
            return Reply(200, {}, json.dumps(said).encode(), said)

    async def two(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            for _ in range(2):
                body = {"messages": [{"role": "user", "content": "Hello"}]}
                await asyncio.gather(client.post("/v1/chat/completions", json=body), return_exceptions=True)
            return (await client.get("/admin/rollout", headers=ADMIN)).json()["lately"]

    config = load_config(admin.home / "router.toml", {})
    keys = {"SMALL_KEY": "k", "ROUTER_ML_ADMIN_KEY": "sk-admin"}
    with open_store(f"sqlite:///{tmp_path}/events.db") as store:
        app = create_app(serving_settings(config), config, store=store, upstream=Upstream(), environ=keys)
        found = asyncio.run(two(app))
    assert leaves == []
    assert [found[metric]["n"] for metric in ("escalation", "error")] == [1, 1]


def test_a_call_that_never_went_out_costs_nothing_of_the_share(start_service):
    toml = "[tenants.default]\nmax_large_share = 0.1\n"
    service = start_service(retries=0, breaker_failures=1, breaker_s=60, toml=toml)

    def codes(n):
        return [service.ask("Hello [maxi=503]", model="large").json["error"]["code"] for _ in range(n)]

    # The first one costs all there is, and opens the circuit.
    assert codes(3)[1:] == ["tier_not_allowed"] * 2
    for _ in range(9):
        assert service.ask("Hello").status == 200
    assert codes(4) == ["upstream_open"] * 4


def test_asking_again_is_noted_also_while_audits_take_all_the_room(start_service, call):
    service = start_service(background=1, exploration={"audit": 1.0})
    service.ask("Hello [maxi=hang]")
    asked = "What is the capital of that large country?"
    first = service.ask(asked, router={"session_id": "s"})
    service.ask(asked, router={"session_id": "s"})
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not service.metric(RETRIES):
        time.sleep(0.05)
    assert service.metric(RETRIES) == 1
    assert service.metric('router_ml_background_total{mode="audit",result="dropped"}') == 2
    (found,) = service.recorded(first.headers["x-router-decision-id"]).feedback
    assert (found.source, found.key) == ("retry", "retry")


def send_and_leave(service, prompt, *, after_s):
    """Ask over a bare socket, and hang up after a time."""
    where = urlsplit(service.url)
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": prompt}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
    with closing(socket.create_connection((where.hostname, where.port))) as sent:
        sent.sendall(head.encode() + body)
        time.sleep(after_s)
