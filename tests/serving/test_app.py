"""The composition root, and the small endpoints."""

import json
import re
import socket
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from router_ml_serving.keys import issue_key

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


def test_there_is_one_page_of_documentation(service, call):
    assert call(f"{service.url}/docs").status == 200
    assert call(f"{service.url}/redoc").status == 404


@pytest.fixture(scope="module")
def beyond(start_service, tmp_path_factory):
    """A service that listens on every interface, and a key for each of two tenants."""
    home = tmp_path_factory.mktemp("outside")
    now = datetime.now(UTC)
    keys = {name: issue_key(home / "keys", tenant=name, name="", now=now)[1] for name in ("acme", "thrifty")}
    service = start_service(
        home=home,
        host="0.0.0.0",
        keys_file=str(home / "keys"),
        api_key_env="SHARED_KEY",
        toml='[tenants.thrifty]\ntiers = ["small"]\n[tenants.acme]\n',
        env={"SHARED_KEY": "sk-shared", "ROUTER_ML_ADMIN_KEY": "sk-admin"},
    )
    keys |= {"shared": "sk-shared", "admin": "sk-admin"}

    return service.url.replace("0.0.0.0", "127.0.0.1"), keys


@pytest.fixture
def outside(beyond, call):
    """Ask that service for a page, with one of those keys."""
    url, keys = beyond

    def get(path, key=None):
        return call(f"{url}{path}", headers={} if key is None else {"authorization": f"Bearer {keys[key]}"})

    return get


def test_beyond_the_machine_only_probes_need_no_key(outside):
    open_ = {
        path for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json") if outside(path).status == 200
    }
    assert open_ == {"/healthz", "/readyz"}
    assert [outside("/metrics", key).status for key in ("acme", "shared", "admin")] == [200] * 3
    assert outside("/metrics").status == 401
    assert outside("/docs", "shared").status == 404


def test_no_tenant_sees_the_counters_of_all(outside):
    assert [outside("/v1/stats", key).status for key in (None, "acme", "shared", "admin")] == [401, 403, 200, 200]
    assert outside("/v1/stats", "acme").json["error"]["code"] == "forbidden"


def test_a_tenant_sees_its_own_tiers_of_the_policy(outside):
    whole, part = (outside("/v1/policy", key).json for key in ("acme", "thrifty"))
    assert [tier["name"] for tier in whole["tiers"]] == ["small", "large"]
    assert [tier["name"] for tier in part["tiers"]] == ["small"]
    assert (whole["best_tier"], part["best_tier"]) == ("large", None)
    assert "maxi" not in json.dumps(part)


def test_documentation_and_metrics_can_be_shown_to_everybody(start_service, call):
    service = start_service(host="0.0.0.0", allow_anonymous=True, docs=True, open_metrics=True)
    url = service.url.replace("0.0.0.0", "127.0.0.1")
    assert [call(f"{url}{path}").status for path in ("/docs", "/openapi.json", "/metrics")] == [200] * 3


def test_what_is_refused_below_http_is_counted(service):
    before = service.metric('router_ml_requests_total{path="other",status="400"}')
    where = urlsplit(service.url)
    with closing(socket.create_connection((where.hostname, where.port), timeout=10)) as line:
        line.sendall(b"\x16\x03\x01\r\n\r\n")
        assert b" 400 " in line.recv(4096)
    assert service.metric('router_ml_requests_total{path="other",status="400"}') == before + 1
    assert "Invalid HTTP" not in service.process.log.read_text()


def test_a_client_that_never_reads_its_stream_ends_its_call_and_is_recorded(start_service, upstream):
    service = start_service(send_s=0.5)
    where = urlsplit(service.url)
    upstream.calls()
    prompt = "Hello [mini=flood]"
    body = json.dumps({"model": "small", "stream": True, "messages": [{"role": "user", "content": prompt}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    with closing(socket.socket()) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(10)
        line.connect((where.hostname, where.port))
        line.sendall(head + body)
        deadline = time.monotonic() + 15
        while service.metric('router_ml_attempts_total{outcome="cancelled",tier="small"}') == 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert upstream.cancelled()
