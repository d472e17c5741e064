"""The client of the tiers: every failure has a kind, and says nothing it should not."""

import asyncio
import json
import socket

import pytest

from router_ml.errors import ConfigError, UpstreamError
from router_ml.ladder import Tier
from router_ml_serving.settings import ServingSettings
from router_ml_serving.upstream import HttpUpstream, RefusedByUpstream

SETTINGS = ServingSettings(connect_s=1.0, idle_s=0.4, total_s=1.5)


def tier(base_url, **fields):
    return Tier(
        name="small", model="mini", base_url=base_url, input_usd_per_mtok=1.0, output_usd_per_mtok=1.0, **fields
    )


def body(behaviour, **fields):
    messages = [{"role": "user", "content": f"Hello [mini={behaviour}]"}]
    return json.dumps({"model": "mini", "messages": messages, **fields}).encode()


def with_client(work, environ=None, settings=SETTINGS, **parts):
    """Run `work` with a started client."""

    async def go():
        client = HttpUpstream(settings, environ or {}, **parts)
        await client.start()
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(go())


def complete(where, sent, environ=None, *, deadline_s=None, **parts):
    return with_client(lambda client: client.complete(where, sent, deadline_s=deadline_s), environ, **parts)


async def streamed(client, where, sent):
    return b"".join([chunk async for chunk in client.stream(where, sent)])


def stream(where, sent, **parts):
    return with_client(lambda client: streamed(client, where, sent), **parts)


@pytest.fixture
def small(upstream):
    return tier(f"{upstream.url}/v1/")


@pytest.mark.parametrize(
    ("behaviour", "kind", "status"),
    [
        ("500", "status", 500),
        ("429", "status", 429),
        ("400", "status", 400),
        ("401", "status", None),
        ("html", "status", 502),
        ("hang", "timeout", None),
        ("trickle", "timeout", None),
        ("redirect", "status", None),
        ("reset", "reset", None),
        ("broken-json", "protocol", None),
    ],
)
def test_a_failed_call_has_a_kind(small, behaviour, kind, status):
    with pytest.raises(UpstreamError) as caught:
        complete(small, body(behaviour))
    assert (caught.value.kind, caught.value.status) == (kind, status)
    assert "Hello" not in str(caught.value)
    assert "http://" not in str(caught.value)


def test_a_refusal_keeps_its_body_and_the_headers_worth_keeping(small):
    with pytest.raises(RefusedByUpstream) as caught:
        complete(small, body("429"))
    assert json.loads(caught.value.body)["error"]["message"] == "scripted 429"
    assert caught.value.headers == {"retry-after": "7"}


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [("500", "status"), ("json", "protocol"), ("reset", "reset"), ("stall", "timeout"), ("trickle", "timeout")],
)
def test_a_failed_stream_has_a_kind(small, behaviour, kind):
    with pytest.raises(UpstreamError) as caught:
        stream(small, body(behaviour, stream=True))
    assert caught.value.kind == kind


def test_nobody_there_is_a_connect_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UpstreamError) as caught:
        complete(tier(f"http://127.0.0.1:{port}/v1"), body("ok"))
    assert caught.value.kind == "connect"


def test_a_tier_without_a_url_says_what_to_do():
    with pytest.raises(UpstreamError, match=r"set it under \[\[tiers\]\]"):
        complete(tier(None), body("ok"))


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/v1", "http://[::1"])
def test_an_impossible_url_is_an_upstream_error(url):
    with pytest.raises(UpstreamError):
        complete(tier(url), body("ok"))


def test_the_key_comes_from_the_environment_that_was_given(small, upstream):
    upstream.calls()
    keyed = small.model_copy(update={"api_key_env": "THE_KEY"})
    complete(keyed, body("ok"), {"THE_KEY": "sk-1"})
    complete(keyed, body("ok"))
    first, second = upstream.calls()
    assert first["headers"]["Authorization"] == "Bearer sk-1"
    assert "Authorization" not in second["headers"]


def test_nothing_in_the_environment_reroutes_a_call(small, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert complete(small, body("ok")).status == 200


def test_a_redirect_is_not_followed(small, upstream):
    upstream.calls()
    with pytest.raises(UpstreamError, match="HTTP 307"):
        complete(small, body("redirect"))
    assert len(upstream.calls()) == 1


def test_a_body_of_megabytes_arrives_whole(small, upstream):
    upstream.calls()
    assert complete(small, body("ok", padding="x" * 3_000_000)).status == 200
    assert len(upstream.calls()[0]["body"]["padding"]) == 3_000_000


def test_with_a_closed_list_a_bundle_cannot_say_where_calls_go(small, upstream):
    upstream.calls()
    stray = small.model_copy(update={"base_url": "http://127.0.0.1:9/v1", "api_key_env": "ANY_SECRET"})
    assert complete(stray, body("ok"), {"ANY_SECRET": "sk-2"}, tiers=[small]).status == 200  # pragma: allowlist secret
    assert "Authorization" not in upstream.calls()[0]["headers"]
    with pytest.raises(UpstreamError, match="has no base_url"):
        complete(small, body("ok"), tiers=[])


def test_a_tier_outside_of_the_allowed_hosts_stops_the_start(small):
    elsewhere = SETTINGS.model_copy(update={"upstream_hosts": ("*.example.com",)})
    with pytest.raises(ConfigError, match="upstream_hosts"):
        HttpUpstream(elsewhere, {}, tiers=[small])


def test_chunks_arrive_one_by_one(small):
    async def work(client):
        return [chunk async for chunk in client.stream(small, body("paced", stream=True))]

    assert len(with_client(work, settings=ServingSettings())) >= 5


def test_closing_a_stream_cancels_the_call(small, upstream):
    async def work(client):
        chunks = client.stream(small, body("stall", stream=True))
        await anext(chunks)
        await chunks.aclose()
        await asyncio.sleep(0.2)

    upstream.calls()
    with_client(work)
    assert [sent["cancelled"] for sent in upstream.calls()] == [True]
