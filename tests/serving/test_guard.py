"""Below HTTP: what arrives too slowly or has a head without end is refused; everything else is left alone."""

import asyncio
import functools
import json
import socket
import threading
import time
from contextlib import closing

import pytest
import uvicorn

from router_ml_serving.guard import GuardedProtocol

RECEIVE_S = 0.6
HEAD = b"POST /p HTTP/1.1\r\nhost: x\r\n"


async def app(scope, receive, send):
    """Say how long the body was and how many headers there are; `/early` does not read it, `/slow` thinks first."""
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * RECEIVE_S)
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = json.dumps([size, len(scope["headers"])]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port():
    listener = socket.create_server(("127.0.0.1", 0))
    http = functools.partial(GuardedProtocol, receive_s=RECEIVE_S)
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
