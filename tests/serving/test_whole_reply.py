"""Answers that are written at once read like those that go through uvicorn, and go through it where they must."""

import functools
import socket
import threading
from contextlib import closing

import pytest
import uvicorn

from router_ml_serving.front import JsonReply
from router_ml_serving.guard import GuardedProtocol
from router_ml_serving.logs import LogRequests
from router_ml_serving.whole_reply import written_whole

BODY = b'{"hello": "world"}'
HEADERS = ((b"x-ratelimit-limit-requests", b"60"),)
STATUS = 201
ways = []


async def app(scope, receive, send):
    """Answer at once on `/whole`, and in the usual way, behind something that looks at messages, on `/usual`."""
    message = await receive()
    headers = ((b"x-wrong", b"a\r\nx-smuggled: 1"),) if scope["path"].startswith("/wrong") else HEADERS
    assert message["type"] == "http.request"

    async def looked_at(message):
        await send(message)

    if scope["path"] == "/bare":
        ways.append(written_whole(send, STATUS, headers, BODY))
    else:
        await JsonReply(BODY, headers, STATUS)(scope, receive, looked_at if scope["path"] == "/usual" else send)


def serve(app, http):
    listener = socket.create_server(("127.0.0.1", 0))
    options = {"access_log": False, "log_config": None, "date_header": False, "server_header": False}
    config = uvicorn.Config(app, http=http, loop="uvloop", log_level="critical", lifespan="off", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    return server, thread, listener.getsockname()[1]


@pytest.fixture(params=["uvicorn's protocol", "ours"])
def port(request):
    ours = functools.partial(GuardedProtocol, receive_s=5.0, send_s=5.0)
    server, thread, port = serve(app, ours if request.param == "ours" else "httptools")
    yield port
    server.should_exit = True
    thread.join(10)


def post(path, *headers):
    lines = [f"POST {path} HTTP/1.1".encode(), b"host: x", b"content-length: 2", *headers]
    return b"\r\n".join([*lines, b"", b"{}"])


def told(port, *requests):
    """Return what the server says to requests on one connection, the last of which closes it."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(b"".join(requests))
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found


def parts(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, sorted(lines), body


def test_it_reads_like_the_usual_way(port):
    usual = told(port, post("/usual", b"connection: close"))
    whole = told(port, post("/whole", b"connection: close"))
    assert parts(whole) == parts(usual)
    assert parts(whole)[0] == b"HTTP/1.1 201 Created"
    assert BODY in whole


def test_a_connection_is_used_again_and_requests_in_one_packet_are_answered_in_order(port):
    found = told(port, post("/whole"), post("/usual"), post("/whole"), post("/whole", b"connection: close"))
    assert found.count(b"HTTP/1.1 201 Created") == found.count(BODY) == 4
    assert found.endswith(BODY)
    assert found.count(b"connection: close") == 1


def test_a_client_of_http_1_0_is_told_that_the_connection_ends(port):
    found = told(port, post("/whole").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b"connection: close\r\n" in found
    assert found.endswith(BODY)


def test_the_server_says_whether_it_took_it(port):
    ways.clear()
    assert BODY in told(port, post("/bare", b"connection: close"))
    assert ways == [True]


def test_a_header_that_would_end_early_is_left_to_uvicorn_which_ends_the_connection(port):
    found = told(port, post("/wrong", b"connection: close"))
    assert found == b""


def test_what_looks_at_messages_on_their_way_still_sees_them(caplog):
    server, thread, port = serve(LogRequests(app), "httptools")
    try:
        with caplog.at_level("INFO", logger="router_ml_serving.logs"):
            assert BODY in told(port, post("/whole", b"connection: close"))
    finally:
        server.should_exit = True
        thread.join(10)
    (record,) = [one for one in caplog.records if one.message == "request"]
    assert record.status == STATUS


async def _nowhere(message):
    raise AssertionError(message)


def test_without_a_server_nothing_is_written():
    assert written_whole(_nowhere, 200, (), BODY) is False
