"""Keys, tenants and limits as clients meet them: over HTTP, with the official client, in every worker."""

import json
import socket
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import urlsplit

import openai
import pytest

from router_ml_serving.keys import issue_key

ASK = {"messages": [{"role": "user", "content": "Hello"}]}
TOML = """
[tenants.default]
requests_per_minute = 600

[tenants.thrifty]
tiers = ["small"]

[tenants.fair]
max_large_share = 0.1

[tenants.slow]
requests_per_minute = 3

[tenants.terse]
tokens_per_minute = 40
"""


def keys(home, *arguments):
    """Run `router-ml keys` on a service's file; return what it says."""
    command = [sys.executable, "-m", "router_ml.cli", "keys", *arguments, "--json", "--file", str(home / "keys")]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def create(home, tenant):
    return keys(home, "create", "--tenant", tenant)["key"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the keys of some tenants, and those keys."""
    home = tmp_path_factory.mktemp("gate")
    now = datetime.now(UTC)
    tenants = ("acme", "thrifty", "fair", "slow", "terse")
    return home, {one: issue_key(home / "keys", tenant=one, name="", now=now)[1] for one in tenants}


@pytest.fixture(scope="module")
def gate(start_service, made):
    """A service that knows only tenants' keys."""
    home, _ = made
    return start_service(home=home, keys_file=str(home / "keys"), toml=TOML, env={"ROUTER_ML_ADMIN_KEY": "top"})


@pytest.fixture
def key_of(made):
    return made[1].__getitem__


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def test_no_key_no_service(gate, call):
    for path in ("/v1/route", "/v1/chat/completions", "/v1/feedback"):
        for headers in ({}, bearer("rml_000000000000_x"), bearer("top")):
            reply = call(f"{gate.url}{path}", ASK, headers=headers)
            assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")
            assert reply.json["error"]["type"] == "authentication_error"


def test_a_new_key_works_without_a_restart_in_both_spellings(gate, call):
    key = create(gate.home, "late")
    time.sleep(1.1)
    for headers in (bearer(key), {"x-api-key": key}):
        assert call(f"{gate.url}/v1/route", ASK, headers=headers).status == 200


def test_the_record_bears_the_tenant_of_the_key(gate, call, key_of):
    reply = call(f"{gate.url}/v1/route", ASK, headers=bearer(key_of("acme")))
    assert gate.recorded(reply.json["decision_id"]).tenant == "acme"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-router-tenant": "other"}, {}),
        ({}, {"router": {"tenant": "other"}}),
        ({}, {"metadata": {"tenant": "other"}}),
    ],
)
def test_a_key_cannot_borrow_another_tenant(gate, call, key_of, headers, body):
    for path in ("/v1/route", "/v1/chat/completions"):
        reply = call(f"{gate.url}{path}", {**ASK, **body}, headers={**bearer(key_of("acme")), **headers})
        assert (reply.status, reply.json["error"]["code"]) == (403, "wrong_tenant")
        assert reply.json["error"]["type"] == "permission_error"


def test_an_api_key_opens_no_admin_door(gate, call, key_of):
    assert call(f"{gate.url}/admin/reload", method="POST", headers=bearer(key_of("acme"))).status == 401
    assert call(f"{gate.url}/admin/reload", method="POST", headers=bearer("top")).status == 200


def test_the_allow_list_holds_whatever_is_asked_for(gate, call, key_of):
    headers = bearer(key_of("thrifty"))
    reply = call(f"{gate.url}/v1/chat/completions", {**ASK, "model": "router-1"}, headers=headers)
    assert reply.headers["x-router-tier"] == "small"
    escalating = {"model": "auto", "messages": [{"role": "user", "content": "Hello [mini=idk]"}]}
    assert call(f"{gate.url}/v1/chat/completions", escalating, headers=headers).headers["x-router-tier"] == "small"
    for model in ("large", "maxi"):
        refused = call(f"{gate.url}/v1/chat/completions", {**ASK, "model": model}, headers=headers)
        assert (refused.status, refused.json["error"]["code"]) == (403, "tier_not_allowed")


def test_the_share_of_the_dearest_tier_is_kept(gate, call, key_of):
    headers = bearer(key_of("fair"))
    replies = [
        call(f"{gate.url}/v1/chat/completions", {**ASK, "model": "router-1"}, headers=headers) for _ in range(40)
    ]
    assert [reply.status for reply in replies] == [200] * 40
    assert 2 <= sum(reply.headers["x-router-tier"] == "large" for reply in replies) <= 5


def test_too_many_requests_are_told_so_in_openais_words(gate, key_of):
    client = openai.OpenAI(base_url=f"{gate.url}/v1", api_key=key_of("slow"), max_retries=0)
    with client:
        seen = [client.chat.completions.with_raw_response.create(model="auto", **ASK).headers for _ in range(3)]
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="auto", **ASK)
    assert [headers["x-ratelimit-remaining-requests"] for headers in seen] == ["2", "1", "0"]
    assert caught.value.code == "rate_limit_exceeded"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 20


def test_tokens_are_charged_as_the_upstream_counts_them(gate, call, key_of):
    headers = bearer(key_of("terse"))
    statuses = [call(f"{gate.url}/v1/chat/completions", ASK, headers=headers).status for _ in range(20)]
    assert statuses[0] == 200
    assert 429 in statuses


def test_a_revoked_key_stops_in_every_worker(start_service, tmp_path, call):
    key = create(tmp_path, "acme")
    service = start_service(home=tmp_path, keys_file=str(tmp_path / "keys"), workers=2)
    assert all(call(f"{service.url}/v1/route", ASK, headers=bearer(key)).status == 200 for _ in range(20))
    keys(tmp_path, "revoke", key.split("_")[1])
    time.sleep(2.0)
    assert all(call(f"{service.url}/v1/route", ASK, headers=bearer(key)).status == 401 for _ in range(20))
    assert key.split("_", 2)[2] not in service.process.log.read_text()


def test_an_open_service_stays_on_the_machine(gate):
    command = [*gate.process.command, "--host", "0.0.0.0", "--port", "0"]
    config = gate.home / "open.toml"
    config.write_text((gate.home / "router.toml").read_text().replace("keys_file", "# keys_file"))
    command[command.index("--config") + 1] = str(config)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "serving.allow_anonymous = true" in done.stderr


def test_a_request_that_never_arrives_is_given_up(start_service):
    service = start_service(receive_s=0.5)
    where = urlsplit(service.url)
    with closing(socket.create_connection((where.hostname, where.port), timeout=10)) as connection:
        connection.sendall(b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{")
        assert b"request_timeout" in connection.recv(4096)
    assert "Traceback" not in service.process.log.read_text()


def test_a_wrong_tier_in_a_tenants_rules_stops_the_start(gate):
    config = gate.home / "wrong.toml"
    config.write_text((gate.home / "router.toml").read_text() + '[tenants.x]\ntiers = ["smal"]\n')
    command = [*gate.process.command]
    command[command.index("--config") + 1] = str(config)
    done = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "tenants.x.tiers: no tier is called 'smal' (did you mean 'small'?)" in done.stderr
