"""An upstream below HTTP: `[raw=NAME]` in a prompt says which bytes come back, and how the connection ends."""

import gzip
import json
import re
import socket
import struct
import threading
import time

CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mini"}
WHOLE = {"id": "c", "object": "chat.completion", "created": 1, "model": "mini"}


def message(text="The answer is 42."):
    return {
        **WHOLE,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    }


def event(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({**CHUNK, "choices": [choice]}).encode() + b"\n\n"


def head(kind="application/json", status="200 OK", **fields):
    fields = {"content-type": kind, **{name.replace("_", "-"): value for name, value in fields.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


def with_length(body, **fields):
    return head(content_length=len(body), **fields) + body


def in_chunks(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


OPENING = event({"role": "assistant", "content": ""}) + event({"content": "The answer "})
REST = event({"content": "is 42."}) + event({}, "stop") + b"data: [DONE]\n\n"
GOOD = json.dumps(message()).encode()
SSE = "text/event-stream"
STREAM = head(SSE, transfer_encoding="chunked")

# What is answered to a request for a whole answer.
WHOLE_FAULTS = {
    "silence": b"",
    "noise": b"\x16\x03\x01 this is not HTTP\r\n\r\n",
    "half-head": b"HTTP/1.1 200 OK\r\ncontent-type: appl",
    "half-body": head(content_length=len(GOOD)) + GOOD[: len(GOOD) // 2],
    "half-chunk": head(transfer_encoding="chunked") + b"fff\r\n" + GOOD[:40],
    "bad-chunk": head(transfer_encoding="chunked") + b"zz\r\n" + GOOD,
    "long-head": b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "empty": with_length(b""),
    "cut-json": with_length(GOOD[:-10]),
    "bad-utf8": with_length(GOOD.replace(b"42", b"\xff\xfe")),
    "a-list": with_length(b"[" + GOOD + b"]"),
    "deep": with_length(b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "bad-gzip": with_length(gzip.compress(GOOD)[:-9] + b"\x00" * 9, content_encoding="gzip"),
    "odd-status": head(status="799 Odd", content_length=0),
    "page": with_length(b"<h1>Sorry</h1>", kind="text/html", status="502 Bad Gateway"),
    "odd-error": with_length(b'{"error": "overloaded"}', status="503 Service Unavailable"),
    "no-choices": with_length(b'{"object": "chat.completion", "choices": null}'),
    "odd-choices": with_length(b'{"object": "chat.completion", "choices": [[], 7], "usage": "many"}'),
}
# What is answered to a request for a stream; each is an opening, then what spoils it.
STREAM_FAULTS = {
    "not-a-stream": with_length(b"<h1>Sorry</h1>", kind="text/html"),
    "closes-at-once": STREAM,
    "resets": STREAM + in_chunks(OPENING),
    "half-chunk": STREAM + in_chunks(OPENING) + b"ff\r\ndata: {",
    "half-event": STREAM + in_chunks(OPENING, b'data: {"id": "c", "cho') + b"0\r\n\r\n",
    "stops-early": STREAM + in_chunks(OPENING) + b"0\r\n\r\n",
    "bad-json": STREAM + in_chunks(OPENING, b'data: {"choices": [{,]}\n\n') + b"0\r\n\r\n",
    "bad-utf8": STREAM + in_chunks(OPENING, b'data: {"choices": "\xff\xfe"}\n\n') + b"0\r\n\r\n",
    "says-error": STREAM + in_chunks(OPENING, b'data: {"error": {"message": "overloaded"}}\n\n') + b"0\r\n\r\n",
}
# Those whose connection is reset in place of closed.
_RESET = frozenset({"resets", "silence", "half-body"})


class BrokenUpstream:
    """Answers every connection in a thread of its own, once."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._closed = False
        self.calls = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._closed = True
        self._listener.close()

    @property
    def url(self):
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def _accept(self):
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        connection.settimeout(20)
        try:
            with connection:
                body = self._body(connection)
                self.calls += 1
                name = (re.findall(rb"\[raw=([\w-]+)\]", body) or [b"ok"])[-1].decode()
                self._play(connection, name, streams=bool(json.loads(body).get("stream")))
        except (OSError, ValueError):
            pass

    def _body(self, connection):
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += connection.recv(65536) or b"\r\n\r\n"
        found = re.search(rb"content-length: (\d+)", raw, re.IGNORECASE)
        length = int(found[1]) if found else 0
        body = raw.split(b"\r\n\r\n", 1)[1]
        while len(body) < length and (piece := connection.recv(65536)):
            body += piece
        return body

    def _play(self, connection, name, *, streams):
        if name == "drip":  # always alive, never done
            connection.sendall(STREAM if streams else head(transfer_encoding="chunked"))
            for _ in range(200):
                connection.sendall(in_chunks(b": still here\n\n" if streams else b" "))
                time.sleep(0.1)
            return
        faults = STREAM_FAULTS if streams else WHOLE_FAULTS
        good = STREAM + in_chunks(OPENING, REST) + b"0\r\n\r\n" if streams else with_length(GOOD)
        connection.sendall(faults.get(name, good))
        time.sleep(0.05)  # the bytes arrive before the end does
        if name in _RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
