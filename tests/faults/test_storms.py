"""Tiers that fail for a while: circuits open, others answer, and what recovers is used again; or one clear error."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

CIRCUIT = 'router_ml_circuit_open{tier="small"}'


@pytest.fixture(scope="module")
def careful(start_service):
    return start_service(breaker_failures=3, breaker_s=0.5, retries=0)


@pytest.fixture(scope="module")
def plain(start_service):
    return start_service(idle_s=0.6, total_s=1.5, retries=1, retry_s=1.0)


def many(service, n, prompt, **fields):
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda i: service.ask(f"{i} {prompt}", **fields), range(n)))


def until_small_answers(service):
    deadline = time.monotonic() + 15
    while (reply := service.ask("Hello")).headers.get("x-router-tier") != "small" or reply.status != 200:
        assert reply.status in (200, 503)
        assert time.monotonic() < deadline, "the tier was never tried again"
        time.sleep(0.05)


def assert_error(reply, status):
    assert reply.status == status
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("streams", [False, True])
def test_in_a_storm_the_other_tier_serves_and_the_first_is_used_again_after_it(careful, upstream, streams):
    upstream.calls()
    replies = many(careful, 40, "[mini=500-silent]", stream=streams)
    assert {reply.status for reply in replies} == {200}
    assert {reply.headers["x-router-tier"] for reply in replies} == {"large"}
    assert all(b"maxi" in reply.body for reply in replies)
    asked = [sent["model"] for sent in upstream.calls()]
    assert asked.count("mini") <= 3 + 8, "those under way when the circuit opened"
    assert careful.metric(CIRCUIT) == 1
    until_small_answers(careful)
    assert careful.metric(CIRCUIT) == 0


def test_when_all_tiers_fail_each_client_gets_a_clear_error_and_then_answers_again(careful):
    replies = many(careful, 40, "[mini=500-silent] [maxi=500-silent]")
    assert {reply.status for reply in replies} <= {500, 503}
    for reply in replies:
        assert_error(reply, reply.status)
        if reply.status == 503:
            assert int(reply.headers["retry-after"]) >= 1
    until_small_answers(careful)


@pytest.mark.parametrize(("behaviour", "again"), [("429", "7"), ("429-late", "3600"), ("429-silent", None)])
def test_a_limited_tier_is_replaced_or_its_limit_is_handed_on(plain, behaviour, again):
    assert plain.ask(f"Hello [mini={behaviour}]").json["router"]["tier"] == "large"
    reply = plain.ask(f"Hello [mini={behaviour}]", model="small")
    assert_error(reply, 429)
    assert reply.headers.get("retry-after") == again
    (attempt,) = plain.recorded(reply.headers["x-router-decision-id"]).attempts
    assert (attempt.error, attempt.cost_usd) == ("status 429", 0.0)


@pytest.mark.parametrize(
    ("behaviour", "streams"), [("hang", False), ("hang", True), ("trickle", False), ("trickle", True), ("stall", True)]
)
def test_a_tier_that_answers_slowly_for_ever_is_given_up(plain, behaviour, streams):
    started = time.monotonic()
    reply = plain.ask(f"Hello [mini={behaviour}]", stream=streams)
    assert (reply.status, b"maxi" in reply.body, b"error" in reply.body) == (200, True, False)
    reply = plain.ask(f"Hello [mini={behaviour}]", model="small", stream=streams)
    assert time.monotonic() - started < 10
    error = json.loads(reply.body.decode().strip().splitlines()[-1].removeprefix("data: ")) if streams else reply.json
    assert error["error"]["code"] in ("upstream_timeout", "upstream_error")
    assert "in time" in error["error"]["message"]
