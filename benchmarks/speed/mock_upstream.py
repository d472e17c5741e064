"""A model endpoint that costs next to nothing: fixed answers after a fixed time, streams of chunks at a fixed pace.

    python benchmarks/speed/mock_upstream.py

The first part of the path says how: `/after-50/v1/chat/completions` answers after 50 ms, and streams its 200 chunks
20 ms apart whatever that part is. Every chunk carries the time at which it was sent, on the clock that all processes of
a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import sys
import time
from typing import cast

import uvloop

__all__ = ["CHUNKS", "GAP_S", "main"]

CHUNKS, GAP_S = 200, 0.02
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "A plain answer. " * 20}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 300, "completion_tokens": 80, "total_tokens": 380},
    }
).encode()
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_ANSWER), _ANSWER)
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_AFTER = re.compile(rb"^POST /after-(\d+)/")
_WANTS_STREAM = re.compile(rb'"stream": ?true')


class _Endpoint(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def connection_lost(self, _error: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < total:
                return
            body, self._buffer = self._buffer[end + 4 : total], self._buffer[total:]
            after = _AFTER.match(head)
            self._answer(int(after[1]) / 1e3 if after else 0.0, streamed=bool(_WANTS_STREAM.search(body)))

    def _answer(self, delay_s: float, *, streamed: bool) -> None:
        loop = asyncio.get_running_loop()
        if streamed:
            task = loop.create_task(self._stream())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif delay_s:
            loop.call_later(delay_s, self._transport.write, _WHOLE)
        else:
            self._transport.write(_WHOLE)

    async def _stream(self) -> None:
        self._transport.write(_STREAM)
        started = time.monotonic()
        for i in range(CHUNKS):
            last = i == CHUNKS - 1
            chunk = {
                "id": "chatcmpl-bench",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "bench",
                "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": "stop" if last else None}],
                "sent": time.monotonic(),
            }
            data = b"data: %s\n\n" % json.dumps(chunk).encode() + (b"data: [DONE]\n\n" if last else b"")
            self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))
            await asyncio.sleep(max(started + (i + 1) * GAP_S - time.monotonic(), 0.0))
        self._transport.write(b"0\r\n\r\n")


async def _serve(listener: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(_Endpoint, sock=listener, backlog=2048)
    sys.stderr.write(f"listening on http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stderr.flush()
    await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve fixed answers on a free port of the loopback.")
    parser.parse_args()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    uvloop.run(_serve(listener))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
