"""Every failure of an upstream has a kind, and says no more than it should."""

from types import SimpleNamespace

import aiohttp
import pytest
from multidict import CIMultiDict

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml_serving.failures import (
    CircuitOpen,
    KeyRefused,
    RefusedByUpstream,
    forwarded,
    named,
    refusal,
    refusal_in_stream,
)

SMALL = Tier(name="small", model="mini", input_usd_per_mtok=1.0, output_usd_per_mtok=1.0, api_key_env="THE_KEY")
SECRET = "http://user:hunter2@example.com/"  # pragma: allowlist secret


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aiohttp.ConnectionTimeoutError(SECRET), "connect"),
        (aiohttp.SocketTimeoutError(SECRET), "timeout"),
        (TimeoutError(SECRET), "timeout"),
        (aiohttp.ServerDisconnectedError(SECRET), "reset"),
        (aiohttp.ClientConnectionResetError(SECRET), "reset"),
        (aiohttp.ClientOSError(104, SECRET), "reset"),
        (aiohttp.ClientPayloadError(SECRET), "reset"),
        (aiohttp.InvalidURL(SECRET), "protocol"),
    ],
)
def test_a_failure_has_a_kind_and_keeps_secrets(error, kind, caplog):
    failure = named(SMALL, error)
    assert failure.kind == kind
    assert "'small'" in str(failure)
    assert "hunter2" not in str(failure) + caplog.text
    assert [record.message for record in caplog.records] == ["upstream_failed"]


def response(status, **headers):
    return SimpleNamespace(status=status, headers=CIMultiDict(headers))


def refused(status, **headers):
    return refusal(SMALL, response(status, **headers), b"said", lambda: None)  # type: ignore[arg-type]


def test_a_refusal_says_what_the_upstream_said():
    error = refused(429, **{"Retry-After": "3", "X-RateLimit-Remaining": "0", "Set-Cookie": "a=b", "Server": "x"})
    assert isinstance(error, RefusedByUpstream)
    assert (error.status, error.body, error.asked_s) == (429, b"said", 3.0)
    assert error.headers == {"retry-after": "3"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (b'{"code": 429, "message": "slow down"}', 429),
        (b'{"code": "overloaded", "status": "503"}', 503),
        (b'{"code": 200}', 502),
        (b'{"code": [429], "status": true}', 502),
        (b'"no"', 502),
    ],
)
def test_an_error_in_place_of_a_stream_is_what_it_would_have_been_as_a_response(error, status):
    payload = b'{"error": %s}' % error
    found = refusal_in_stream(SMALL, response(200), payload, lambda: None)  # type: ignore[arg-type]
    assert isinstance(found, RefusedByUpstream)
    assert (found.status, found.body) == (status, payload)


@pytest.mark.parametrize(("status", "counts"), [(401, True), (403, False)])
def test_a_refused_key_is_the_routers_matter(status, counts):
    error = refused(status)
    assert "THE_KEY" in str(error)
    assert (error.status, error.body) == (None, b"")
    assert isinstance(error, KeyRefused) is counts


@pytest.mark.parametrize("status", [204, 302])
def test_what_is_no_answer_and_no_error_is_not_handed_on(status):
    error = refused(status)
    assert type(error) is UpstreamError
    assert error.status is None


def test_an_open_circuit_says_when_it_is_tried_again():
    error = CircuitOpen("small", 6.2)
    assert (error.kind, error.status, error.headers) == ("open", None, {"retry-after": "7"})
    assert str(error) == "tier 'small' has been failing and is not called; tried again in 7 s"


def test_only_headers_of_use_are_forwarded():
    kept = {"openai-processing-ms": "12", "openai-version": "2020-10-01", "openai-model": "m", "x-request-id": "r1"}
    ours = {"openai-organization": "acme", "openai-project": "p", "x-ratelimit-remaining-tokens": "9", "server": "x"}
    given = CIMultiDict({"OpenAI-Processing-Ms": "12", "Content-Type": "x", "Retry-After": "1", **kept, **ours})
    assert forwarded(given) == {**kept, "retry-after": "1"}
