"""Calls go where the configuration says, if that is a place where a model may be; requests have no say."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.errors import ConfigError
from router_ml.ladder import Ladder, Tier
from router_ml_serving.destinations import CarefulResolver, destination_of
from router_ml_serving.problems import ModelNotFound
from router_ml_serving.wire import outgoing, resolve


def tier(base_url, **fields):
    fields = {"name": "small", "model": "mini", "input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0, **fields}
    return Tier(base_url=base_url, **fields)


async def resolved(name):
    return await CarefulResolver().resolve(name, 80, socket.AF_INET)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1/chat/completions"),
        ("http://10.0.0.5:8000/v1", "http://10.0.0.5:8000/v1/chat/completions"),
        ("http://[64:ff9b::8.8.8.8]/v1", "http://[64:ff9b::808:808]/v1/chat/completions"),
        ("http://[2002:808:808::1]/v1", "http://[2002:808:808::1]/v1/chat/completions"),
        ("http://[::1]:8000/a%2Fb/v1", "http://[::1]:8000/a%2Fb/v1/chat/completions"),
    ],
)
def test_a_model_may_be_served_anywhere(base_url, url):
    to = destination_of(tier(base_url), {})
    assert to is not None
    assert str(to.url) == url


def test_a_tier_without_a_url_has_no_destination():
    assert destination_of(tier(None), {}) is None


@pytest.mark.parametrize(
    ("base_url", "why"),
    [
        ("ftp://example.com/v1", "not an http"),
        ("file:///etc/passwd", "not an http"),
        ("unix:///run/docker.sock", "not an http"),
        ("nonsense", "not an http"),
        ("http://[::1", "not a URL"),
        ("http://host:99999/v1", "not a URL"),
        ("https://me:hunter2@example.com/v1", "api_key_env"),  # pragma: allowlist secret
        ("https://example.com/v1?key=hunter2", "query"),
        ("https://example.com/v1#hunter2", "query or fragment"),
        ("http://169.254.169.254/latest", "metadata"),
        ("http://[fe80::1%25eth0]/v1", "metadata"),
        ("http://[::ffff:169.254.169.254]/v1", "metadata"),
        ("http://[2002:a9fe:a9fe::1]/v1", "metadata"),
        ("http://[64:ff9b::169.254.169.254]/v1", "metadata"),
        ("http://[64:ff9b::100.100.100.200]/v1", "metadata"),
        ("http://[::169.254.169.254]/v1", "metadata"),
        ("http://168.63.129.16/v1", "metadata"),
        ("http://[fd00:ec2::254]/v1", "metadata"),
        ("http://100.100.100.200/v1", "metadata"),
    ],
)
def test_a_url_that_nobody_means_is_refused_without_being_quoted(base_url, why):
    with pytest.raises(ConfigError, match=why) as caught:
        destination_of(tier(base_url), {})
    assert "'small'" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["2852039166", "0xA9FEA9FE", "169.254.43518"])
def test_an_address_in_disguise_is_found_when_it_is_resolved(name):
    assert destination_of(tier(f"http://{name}/v1"), {}) is not None
    with pytest.raises(OSError, match="metadata"):
        asyncio.run(resolved(name))


def test_other_names_are_resolved_as_ever():
    assert [one["host"] for one in asyncio.run(resolved("localhost"))] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("pattern", "base_url", "is_in"),
    [
        ("api.openai.com", "https://API.OpenAI.com/v1", True),
        ("api.openai.com", "https://api.openai.com.evil.example/v1", False),
        ("api.openai.com", "https://evil.example/api.openai.com", False),
        ("*.example.com", "https://models.example.com/v1", True),
        ("*.example.com", "https://example.com/v1", False),
        ("localhost:8000", "http://localhost:8000/v1", True),
        ("localhost:8000", "http://localhost:8001/v1", False),
        ("localhost", "http://localhost:8001/v1", True),
        ("api.openai.com:443", "https://api.openai.com/v1", True),
        ("[::1]:8000", "http://[::1]:8000/v1", True),
        ("10.0.*", "http://10.1.0.1/v1", False),
    ],
)
def test_a_list_of_hosts_narrows_it(pattern, base_url, is_in):
    if is_in:
        assert destination_of(tier(base_url), {}, ("other.example", pattern)) is not None
    else:
        with pytest.raises(ConfigError, match="upstream_hosts"):
            destination_of(tier(base_url), {}, ("other.example", pattern))


def test_no_list_allows_a_metadata_address():
    with pytest.raises(ConfigError, match="metadata"):
        destination_of(tier("http://169.254.169.254/v1"), {}, ("*", "169.254.169.254"))


@pytest.mark.parametrize(
    ("key", "sent"), [("sk-1", "Bearer sk-1"), ("sk-1\n", "Bearer sk-1"), ("", None), (None, None)]
)
def test_a_key_is_sent_as_it_is_meant(key, sent):
    environ = {} if key is None else {"THE_KEY": key}
    to = destination_of(tier("http://localhost/v1", api_key_env="THE_KEY"), environ)
    assert to is not None
    assert to.headers.get("Authorization") == sent


@pytest.mark.parametrize("key", ["sk-1\r\nx-evil: 1", "sk-ключ", "sk\x00"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_quoted(key):
    with pytest.raises(ConfigError, match="THE_KEY") as caught:
        destination_of(tier("http://localhost/v1", api_key_env="THE_KEY"), {"THE_KEY": key})
    assert "sk" not in str(caught.value)


@given(
    model=st.text(max_size=60) | st.sampled_from(["../admin", "http://169.254.169.254/", "//evil", "mini\r\nhost: x"])
)
def test_no_model_name_changes_where_a_call_goes(model):
    ladder = Ladder.of([tier("http://localhost/v1"), tier("http://localhost/v1", name="large", model="maxi")])
    try:
        target = resolve(model, ladder)
    except ModelNotFound:
        return
    chosen = target.pinned or ladder.tiers[0]
    to = destination_of(chosen, {})
    assert to is not None
    assert str(to.url) == "http://localhost/v1/chat/completions"
    assert chosen.model.encode() in outgoing({"model": model, "messages": []}, chosen)
