"""Web pages of strangers do not get in where nobody is asked for a key; everything on this machine does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml_serving.locality import Fence, is_loopback
from router_ml_serving.problems import NoPermission

ASK = {"messages": [{"role": "user", "content": "Hello"}]}
HERE = [b"localhost", b"localhost:8080", b"127.0.0.1:8080", b"127.8.8.8", b"[::1]:8080", b"LOCALHOST:1", b"box.lan:80"]
AWAY = [
    b"evil.example",
    b"localhost.evil.example:8080",
    b"192.168.0.7",
    b"localhost@evil.example",
    b"[::2]",
    b"",
    b"::1",
]
AWAY += [b"localhost/evil", b"[", b"localhost:8080, evil", b"\xff"]


@pytest.fixture
def fence():
    return Fence("Box.lan", check_host=True)


@pytest.mark.parametrize("host", HERE)
def test_who_names_this_machine_comes_in(fence, host):
    for _ in range(2):
        fence.check([(b"accept", b"*/*"), (b"host", host)])
        fence.check([(b"host", host), (b"origin", b"http://" + host)])


@pytest.mark.parametrize("host", AWAY)
def test_a_name_that_was_made_to_mean_this_machine_does_not(fence, host):
    for headers in ([(b"host", host)], [(b"host", b"localhost"), (b"host", host)]):
        for _ in range(2):
            with pytest.raises(NoPermission):
                fence.check(headers)


@pytest.mark.parametrize("host", AWAY)
def test_nor_does_a_page_from_elsewhere(host):
    fence = Fence("0.0.0.0", check_host=False)
    fence.check([(b"host", host)])
    for origin in (b"https://" + host, b"null", b"file://", b"chrome-extension://localhost", b"localhost"):
        with pytest.raises(NoPermission, match="Origin"):
            fence.check([(b"host", b"localhost"), (b"origin", origin)])


@given(st.binary(max_size=60))
def test_any_bytes_are_let_in_or_refused(value):
    fence = Fence("127.0.0.1", check_host=True)
    for name in (b"host", b"origin"):
        try:
            fence.check([(name, value)])
        except NoPermission:
            continue
        assert b"localhost" in value.lower() or b"127" in value or b"::1" in value or b":0" in value


def test_what_is_remembered_is_bounded(fence):
    for port in range(1000):
        fence.check([(b"host", b"localhost:%d" % port)])
    assert len(fence._passed) <= 64


def test_only_addresses_of_the_machine_are_loopback():
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "x.localhost.evil", "")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_a_page_of_a_stranger_spends_nothing(service, call, upstream):
    upstream.calls()
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}):
        for path in ("/v1/chat/completions", "/v1/route", "/v1/feedback", "/v1/messages", "/v1/responses"):
            reply = call(f"{service.url}{path}", ASK, headers={**headers, "content-type": "text/plain"})
            assert reply.status == 403
        for path in ("/v1/models", "/v1/policy", "/v1/stats"):
            assert call(f"{service.url}{path}", headers=headers).json["error"]["code"] == "forbidden"
    assert upstream.calls() == []
    assert call(f"{service.url}/v1/route", ASK, headers={"origin": "http://localhost:3000"}).status == 200


def test_with_a_key_pages_may_call(start_service, call):
    service = start_service(api_key_env="SHARED_KEY", env={"SHARED_KEY": "sk-shared"})
    headers = {"authorization": "Bearer sk-shared", "origin": "https://app.example", "host": "router.example"}
    assert call(f"{service.url}/v1/route", ASK, headers=headers).status == 200
