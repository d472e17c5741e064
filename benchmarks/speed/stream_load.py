"""A client process that opens many streams at the same moment and reads them to their end.

    python benchmarks/speed/stream_load.py --url http://127.0.0.1:8080/v1/chat/completions --body body.json

It prints one JSON object: time to the first chunk and delay of a chunk (from its sending by the upstream to its arrival
here), p50 and p99 in milliseconds, chunks, and streams that failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from pathlib import Path

import aiohttp
import numpy as np
import uvloop

__all__ = ["main"]

_SENT = re.compile(rb'"sent": ?([0-9.]+)')


class _Tally:
    def __init__(self) -> None:
        self.first: list[float] = []
        self.delays: list[float] = []
        self.failed = 0


async def _read(session: aiohttp.ClientSession, url: str, body: bytes, tally: _Tally) -> None:
    started, first, ended = time.monotonic(), None, False
    try:
        async with session.post(url, data=body) as response:
            async for piece in response.content.iter_any():
                now = time.monotonic()
                for sent in _SENT.findall(piece):
                    first = first or now - started
                    tally.delays.append(now - float(sent))
                ended = ended or b"[DONE]" in piece
    except aiohttp.ClientError:
        ended = False
    if first is None or not ended:
        tally.failed += 1
    else:
        tally.first.append(first)


async def _load(url: str, body: bytes, streams: int) -> dict[str, float]:
    tally = _Tally()
    headers = {"content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        await asyncio.gather(*(_read(session, url, body, tally) for _ in range(streams)))
    ttft = np.quantile(tally.first or [np.nan], (0.5, 0.99)) * 1e3
    delay = np.quantile(tally.delays or [np.nan], (0.5, 0.99)) * 1e3
    return {
        "ttft_p50_ms": float(ttft[0]),
        "ttft_p99_ms": float(ttft[1]),
        "delay_p50_ms": float(delay[0]),
        "delay_p99_ms": float(delay[1]),
        "chunks": len(tally.delays),
        "failed": tally.failed,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Open many streams at once and print one JSON object.")
    parser.add_argument("--url", required=True, help="where to POST")
    parser.add_argument("--body", type=Path, required=True, help="file with the body, which asks for a stream")
    parser.add_argument("--streams", type=int, default=50, help="streams at once (default: 50)")
    args = parser.parse_args()
    print(json.dumps(uvloop.run(_load(args.url, args.body.read_bytes(), args.streams))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
