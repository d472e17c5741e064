"""Clients that hang up at any moment: the upstream call is cancelled, billed and recorded, and nothing stays open."""

import json
import socket
import struct
import time
import uuid
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from router_ml.store import open_store


@pytest.fixture(scope="module")
def held(start_service):
    return start_service(stream_adequacy=1.0)


@pytest.fixture(scope="module")
def through(start_service):
    return start_service(stream_adequacy=0.0)


def connect(service):
    where = urlsplit(service.url)
    return closing(socket.create_connection((where.hostname, where.port), timeout=20))


def request(prompt, session, **fields):
    body = {"messages": [{"role": "user", "content": prompt}], "router": {"session_id": session}, **fields}
    raw = json.dumps(body).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (len(raw), raw)


def hang_up(connection, how):
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def record_of(service, session):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open_store(f"sqlite:///{service.home / 'events.db'}") as store:
            found = [one for one in store.scan() if one.session_id == session]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("never recorded")


def wait_until_cancelled(upstream):
    assert upstream.cancelled(), "the upstream call goes on"


def heard(connection, part):
    got = b""
    while part not in got:
        piece = connection.recv(65536)
        assert piece, got
        got += piece


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    ("service_name", "streams", "behaviour", "wait_for"),
    [
        ("held", False, "hang", None),
        ("held", True, "hang", None),
        ("held", True, "stall", None),
        ("through", True, "hang", None),
        ("through", True, "stall", b"data: "),
        ("through", True, "paced", b"The "),
    ],
    ids=[
        "whole, before",
        "held, before",
        "held, while it is held",
        "through, before",
        "through, in the middle",
        "busy",
    ],
)
def test_who_hangs_up_early_ends_the_call_which_is_billed(
    request_of, upstream, how, service_name, streams, behaviour, wait_for
):
    service, session = request_of(service_name), uuid.uuid4().hex
    upstream.calls()
    with connect(service) as connection:
        connection.sendall(request(f"Hello [mini={behaviour}]", session, stream=streams))
        if wait_for:
            heard(connection, wait_for)
        else:
            time.sleep(0.2)
        hang_up(connection, how)
    wait_until_cancelled(upstream)
    (attempt,) = record_of(service, session).attempts
    assert (attempt.tier, attempt.finish_reason, attempt.error) == ("small", "cancelled", "cancelled")
    assert attempt.cost_usd > 0


@pytest.fixture
def request_of(held, through):
    return {"held": held, "through": through}.__getitem__


def test_who_hangs_up_during_the_escalation_leaves_both_attempts_on_the_bill(held, upstream):
    session = uuid.uuid4().hex
    upstream.calls()
    with connect(held) as connection:
        connection.sendall(request("Hello [mini=idk] [maxi=hang]", session))
        time.sleep(0.5)
        hang_up(connection, "close")
    wait_until_cancelled(upstream)
    first, second = record_of(held, session).attempts
    assert (first.finish_reason, second.finish_reason) == ("stop", "cancelled")
    assert min(first.cost_usd, second.cost_usd) > 0


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("streams", [False, True])
def test_who_hangs_up_after_the_answer_changes_nothing(held, how, streams):
    session = uuid.uuid4().hex
    with connect(held) as connection:
        connection.sendall(request("Hello", session, stream=streams))
        heard(connection, b"[DONE]" if streams else b"odd_field")
        hang_up(connection, how)
    (attempt,) = record_of(held, session).attempts
    assert (attempt.finish_reason, attempt.error) == ("stop", None)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_who_hangs_up_while_sending_leaves_nothing(held, call, how):
    session = uuid.uuid4().hex
    with connect(held) as connection:
        connection.sendall(request("Hello", session)[:-5])
        time.sleep(0.05)
        hang_up(connection, how)
    assert held.ask("Hello").status == 200
    with open_store(f"sqlite:///{held.home / 'events.db'}") as store:
        assert [one for one in store.scan() if one.session_id == session] == []


def test_a_crowd_that_leaves_at_any_moment_leaves_nothing_open(through, upstream):
    before = through.ask("Hello").status, descriptors(through)
    for i in range(120):
        with connect(through) as connection:
            behaviour = ("hang", "paced", "ok", "stall")[i % 4]
            connection.sendall(request(f"Hello [mini={behaviour}]", f"crowd-{i}", stream=i % 3 > 0))
            time.sleep((i % 5) * 0.01)
            hang_up(connection, ("close", "reset")[i % 2])
    deadline = time.monotonic() + 10
    while descriptors(through) > before[1] + 10:
        assert time.monotonic() < deadline, f"{descriptors(through)} descriptors are open, {before[1]} were"
        time.sleep(0.1)
    upstream.calls()


def descriptors(service):
    folder = Path(f"/proc/{service.process.process.pid}/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_nothing_of_it_is_an_error_of_the_service(held, through):
    for service in (held, through):
        assert "Traceback" not in service.process.log.read_text()
        assert service.metric("router_ml_recorder_failed") == 0
