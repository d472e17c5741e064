"""Answers that are far too long, or packed: an error of their tier, whatever the upstream says of them."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from aiohttp import web

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml_serving.settings import ServingSettings
from router_ml_serving.upstream import HttpUpstream

LIMIT = 100_000
SETTINGS = ServingSettings(max_answer_bytes=LIMIT, retries=0)
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * (2 * LIMIT)}}]}


@contextmanager
def serving(handler: Callable[[web.Request], object]) -> Iterator[Tier]:
    """Serve one handler in a thread of its own."""
    loop = asyncio.new_event_loop()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner.addresses[0][1]

    port = loop.run_until_complete(start())
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
    yield Tier(name="small", model="mini", base_url=f"http://127.0.0.1:{port}/v1", **price)
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


async def announced(_: web.Request) -> web.Response:
    return web.json_response(ANSWER)


async def unannounced(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json"})
    await response.prepare(request)
    for _ in range(20):
        await response.write(b" " * (LIMIT // 8))
    return response


async def packed(_: web.Request) -> web.Response:
    body = gzip.compress(json.dumps(ANSWER).encode())
    return web.Response(body=body, headers={"content-encoding": "gzip", "content-type": "application/json"})


async def for_ever(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    while True:
        await response.write(b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 5000 + b'"}}]}\n\n')


async def long_error(_: web.Request) -> web.Response:
    return web.Response(status=500, body=b"x" * 1_000_000)


async def complete(tier: Tier) -> None:
    upstream = HttpUpstream(SETTINGS, {})
    await upstream.start()
    try:
        await upstream.complete(tier, b"{}")
    finally:
        await upstream.close()


async def stream(tier: Tier) -> int:
    upstream, received = HttpUpstream(SETTINGS, {}), 0
    await upstream.start()
    try:
        async for chunk in upstream.stream(tier, b"{}"):
            received += len(chunk)
            assert received <= LIMIT
    finally:
        await upstream.close()
    return received


@pytest.mark.parametrize(
    ("handler", "says"),
    [(announced, "more than 100000 bytes"), (unannounced, "more than 100000 bytes"), (packed, "compressed")],
)
def test_an_answer_that_is_too_long_or_packed_is_an_error(handler: Callable[..., object], says: str) -> None:
    with serving(handler) as tier, pytest.raises(UpstreamError, match=says) as caught:
        asyncio.run(complete(tier))
    assert caught.value.kind == "protocol"


def test_a_stream_without_end_is_cut() -> None:
    with serving(for_ever) as tier, pytest.raises(UpstreamError, match="more than 100000 bytes"):
        asyncio.run(stream(tier))


def test_an_endless_error_is_no_message() -> None:
    with serving(long_error) as tier, pytest.raises(UpstreamError) as caught:
        asyncio.run(complete(tier))
    assert (caught.value.status, caught.value.body) == (500, b"")
