"""The yardstick of the proxy: FastAPI and aiohttp, and nothing but passing on what comes, whole or streamed.

    python benchmarks/speed/minimal_proxy.py --upstream http://127.0.0.1:9000/after-0

It runs under uvicorn with uvloop and httptools, without an access log, as `router-ml serve` does, and says where.
"""

# No `from __future__ import annotations`: FastAPI reads the endpoint's annotations.
import argparse
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

__all__ = ["main", "proxy"]


def proxy(upstream: str) -> FastAPI:
    """Return the application."""
    state: dict[str, aiohttp.ClientSession] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            state["session"] = session
            yield

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    url = f"{upstream}/v1/chat/completions"
    headers = {"content-type": "application/json"}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.body()
        if not orjson.loads(body).get("stream"):
            async with state["session"].post(url, data=body, headers=headers) as answer:
                return Response(await answer.read(), answer.status, media_type="application/json")
        opened = await state["session"].post(url, data=body, headers=headers)
        return StreamingResponse(_chunks(opened), opened.status, media_type="text/event-stream")

    return app


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk


def main() -> int:
    parser = argparse.ArgumentParser(description="Pass chat completions on, on a free port of the loopback.")
    parser.add_argument("--upstream", required=True, help="base URL, without /v1")
    args = parser.parse_args()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    options: dict[str, Any] = {"loop": "uvloop", "http": "httptools", "ws": "none", "access_log": False}
    server = uvicorn.Server(uvicorn.Config(proxy(args.upstream), log_level="warning", **options))
    listener.listen(2048)
    sys.stderr.write(f"listening on http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stderr.flush()
    server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
