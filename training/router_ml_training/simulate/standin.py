"""A stand-in for the upstream models: a process that speaks OpenAI's wire format and answers from known outcomes.

    python -m router_ml_training.simulate.standin --outcomes workload.parquet --models gpt-4o-mini

It prints one line of JSON when it is ready: {"event": "ready", "url": "http://127.0.0.1:PORT/v1", ...}.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router_ml.errors import RouterError, UnknownName
from router_ml.registry import require
from router_ml_training.simulate.outcomes import load_outcomes
from router_ml_training.simulate.truth import KnownAnswer, Truth

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Standin", "create_standin", "main"]

_CREATED = 1_735_689_600  # a fixed time: the same request gets the same answer, to the byte
_CHUNK_CHARS = 120
_UNKNOWN = "This is a stand-in: it has no recorded answer to this request."
_FAILURES: Mapping[str, tuple[int, str, str]] = {
    "timeout": (504, "server_error", "The model took too long to answer."),
    "http_429": (429, "rate_limit_error", "Rate limit reached for this model."),
    "http_500": (500, "server_error", "The server had an error while processing the request."),
}


class Standin:
    """The endpoints of the stand-in.

    Args:
        truth: Known outcomes.
        models: The models that it serves.
        latency_s: Time that every answer takes.
    """

    def __init__(self, truth: Truth, models: Sequence[str], latency_s: float = 0.0) -> None:
        self._web = require("aiohttp.web", extra="serving", why="run a stand-in upstream")
        self._truth = truth
        self._models = tuple(models)
        self._latency_s = latency_s
        self._number = count(1)

    async def models(self, _: web.Request) -> web.Response:
        """`GET /v1/models`."""
        data = [
            {"id": m, "object": "model", "created": _CREATED, "owned_by": "router-ml-standin"} for m in self._models
        ]
        return self._json({"object": "list", "data": data})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`, streaming and not."""
        try:
            body = json.loads(await request.read())
        except ValueError:
            return self._error(400, "invalid_request_error", "The body is not valid JSON.")
        problem = _problem(body)
        if problem is not None:
            return self._error(400, "invalid_request_error", problem[0], param=problem[1])
        if body.get("model") not in self._models:
            message = f"The model '{body.get('model')}' does not exist or you do not have access to it."
            return self._error(404, "invalid_request_error", message, param="model", code="model_not_found")
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        answer = self._answer(body["model"], body["messages"])
        if answer.error is not None:
            status, kind, message = _FAILURES.get(answer.error, _FAILURES["http_500"])
            return self._error(status, kind, message, code=answer.error)
        id_ = f"chatcmpl-standin-{next(self._number)}"
        if body.get("stream"):
            return await self._stream(request, id_, body, answer)
        return self._json(_completion(id_, answer))

    def _answer(self, model: str, messages: Sequence[Mapping[str, Any]]) -> KnownAnswer:
        known = self._truth.find(messages)
        if known is not None:
            return known.answers[model]
        words = sum(len(str(message.get("content") or "")) for message in messages) // 4
        return KnownAnswer(model, 1.0, _UNKNOWN, words, len(_UNKNOWN) // 4, 0.0, "stop", None, None)

    async def _stream(
        self, request: web.Request, id_: str, body: Mapping[str, Any], answer: KnownAnswer
    ) -> web.StreamResponse:
        response: web.StreamResponse = self._web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        with contextlib.suppress(ConnectionResetError):  # clients may leave at any time
            for chunk in _chunks(id_, answer, with_usage=with_usage):
                await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        return response

    def _json(
        self, body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        response: web.Response = self._web.Response(
            body=json.dumps(body).encode(), status=status, headers=headers, content_type="application/json"
        )
        return response

    def _error(
        self, status: int, kind: str, message: str, *, param: str | None = None, code: str | None = None
    ) -> web.Response:
        headers = {"retry-after": "1"} if status == 429 else None
        return self._json({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)


def create_standin(truth: Truth, models: Sequence[str] | None = None, latency_s: float = 0.0) -> web.Application:
    """Return the application of a stand-in for these models (None: all that the table knows).

    Raises:
        UnknownName: When the table has no outcomes of a model.
        MissingExtra: When aiohttp is not installed.
    """
    for model in models or ():
        if model not in truth.models:
            raise UnknownName(f"no outcomes of the model '{model}'; the table has {', '.join(truth.models)}")
    aio = require("aiohttp.web", extra="serving", why="run a stand-in upstream")
    standin = Standin(truth, models or truth.models, latency_s)
    app: web.Application = aio.Application(client_max_size=64 * 1024**2)
    app.add_routes([aio.get("/v1/models", standin.models), aio.post("/v1/chat/completions", standin.chat)])
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a stand-in until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m router_ml_training.simulate.standin", description=__doc__)
    parser.add_argument("--outcomes", type=Path, required=True, help="Parquet table of known outcomes")
    parser.add_argument("--models", help="models to serve, separated by commas (default: all of the table)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="time that every answer takes")
    args = parser.parse_args(argv)
    models = args.models.split(",") if args.models else None
    try:
        truth = Truth(load_outcomes(args.outcomes))
        app = create_standin(truth, models, args.latency_ms / 1000)
    except RouterError as error:
        sys.stderr.write(f"standin: error: {error}\n")
        return error.exit_code
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(app, args.host, args.port, models or list(truth.models), len(truth)))
    return 0


async def _serve(app: web.Application, host: str, port: int, models: Sequence[str], n_prompts: int) -> None:
    aio = require("aiohttp.web", extra="serving", why="run a stand-in upstream")
    runner = aio.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await aio.TCPSite(runner, host, port).start()
    bound = runner.addresses[0][1]
    ready = {
        "event": "ready",
        "url": f"http://{host}:{bound}/v1",
        "port": bound,
        "models": models,
        "prompts": n_prompts,
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def _problem(body: Any) -> tuple[str, str | None] | None:
    if not isinstance(body, dict):
        return "The body must be a JSON object.", None
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        return "'messages' must be a list of at least one message.", "messages"
    return None


def _usage(answer: KnownAnswer) -> dict[str, int]:
    total = answer.input_tokens + answer.output_tokens
    return {"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens, "total_tokens": total}


def _completion(id_: str, answer: KnownAnswer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    head = {"id": id_, "object": "chat.completion", "created": _CREATED, "model": answer.model}
    return {**head, "choices": [choice], "usage": _usage(answer)}


def _chunks(id_: str, answer: KnownAnswer, *, with_usage: bool) -> Iterator[dict[str, Any]]:
    head: dict[str, Any] = {"id": id_, "object": "chat.completion.chunk", "created": _CREATED, "model": answer.model}
    if with_usage:
        head["usage"] = None

    def chunk(delta: Mapping[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]}

    yield chunk({"role": "assistant", "content": ""})
    for begin in range(0, len(answer.text), _CHUNK_CHARS):
        yield chunk({"content": answer.text[begin : begin + _CHUNK_CHARS]})
    yield chunk({}, answer.finish_reason)
    if with_usage:
        yield {**head, "choices": [], "usage": _usage(answer)}


if __name__ == "__main__":
    sys.exit(main())
