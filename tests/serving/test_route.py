"""`POST /v1/route`: a decision, its reasons, and its record; no upstream call."""

import asyncio
import json

import pytest

from router_ml.config import load_config
from router_ml.store import open_store
from router_ml_serving.app import create_app
from router_ml_serving.settings import serving_settings


@pytest.fixture
def route(service, call):
    def send(body, **headers):
        return call(f"{service.url}/v1/route", body, headers=headers)

    return send


def body(**fields):
    return {"messages": [{"role": "user", "content": "Hello"}], **fields}


def test_a_decision_says_everything_a_gateway_needs(route, service, upstream):
    upstream.calls()
    reply = route(body(model="auto"))
    decision = reply.json
    assert reply.status == 200
    assert (decision["tier"], decision["model"]) == ("small", "mini")
    assert decision["models"] == ["mini", "maxi"]
    assert decision["plan"] == {"first": "small", "escalate_to": "large", "judged": False}
    assert set(decision["utility"]) == {"small", "large"}
    assert decision["policy_version"] == "one"
    assert decision["adequacy"] == {"small": pytest.approx(0.6), "large": pytest.approx(0.95)}
    assert decision["propensity"] == {"small": 1.0, "large": 0.0}
    assert set(decision["expected_cost_usd"]) == {"small", "large"}
    assert (decision["quality"], decision["explored"]) == (0.97, False)
    assert decision["threshold"] == 2000.0
    assert decision["constraints_applied"] == []
    assert decision["reason"]
    assert 0 < decision["overhead_ms"] < 1000
    assert upstream.calls() == []


def test_a_decision_is_recorded_without_attempts(route, service):
    decision = route(body(router={"tenant": "acme"}, metadata={"ticket": 7})).json
    record = service.recorded(decision["decision_id"])
    assert record.attempts == ()
    assert record.propensity == decision["propensity"]
    assert (record.tenant, record.tags) == ("acme", {"ticket": 7, "decided_tier": decision["tier"]})
    assert record.policy_version == "one"


@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({}, "small"),
        ({"model": "router"}, "small"),
        ({"model": "router-0.5"}, "small"),
        ({"model": "router-1"}, "large"),
        ({"router": {"quality": 1.0}}, "large"),
        ({"model": "maxi"}, "small"),
    ],
)
def test_the_router_decides_whatever_model_the_client_would_have_taken(route, fields, tier):
    assert route(body(**fields)).json["tier"] == tier


def test_hard_constraints_come_first(start_service, call):
    service = start_service(toml='[use_cases.legal]\ntiers = ["large"]')
    decision = call(f"{service.url}/v1/route", body(router={"use_case": "legal"})).json
    assert decision["tier"] == "large"
    assert decision["constraints_applied"]


def test_exploration_is_fixed_by_the_seed(start_service, call):
    runs = []
    for _ in range(2):
        service = start_service(seed=7, env={"ROUTER_ML_EXPLORATION__UP": "0.5"})
        decisions = [call(f"{service.url}/v1/route", body()).json for _ in range(20)]
        runs.append([decision["tier"] for decision in decisions])
        assert decisions[0]["propensity"] == {"small": 0.5, "large": 0.5}
    assert runs[0] == runs[1]
    assert set(runs[0]) == {"small", "large"}


def test_a_batch_gets_a_decision_each(route, service):
    reply = route({"requests": [body(model="auto"), body(model="router-1"), body()]})
    assert reply.status == 200
    decisions = reply.json["decisions"]
    assert [one["tier"] for one in decisions] == ["small", "large", "small"]
    assert len({one["decision_id"] for one in decisions}) == 3
    assert service.recorded(decisions[1]["decision_id"]).propensity == {"small": 0.0, "large": 1.0}


@pytest.mark.parametrize(
    ("requests", "param"),
    [
        ([], "requests"),
        ("no list", "requests"),
        ([{"messages": [{"role": "user", "content": "Hello"}]}] * 257, "requests"),
        ([{"messages": [{"role": "user", "content": "Hello"}]}, 7], "requests[1]"),
        ([{"messages": [{"role": "user", "content": "Hello"}]}, {"messages": []}], "requests[1].messages"),
        ([{"messages": [{"role": "user", "content": "Hello"}]}, {}], "requests[1].messages"),
        ([body(), body(), body(model="nonsense")], "requests[2].model"),
    ],
)
def test_a_batch_with_a_mistake_is_refused_as_a_whole(route, service, requests, param):
    before = service.metric('router_ml_overhead_seconds_count{path="/v1/route"}')
    reply = route({"requests": requests})
    assert (reply.status, reply.json["error"]["param"]) == (404 if param.endswith("model") else 400, param)
    assert service.metric('router_ml_overhead_seconds_count{path="/v1/route"}') == before


def test_a_batch_counts_for_every_tenant_in_it(start_service, call):
    toml = "[tenants.a]\nrequests_per_minute = 300\n[tenants.b]\nrequests_per_minute = 2\n"
    service = start_service(toml=toml)

    def send(*tenants):
        requests = [body(router={"tenant": tenant}) for tenant in tenants]
        return call(f"{service.url}/v1/route", {"requests": requests})

    assert send("a", "b", "b").status == 200
    refused = send("a", "a", "b")
    assert (refused.status, "tenants.b" in refused.json["error"]["message"]) == (429, True)
    assert send("a").headers["x-ratelimit-remaining-requests"] == "298"


def test_asking_where_an_answer_would_come_from_is_no_retry_of_it(start_service, call):
    service = start_service()
    asked = {"model": "auto", **body(router={"session_id": "s"})}
    first = call(f"{service.url}/v1/chat/completions", asked).headers["x-router-decision-id"]
    later = call(f"{service.url}/v1/route", asked).json["decision_id"]
    assert service.recorded(later).feedback == service.recorded(first).feedback == ()
    assert service.metric('router_ml_feedback_total{new="true",source="retry"}') == 0


def test_decisions_that_are_made_at_once_hold_the_share_of_the_dearest_tier(service, tmp_path):
    path = tmp_path / "router.toml"
    path.write_text((service.home / "router.toml").read_text() + "[tenants.default]\nmax_large_share = 0.1\n")
    config, sent = load_config(path, {}), []

    async def post(app):
        scope = {"type": "http", "method": "POST", "path": "/v1/route", "headers": []}
        asked = {"type": "http.request", "body": json.dumps(body(model="router-1")).encode()}

        async def receive():
            return asked

        async def send(message):
            sent.append(message.get("body"))

        await app(scope, receive, send)

    async def all_at_once(app):
        await asyncio.gather(*(post(app) for _ in range(20)))

    with open_store(f"sqlite:///{tmp_path}/events.db") as store:
        asyncio.run(all_at_once(create_app(serving_settings(config), config, store=store, environ={"SMALL_KEY": "k"})))
    tiers = [json.loads(said)["tier"] for said in sent if said]
    assert (len(tiers), tiers.count("large")) == (20, 0.1 * 20 + 1)
