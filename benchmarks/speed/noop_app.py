"""The yardstick of the service: a FastAPI endpoint that takes and gives pydantic models and does nothing between.

    python benchmarks/speed/noop_app.py

It runs under uvicorn with uvloop and httptools, without an access log, as `router-ml serve` does, and says where.
"""

# No `from __future__ import annotations`: FastAPI reads the endpoint's annotations.
import argparse
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

__all__ = ["app", "main"]


class Message(BaseModel):
    """One chat message."""

    role: str
    content: str


class ChatBody(BaseModel):
    """A chat body with the fields that the benchmark sends."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message]
    max_tokens: int | None = None


class Answer(BaseModel):
    """A fixed answer of a few fields."""

    decision_id: str
    tier: str
    model: str
    adequacy: dict[str, float]


app = FastAPI(openapi_url=None)


@app.post("/v1/route")
async def route(body: ChatBody) -> Answer:
    """Validate, and answer always the same."""
    return Answer(decision_id="none", tier="small", model=body.model, adequacy={"small": 0.5, "large": 0.9})


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve the no-op endpoint on a free port of the loopback.")
    parser.parse_args()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    options: dict[str, Any] = {"loop": "uvloop", "http": "httptools", "ws": "none", "access_log": False}
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", **options))
    listener.listen(2048)
    sys.stderr.write(f"listening on http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stderr.flush()
    server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
