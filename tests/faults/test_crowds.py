"""More connections than anybody needs: ten thousand that say nothing, and hundreds that never finish a sentence."""

import json
import resource
import socket
import struct
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CROWD = 10_000
# For everything else that a process has open.
SPARE = 200
ASK = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def room():
    """Let this process, and those that it starts, have as many descriptors as the system allows; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + SPARE if hard == resource.RLIM_INFINITY else min(CROWD + SPARE, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield min(CROWD, wanted - SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def service(room, start_service):
    return start_service(receive_s=3)


def connect(service, open_):
    where = urlsplit(service.url)
    one = open_.enter_context(socket.create_connection((where.hostname, where.port), timeout=20))
    # Ends with a reset: ten thousand ports that wait for stragglers would be missing in the next test.
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return one


def descriptors(service):
    folder = Path(f"/proc/{service.process.process.pid}/fd")
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def resident_mb(service):
    statm = Path(f"/proc/{service.process.process.pid}/statm")
    return int(statm.read_text().split()[1]) * 4096 / 1e6 if statm.exists() else 0.0


def answer_times_s(service, n=20):
    """Return how long each of several requests took, in order of length."""
    took = []
    for _ in range(n):
        started = time.monotonic()
        assert service.ask("Hello").status == 200
        took.append(time.monotonic() - started)
    return sorted(took)


def wait_for_room(service, before):
    deadline = time.monotonic() + 20
    while descriptors(service) > before + 20:
        assert time.monotonic() < deadline, f"{descriptors(service)} descriptors are open, {before} were"
        time.sleep(0.1)


def test_ten_thousand_idle_connections_hinder_nobody(service, room, record_property):
    record_property("idle connections", room)
    assert room >= 500, f"the system allows {room + SPARE} descriptors; raise `ulimit -n` to {CROWD + SPARE}"
    answer_times_s(service)
    before, mb = descriptors(service), resident_mb(service)
    with ExitStack() as open_:
        crowd = [connect(service, open_) for _ in range(room)]
        assert answer_times_s(service)[10] < 1.0
        if before:
            assert descriptors(service) >= before + room - 10
            assert resident_mb(service) - mb < room * 0.02, "more than 20 KB for each"
        for one in crowd[:: max(room // 100, 1)]:  # they are served, should they say something after all
            one.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"200 OK" in one.recv(4096)
    wait_for_room(service, before)


@pytest.mark.parametrize(
    "begun",
    [
        b"P",
        b"POST /v1/route HTTP/1.1\r\nx-a: b",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\n{",
    ],
    ids=["line", "head", "body"],
)
def test_hundreds_that_never_finish_are_refused_in_time_and_hinder_nobody(service, begun):
    before = descriptors(service)
    with ExitStack() as open_:
        slow = [connect(service, open_) for _ in range(300)]
        for one in slow:
            one.sendall(begun)
        assert answer_times_s(service, 5)[2] < 1.0
        said = slow[0].recv(4096)
        assert said.startswith(b"HTTP/1.1 408 ")
        assert json.loads(said.split(b"\r\n\r\n")[1])["error"]["code"] == "request_timeout"
        wait_for_room(service, before)


@pytest.mark.parametrize("field", [b"x-a: " + b"a" * 60_000 + b"\r\n", b"x-a: b\r\n" * 8000], ids=["long", "many"])
def test_floods_of_headers_are_refused_and_hinder_nobody(service, field):
    with ExitStack() as open_:
        flood = [connect(service, open_) for _ in range(20)]
        for one in flood:
            with suppress(OSError):
                one.sendall(b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\n")
                for _ in range(10):
                    one.sendall(field)
        assert answer_times_s(service, 5)[2] < 1.0
        for one in flood:
            said = b"-"
            with suppress(OSError):
                said = one.recv(4096)
            assert said in (b"", b"-") or b" 431 " in said.split(b"\r\n")[0]


def test_after_all_of_it_the_service_is_well(service):
    assert service.ask("Hello").json["router"]["tier"] == "small"
    log = service.process.log.read_text()
    assert "Traceback" not in log
    assert "unexpected_error" not in log
