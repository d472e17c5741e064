"""A client process that asks one endpoint the same thing as fast as it is answered, and says how long that took.

    python benchmarks/speed/load.py --url http://127.0.0.1:8080/v1/route --body body.json --concurrency 64 --seconds 2

It prints one JSON object: answers of the counted time, seconds, p50 and p99 in milliseconds, errors, and all answers
(those of the warm-up too).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop

__all__ = ["main"]

_TIMEOUT_S = 20.0
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEAD_END, _LAST_CHUNK = b"\r\n\r\n", b"0\r\n\r\n"


class _Tally:
    def __init__(self) -> None:
        self.taken: list[float] = []
        self.errors = 0
        self.total = 0
        self.counting = False
        self.stop = False


class _Asker(asyncio.Protocol):
    """One connection that asks again as soon as it is answered.

    A client that shares the cores with the server must cost less than it: no library, no objects per request.
    """

    def __init__(self, request: bytes, tally: _Tally) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._tally = tally
        self._buffer = b""
        self._missing: int | None = None
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._missing is None:
            end = self._buffer.find(_HEAD_END)
            if end < 0:
                return
            length = _LENGTH.search(self._buffer, 0, end)
            self._missing = end + 4 + int(length[1]) if length else -1
        whole = len(self._buffer) >= self._missing if self._missing >= 0 else self._buffer.endswith(_LAST_CHUNK)
        if whole:
            self._answered(good=self._buffer[9:12] == b"200")

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self._tally.errors += 1
            self.done.set_result(None)

    def _ask(self) -> None:
        self._buffer, self._missing, self._started = b"", None, time.perf_counter()
        self._transport.write(self._request)

    def _answered(self, *, good: bool) -> None:
        tally = self._tally
        tally.total += 1
        tally.errors += not good
        if tally.counting:
            tally.taken.append(time.perf_counter() - self._started)
        if tally.stop:
            self.done.set_result(None)
            self._transport.close()
        else:
            self._ask()


async def _load(
    url: str, body: bytes, concurrency: int, warm_s: float, seconds: float, key: str | None
) -> dict[str, float]:
    tally, at = _Tally(), urlsplit(url)
    head = [f"POST {at.path} HTTP/1.1", f"host: {at.netloc}", "content-type: application/json"]
    head += [f"content-length: {len(body)}", *([f"authorization: Bearer {key}"] if key else [])]
    request = "\r\n".join(head).encode() + _HEAD_END + body
    loop = asyncio.get_running_loop()
    asking = [
        (await loop.create_connection(lambda: _Asker(request, tally), at.hostname, at.port))[1]
        for _ in range(concurrency)
    ]
    await asyncio.sleep(warm_s)
    started, tally.counting = time.perf_counter(), True
    await asyncio.sleep(seconds)
    tally.counting, elapsed = False, time.perf_counter() - started
    tally.stop = True
    await asyncio.wait([one.done for one in asking], timeout=_TIMEOUT_S)
    if not tally.taken:
        sys.stderr.write(f"{url}: no answer within {seconds:g} s\n")
        raise SystemExit(1)
    p50, p99 = np.quantile(tally.taken, (0.5, 0.99)) * 1e3
    counted = len(tally.taken)
    return {
        "counted": counted,
        "seconds": elapsed,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "errors": tally.errors,
        "total": tally.total,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Load one endpoint and print one JSON object.")
    parser.add_argument("--url", required=True, help="where to POST")
    parser.add_argument("--body", type=Path, required=True, help="file with the body")
    parser.add_argument("--concurrency", type=int, default=1, help="requests under way at once (default: 1)")
    # A busy server accepts one connection in each turn of its loop: it takes a while until all are served alike.
    parser.add_argument("--warm", type=float, default=1.0, help="seconds that are not counted (default: 1)")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds that are counted (default: 1.5)")
    parser.add_argument("--key", help="sent as a bearer token")
    args = parser.parse_args()
    body = args.body.read_bytes()
    loaded = uvloop.run(_load(args.url, body, args.concurrency, args.warm, args.seconds, args.key))
    print(json.dumps(loaded))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
