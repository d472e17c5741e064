"""The client of the tiers: every failure has a kind, and says nothing it should not."""

import asyncio
import json
import socket

import pytest

from router_ml.errors import UpstreamError
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


def complete(where, sent, environ=None):
    async def go():
        client = HttpUpstream(SETTINGS, environ or {})
        await client.start()
        try:
            return await client.complete(where, sent)
        finally:
            await client.close()

    return asyncio.run(go())


def stream(where, sent):
    async def go():
        client = HttpUpstream(SETTINGS, {})
        await client.start()
        try:
            return b"".join([chunk async for chunk in client.stream(where, sent)])
        finally:
            await client.close()

    return asyncio.run(go())


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
    ("behaviour", "kind"), [("500", "status"), ("json", "protocol"), ("reset", "reset"), ("stall", "timeout")]
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
