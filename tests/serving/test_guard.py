"""Below HTTP: what arrives too slowly or has a head without end is refused; everything else is left alone."""

import asyncio
import functools
import gc
import json
import socket
import threading
import time
import weakref
from contextlib import closing

import pytest
import uvicorn

from router_ml_serving.guard import GuardedProtocol

RECEIVE_S = 0.6
SEND_S = 0.5
HEAD = b"POST /p HTTP/1.1\r\nhost: x\r\n"


async def app(scope, receive, send):
    """Say how long the body was and how many headers there are.

    `/early` does not read it, `/slow` thinks first, `/halting` between head and body, `/endless` never stops to talk,
    `/large` says eight megabytes.
    """
    answered.append(weakref.ref(receive.__self__))
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * RECEIVE_S)
    if scope["path"] in ("/endless", "/large"):
        await talk(receive, send, endless=scope["path"] == "/endless")
        return
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = json.dumps([size, len(scope["headers"])]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    if scope["path"] == "/halting":
        await asyncio.sleep(0.2)
    await send({"type": "http.response.body", "body": body})


answered = []
ended = threading.Event()
LARGE = 8_000_000


async def talk(receive, send, *, endless):
    """Send without end until the client is gone, or much at once and close the connection."""
    headers = [] if endless else [(b"content-length", b"%d" % LARGE), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if not endless:
        await send({"type": "http.response.body", "body": b"x" * LARGE})
        return

    async def watch():
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    watcher = asyncio.ensure_future(watch())
    while not watcher.done():
        await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def port():
    listener = socket.create_server(("127.0.0.1", 0))
    http = functools.partial(GuardedProtocol, receive_s=RECEIVE_S, send_s=SEND_S)
    config = uvicorn.Config(app, http=http, loop="uvloop", log_level="critical", lifespan="off", timeout_keep_alive=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def line(port):
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        yield connection


def heard(connection):
    """Return everything the server says until it closes the connection."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def answer(connection):
    """Return the status and the body of one response."""
    file = connection.makefile("rb")
    status = int(file.readline().split()[1])
    length = 0
    while (header := file.readline()) != b"\r\n":
        if header.lower().startswith(b"content-length:"):
            length = int(header.split(b":")[1])
    return status, json.loads(file.read(length))


def test_a_usual_request_is_left_alone_and_the_connection_stays(line):
    for _ in range(3):
        line.sendall(HEAD + b"content-length: 5\r\n\r\nhello")
        assert answer(line) == (200, [5, 2])
        time.sleep(RECEIVE_S / 2)


def test_a_request_that_was_answered_is_gone_without_a_garbage_collection(line):
    gc.disable()
    try:
        answered.clear()
        for _ in range(3):
            line.sendall(HEAD + b"content-length: 5\r\n\r\nhello")
            answer(line)
        assert answered[0]() is None
    finally:
        gc.enable()


def test_the_head_of_an_answer_goes_out_with_its_body(line):
    line.sendall(HEAD.replace(b"/p", b"/halting") + b"content-length: 2\r\n\r\nhi")
    assert line.recv(65536).endswith(b"\r\n\r\n[2, 2]")


def test_an_answer_without_a_body_goes_out_too_and_the_next_one_behind_it(line):
    line.sendall(HEAD.replace(b"POST", b"HEAD") + b"\r\n" + HEAD + b"content-length: 2\r\n\r\nhi")
    said = b""
    while not said.endswith(b"[2, 2]"):
        said += line.recv(65536)
    assert said.count(b"HTTP/1.1 200 OK") == 2


def test_who_asks_whether_to_go_on_is_told_so_before_the_answer(line):
    line.sendall(HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert line.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.sendall(b"hi")
    assert line.recv(65536).endswith(b"[2, 3]")


def test_a_large_body_in_many_packets_is_left_alone(line):
    line.sendall(HEAD + b"content-length: 5000000\r\n\r\n" + b"x" * 5_000_000)
    assert answer(line) == (200, [5_000_000, 2])
    time.sleep(1.5 * RECEIVE_S)
    line.sendall(HEAD + b"content-length: 1\r\n\r\nx")
    assert answer(line) == (200, [1, 2])


@pytest.mark.parametrize(
    "start",
    [b"P", HEAD, HEAD + b"content-length: 10\r\n\r\n", HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n"],
)
def test_a_request_that_never_ends_is_refused_in_time(line, start):
    started = time.monotonic()
    line.sendall(start)
    status, body = answer(line)
    assert (status, body["error"]["code"]) == (408, "request_timeout")
    assert heard(line) == b""
    assert RECEIVE_S * 0.8 < time.monotonic() - started < RECEIVE_S + 3


def test_drops_now_and_then_buy_no_time(line):
    line.sendall(HEAD + b"content-length: 1000\r\n\r\n")
    started = time.monotonic()
    while time.monotonic() - started < 10 and is_open(line):
        time.sleep(RECEIVE_S / 5)
    assert time.monotonic() - started < RECEIVE_S + 3


def is_open(connection):
    """Send one byte; say whether that went well."""
    try:
        connection.sendall(b"x")
    except OSError:
        return False
    return True


def test_a_connection_on_which_nothing_is_said_ends(line):
    started = time.monotonic()
    assert heard(line) == b""
    assert time.monotonic() - started < 6


@pytest.mark.parametrize("piece", [b"x-a: " + b"a" * 100_000, b"x-a: b\r\n" * 20_000])
def test_headers_without_end_are_refused(line, piece):
    line.sendall(HEAD)
    said = b""
    try:
        for _ in range(50):
            line.sendall(piece)
        said = heard(line)
    except OSError:
        said = heard(line)
    # What was written to a closed connection may take the answer away with it.
    assert said == b"" or b" 431 " in said.split(b"\r\n")[0]


def test_headers_of_a_few_kilobytes_pass(line):
    line.sendall(HEAD)
    time.sleep(0.05)
    line.sendall(b"x-a: " + b"a" * 30_000 + b"\r\ncontent-length: 0\r\n\r\n")
    assert answer(line) == (200, [0, 3])


def test_a_body_whose_answer_came_early_is_waited_for_and_ends_nothing(line):
    line.sendall(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
    assert answer(line)[0] == 200
    line.sendall(b"cd")
    time.sleep(1.5 * RECEIVE_S)
    line.sendall(HEAD + b"content-length: 1\r\n\r\nx")
    assert answer(line) == (200, [1, 2])


def test_a_body_that_never_comes_after_an_early_answer_ends_the_connection_without_a_word(line):
    line.sendall(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
    assert answer(line)[0] == 200
    assert heard(line) == b""


@pytest.mark.parametrize("begun", [HEAD, HEAD + b"content-length: 3\r\n\r\na"])
def test_a_request_begun_during_a_long_answer_does_not_spoil_it(line, begun):
    line.sendall(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    time.sleep(0.05)
    line.sendall(begun)
    assert answer(line) == (200, [0, 2])


def test_fields_behind_a_chunked_body_are_no_headers(line):
    line.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    time.sleep(0.05)
    line.sendall(b"0\r\nx-router-tenant: other\r\n\r\n")
    assert answer(line) == (200, [1, 2])


def test_a_head_in_two_packets_counts_without_the_body_behind_it(line):
    line.sendall(HEAD)
    time.sleep(0.05)
    line.sendall(b"content-length: 200000\r\n\r\n" + b"x" * 200_000)
    assert answer(line) == (200, [200_000, 2])


@pytest.mark.parametrize("size", [40_000, 60_000])
def test_a_head_is_as_long_as_all_of_its_fields(line, size):
    for piece in (HEAD + b"x-a: " + b"a" * size, b"\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000):
        line.sendall(piece)
        time.sleep(0.05)
    assert answer(line) == (200, [100_000, 3])


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_head_that_came_to_its_end_may_still_be_too_long(line, pieces):
    head = HEAD + b"x-a: " + b"a" * 40_000 + b"\r\nx-b: " + b"b" * 40_000 + b"\r\n\r\n"
    for start in range(0, len(head), len(head) // pieces):
        line.sendall(head[start : start + len(head) // pieces])
        time.sleep(0.05)
    said = heard(line)
    assert said == b"" or b" 431 " in said.split(b"\r\n")[0]


def test_fields_without_end_behind_a_chunked_body_are_refused(line):
    line.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-a: ")
    said = b""
    try:
        for _ in range(20):
            line.sendall(b"a" * 50_000)
    except OSError:
        said = b" 431 "
    said = said or heard(line)
    assert said == b"" or b" 431 " in said


def test_pipelined_requests_are_answered_in_order_wherever_packets_end(line):
    ask = HEAD + b"content-length: 30000\r\n\r\n" + b"x" * 30_000
    stream = ask * 6
    for start in range(0, len(stream), 50_001):
        line.sendall(stream[start : start + 50_001])
        time.sleep(0.02)
    file = [answer_of(line) for _ in range(6)]
    assert file == [(200, [30_000, 2])] * 6


def answer_of(connection):
    """As `answer`, but reads no further than its end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return int(head.split()[1]), json.loads(connection.recv(length, socket.MSG_WAITALL))


def test_sixteen_may_wait_for_their_turn_and_no_more(port):
    ask = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as patient:
        patient.sendall(ask + b"GET /p HTTP/1.1\r\nhost: x\r\n\r\n" * 16)
        assert [answer_of(patient) for _ in range(17)] == [(200, [0, 1])] * 17
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as greedy:
        started = time.monotonic()
        greedy.sendall(ask * 1000)
        assert heard(greedy) == b""
        assert time.monotonic() - started < RECEIVE_S


def deaf(port, said):
    """Return a connection with a small buffer that says something and never reads."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.settimeout(10)
    found.connect(("127.0.0.1", port))
    found.sendall(said)
    return found


def is_cut(connection):
    """Say whether the other end lets go, without reading what it said."""
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        try:
            connection.sendall(b"")
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return True
            connection.send(b"\r\n")
        except OSError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("behind", [b"", b"GET /p HTTP/1.1\r\nhost: x\r\n\r\n"], ids=["alone", "with one behind"])
def test_a_client_that_reads_nothing_of_a_stream_is_cut_off_and_its_work_ends(port, behind):
    ended.clear()
    with closing(deaf(port, b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n" + behind)) as line:
        assert ended.wait(SEND_S + 4)
        assert is_cut(line)


def test_a_client_that_reads_nothing_before_the_connection_closes_is_cut_off(port):
    with closing(deaf(port, b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")) as line:
        started = time.monotonic()
        assert is_cut(line)
        assert time.monotonic() - started > SEND_S * 0.5


def test_a_client_that_reads_slowly_gets_everything(port):
    with closing(deaf(port, b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")) as line:
        got, started = 0, time.monotonic()
        while piece := line.recv(400_000):
            got += len(piece)
            if time.monotonic() - started < 3 * SEND_S:
                time.sleep(SEND_S / 5)
    assert got > LARGE


@pytest.mark.parametrize(
    "said", [b"\x16\x03\x01\x02\x00\r\n\r\n", HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n"]
)
def test_what_is_no_http_is_answered_as_every_error_is(line, said):
    line.sendall(said)
    status, body = answer(line)
    assert (status, body["error"]["code"], body["error"]["type"]) == (400, "invalid_http", "invalid_request_error")
    assert heard(line) == b""


def test_empty_lines_hold_no_connection(line):
    line.sendall(b"\r\n")
    started = time.monotonic()
    assert heard(line) == b""
    assert time.monotonic() - started < 6
