"""A client process that asks one endpoint the same thing as fast as it is answered, and says how long that took.

    python benchmarks/speed/load.py --url http://127.0.0.1:8080/v1/route --body body.json --concurrency 64 --seconds 2

It prints one JSON object: answers of the counted time, seconds, p50 and p99 in milliseconds, errors, and all answers
(those of the warm-up too).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp
import numpy as np
import uvloop

__all__ = ["main"]

_TIMEOUT_S = 20.0


class _Tally:
    def __init__(self) -> None:
        self.taken: list[float] = []
        self.errors = 0
        self.total = 0
        self.counting = False
        self.stop = False


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes, tally: _Tally) -> None:
    while not tally.stop:
        started = time.perf_counter()
        async with session.post(url, data=body) as response:
            await response.read()
            good = response.status == 200
        tally.total += 1
        tally.errors += not good
        if tally.counting:
            tally.taken.append(time.perf_counter() - started)


async def _load(url: str, body: bytes, concurrency: int, warm_s: float, seconds: float) -> dict[str, float]:
    tally = _Tally()
    headers = {"content-type": "application/json"}
    connector = aiohttp.TCPConnector(limit=concurrency)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        asking = [asyncio.create_task(_ask(session, url, body, tally)) for _ in range(concurrency)]
        await asyncio.sleep(warm_s)
        started, tally.counting = time.perf_counter(), True
        await asyncio.sleep(seconds)
        tally.counting, elapsed = False, time.perf_counter() - started
        tally.stop = True
        await asyncio.gather(*asking)
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
    parser.add_argument("--warm", type=float, default=0.3, help="seconds that are not counted (default: 0.3)")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds that are counted (default: 1.5)")
    args = parser.parse_args()
    loaded = uvloop.run(_load(args.url, args.body.read_bytes(), args.concurrency, args.warm, args.seconds))
    print(json.dumps(loaded))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
