"""The composition root, and the small endpoints."""

import re
import subprocess
import sys

FORBIDDEN = ("polars", "sklearn", "lightgbm", "mlflow", "pandas", "scipy", "matplotlib")


def test_the_service_loads_nothing_of_training():
    program = (
        "import sys\n"
        "import router_ml_serving.app\n"
        "from router_ml_serving.api import ROUTERS\n"
        "[ROUTERS.load(name) for name in ROUTERS]\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_models_lists_every_name(service):
    names = [model.id for model in service.client.models.list()]
    assert names == ["auto", "router", "small", "large", "mini", "maxi"]


def test_health_and_readiness(service, call):
    assert call(f"{service.url}/healthz").json == {"status": "ok"}
    assert call(f"{service.url}/readyz").json == {"ready": True, "policy_version": "one"}


def test_the_policy_is_described_without_secrets(service, call):
    policy = call(f"{service.url}/v1/policy").json
    assert (policy["version"], policy["quality"], policy["threshold"]) == ("one", 0.97, 2000.0)
    assert [tier["name"] for tier in policy["tiers"]] == ["small", "large"]
    assert policy["simulated"] is True
    assert "KEY" not in str(policy)


def test_metrics_and_stats_agree(service, call):
    before = service.metric('router_ml_escalations_total{cause="inadequate",tier="large"}')
    service.ask("Hello [mini=idk]")
    assert service.metric('router_ml_escalations_total{cause="inadequate",tier="large"}') == before + 1
    assert service.metric('router_ml_attempts_total{outcome="inadequate",tier="small"}') >= 1
    assert service.metric('router_ml_requests_total{path="/v1/chat/completions",status="200"}') >= 1
    assert service.metric('router_ml_cost_usd_total{tier="large"}') > 0
    assert service.metric('router_ml_overhead_seconds_count{path="/v1/chat/completions"}') >= 1
    stats = call(f"{service.url}/v1/stats").json
    assert stats["escalations"]["large,inadequate"] == before + 1
    assert stats["policy_version"] == "one"
    assert stats["uptime_s"] > 0
    text = call(f"{service.url}/metrics").body.decode()
    assert re.search(r"^router_ml_recorder_pending \d", text, re.M)
    assert "Hello" not in text


def test_unknown_paths_do_not_multiply_the_metrics(service, call):
    for i in range(3):
        call(f"{service.url}/secret/{i}")
    assert service.metric('router_ml_requests_total{path="other",status="404"}') >= 3
    assert "/secret" not in call(f"{service.url}/metrics").body.decode()


def test_the_openapi_document_names_every_endpoint(service, call):
    paths = call(f"{service.url}/openapi.json").json["paths"]
    assert {
        "/v1/route", "/v1/chat/completions", "/v1/feedback", "/v1/models", "/v1/policy", "/v1/stats",
        "/healthz", "/readyz", "/metrics", "/admin/reload", "/admin/rollback",
    } <= set(paths)  # fmt: skip
    assert paths["/v1/route"]["post"]["requestBody"]["required"] is True
