"""Whatever an upstream sends, the client gets the next tier's answer or one clear error, and the record says why."""

import contextlib
import json
import socket
import time

import pytest

from tests.faults.broken_upstream import STREAM_FAULTS, WHOLE_FAULTS

BUDGET_S = 8.0


@pytest.fixture(scope="module")
def held(start_service, broken):
    return start_service(small=broken.url, idle_s=1.0, total_s=2.0, retries=0, stream_adequacy=1.0)


@pytest.fixture(scope="module")
def through(start_service, broken):
    return start_service(small=broken.url, idle_s=1.0, total_s=2.0, retries=0, stream_adequacy=0.0)


def events_of(reply):
    """Return the events of a stream that can be read, and whether it ended as usual."""
    found = [line[6:] for line in reply.body.splitlines() if line.startswith(b"data: ")]
    events = []
    for one in found:
        with contextlib.suppress(ValueError):
            events.append(json.loads(one))
    return events, found[-1] == b"[DONE]"


def said(events):
    choices = [one["choices"][0]["delta"] for one in events if one.get("choices")]
    return "".join(delta.get("content") or "" for delta in choices)


def assert_clear_error(error):
    assert set(error) == {"message", "type", "param", "code"}
    assert "tier 'small'" in error["message"] or "the upstream's answer" in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize("fault", [*WHOLE_FAULTS, "drip"])
def test_a_whole_answer_that_is_broken_is_replaced(held, fault):
    started = time.monotonic()
    reply = held.ask(f"Hello [raw={fault}]")
    assert time.monotonic() - started < BUDGET_S
    assert (reply.status, reply.json["router"]["tier"]) == (200, "large")
    first, second = held.recorded(reply.json["router"]["decision_id"]).attempts
    assert (first.tier, second.tier, second.error) == ("small", "large", None)
    assert first.error is not None


@pytest.mark.parametrize("fault", [*WHOLE_FAULTS, "drip"])
def test_where_nobody_stands_by_it_is_one_clear_error(held, fault):
    reply = held.ask(f"Hello [raw={fault}]", model="small")
    assert reply.status in (502, 503, 504)
    assert_clear_error(reply.json["error"])
    record = held.recorded(reply.headers["x-router-decision-id"])
    assert [attempt.tier for attempt in record.attempts] == ["small"]
    assert record.attempts[0].error is not None


@pytest.mark.parametrize("fault", [*STREAM_FAULTS, "drip"])
def test_a_held_stream_that_breaks_is_replaced(held, fault):
    reply = held.ask(f"Hello [raw={fault}]", stream=True)
    events, ended = events_of(reply)
    assert ended
    assert events[0]["router"]["tier"] == "large"
    assert said(events) == "The answer of maxi is 42."
    record = held.recorded(events[0]["router"]["decision_id"])
    assert [attempt.error is None for attempt in record.attempts] == [False, True]


@pytest.mark.parametrize("fault", [*STREAM_FAULTS, "drip"])
def test_a_stream_on_its_way_ends_in_one_clear_error(through, fault):
    reply = through.ask(f"Hello [raw={fault}]", stream=True)
    events, _ = events_of(reply)
    if "error" not in events[-1]:  # it broke before the first byte: the next tier answered
        assert fault in ("not-a-stream", "closes-at-once", "drip")
        assert said(events) == "The answer of maxi is 42."
        return
    # What a stream says goes through byte for byte, its own error too: it is not said twice.
    (error,) = [one["error"] for one in events if "error" in one]
    if fault == "says-error":
        assert error == {"message": "overloaded"}
    else:
        assert_clear_error(error)
    assert said(events) in ("", "The answer ")
    (attempt,) = through.recorded(reply.headers["x-router-decision-id"]).attempts
    assert attempt.error is not None
    assert attempt.cost_usd > 0, "what was worked on is on the bill"


def test_nobody_there_is_replaced_or_a_clear_error(start_service):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    service = start_service(small=url, retries=1)
    assert service.ask("Hello").json["router"]["tier"] == "large"
    events, _ = events_of(service.ask("Hello", stream=True))
    assert said(events) == "The answer of maxi is 42."
    reply = service.ask("Hello", model="small")
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_connect")
    assert_clear_error(reply.json["error"])


def test_none_of_it_was_a_surprise(held, through):
    for service in (held, through):
        log = service.process.log.read_text()
        assert "Traceback" not in log
        assert "unexpected_error" not in log
        assert service.ask("Hello").json["router"]["tier"] == "small"
