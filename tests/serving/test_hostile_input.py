"""Requests made to do harm: each gets an error or an answer, soon, and the service serves on."""

import http.client
import json
import socket
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ASK = b'{"messages": [{"role": "user", "content": "Hello"}]%s}'


def post(service, body, headers=(), chunk=0):
    """Send bytes as they are, chunked where `chunk` says so; return the status and the parsed answer."""
    with closing(http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)) as connection:
        connection.putrequest("POST", "/v1/chat/completions")
        for name, value in headers:
            connection.putheader(name, value)
        connection.putheader(*(("transfer-encoding", "chunked") if chunk else ("content-length", str(len(body)))))
        connection.endheaders()
        with suppress(ConnectionError):  # the answer may come before the end of the body
            if chunk:
                for start in range(0, len(body), chunk):
                    piece = body[start : start + chunk]
                    connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
                connection.send(b"0\r\n\r\n")
            else:
                connection.send(body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def resident_mb(service):
    """Return the memory of a service, where the system tells."""
    statm = Path(f"/proc/{service.process.process.pid}/statm")
    return int(statm.read_text().split()[1]) * 4096 / 1e6 if statm.exists() else 0.0


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (ASK % b', "temperature": NaN', "not valid JSON"),
        (ASK % b', "temperature": -Infinity', "not valid JSON"),
        (ASK % b', "temperature": 1e400', "not valid JSON"),
        (ASK % (b', "seed": 1' + b"0" * 400), "not valid JSON"),
        (ASK.replace(b"Hello", b"\xff\xfe") % b"", "not valid JSON"),
        (ASK.replace(b"Hello", b"\\ud800") % b"", "not valid JSON"),
        (ASK.replace(b"Hello", b"a\x00b") % b"", "not valid JSON"),
        (ASK % b"" + b"{}", "not valid JSON"),
        (b"\xef\xbb\xbf" + ASK % b"", "not valid JSON"),
        (ASK % b', "max_tokens": 1e3', "max_tokens must be an integer"),
        (ASK % (b', "x": [' + b"[[]]," * 60_000 + b"0]"), "more than 100000 objects and lists"),
        (ASK % (b', "x": [' + b"[[]]," * 300_000 + b"0]"), "more than 100000 objects and lists"),
    ],
)
def test_what_json_does_not_allow_is_refused(service, body, part):
    started = time.monotonic()
    status, answer = post(service, body)
    assert status == 400
    assert part in answer["error"]["message"]
    assert time.monotonic() - started < 5


def test_of_a_key_that_is_there_twice_router_and_upstream_see_the_same(service, upstream):
    upstream.calls()
    status, answer = post(service, b'{"model": "large", "model": "small", ' + ASK[1:] % b', "user": "a", "user": "b"')
    assert (status, answer["router"]["tier"]) == (200, "small")
    sent = upstream.calls()[0]
    assert sent.get("body", sent)["user"] == "b"


@pytest.mark.parametrize("chunk", [0, 1 << 16, 1 << 22])
def test_twenty_megabytes_are_refused_and_not_kept(service, chunk):
    body = ASK.replace(b"Hello", b"x" * 20_000_000) % b""
    before = resident_mb(service)
    for _ in range(3):
        status, answer = post(service, body, chunk=chunk)
        assert (status, answer["error"]["code"]) == (413, "request_too_large")
    assert resident_mb(service) - before < 60


def test_a_body_of_many_tiny_chunks_is_read(service):
    status, _ = post(service, ASK.replace(b"Hello", b"x" * 3000) % b"", chunk=1)
    assert status == 200


def test_many_keys_and_long_names_are_read(service):
    many = b"".join(b', "k%d": 0' % i for i in range(200_000))
    assert post(service, ASK % many)[0] == 200
    assert post(service, ASK % (b', "' + b"k" * 1_000_000 + b'": 0'))[0] == 200


def test_headers_of_a_megabyte_are_refused(service):
    where = urlsplit(service.url)
    with closing(socket.create_connection((where.hostname, where.port), timeout=10)) as connection:
        connection.sendall(b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\nx-a: ")
        with suppress(OSError):
            for _ in range(16):
                connection.sendall(b"a" * 65_536)
        said = b""
        with suppress(OSError):
            said = connection.recv(4096)
    assert not said or b"431" in said


@pytest.mark.parametrize("name", ["x-router-tenant", "x-session-id", "x-router-use-case", "x-router-feature"])
def test_odd_metadata_is_only_metadata(service, name):
    for value in (b"\xff\xfe", b"a" * 20_000, b"../../etc/passwd", b"{{7*7}}", b"' OR 1=1 --"):
        status, answer = post(service, ASK % b"", headers=[(name, value)])
        assert (status, "router" in answer) == (200, True)


def test_the_service_is_well_after_all_this(service, call):
    assert call(f"{service.url}/readyz").status == 200
    assert "Traceback" not in service.process.log.read_text()
