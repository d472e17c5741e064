"""A stand-in for model endpoints: OpenAI's wire format, with faults on demand.

A marker `[MODEL=BEHAVIOUR]` in the last message scripts one model; without one it answers well. `GET /calls` lists
what arrived, and which calls the caller gave up.
"""

import asyncio
import json
import re
import sys

from aiohttp import web

IDLE = "I don't know."
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
}
# What a judge says of an answer.
VERDICTS = {"adequate": '{"adequate": true, "score": 0.9}', "inadequate": '{"adequate": false, "reason": "wrong"}'}
DELAYS_S = {"slow": 1.0, "hang": 60.0}
STATUSES = {"400", "401", "403", "404", "429", "500", "501", "503", "529"}
# What comes after the status says when to come again: "500-silent", "429-late".
HEADERS = {
    "": {"retry-after": "7"},
    "silent": {},
    "soon": {"retry-after": "0"},
    "ms": {"retry-after-ms": "20"},
    "late": {"retry-after": "3600"},
    "date": {"retry-after": "Sun, 22 Nov 2026 12:00:09 GMT", "date": "Sun, 22 Nov 2026 12:00:00 GMT"},
}


def behaviour_of(body):
    content = body["messages"][-1].get("content")
    text = content if isinstance(content, str) else json.dumps(content)
    found = re.findall(r"\[([\w.-]+)=([\w-]+)\]", text)
    return dict(found).get(body["model"], "ok")


def message_of(body, behaviour):
    if behaviour == "tool":
        return {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}, "tool_calls"
    if behaviour == "tools":
        calls = [{**TOOL_CALL, "id": f"call_{i}"} for i in (1, 2)]
        return {"role": "assistant", "content": "Let me see.", "tool_calls": calls}, "tool_calls"
    if behaviour == "bad-tool":
        call = {**TOOL_CALL, "function": {"name": "get_weather", "arguments": '{"city": '}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    texts = {"idk": IDLE, "empty": "", **VERDICTS}
    finish = "length" if behaviour == "cut" else "stop"
    return {"role": "assistant", "content": texts.get(behaviour, f"The answer of {body['model']} is 42.")}, finish


def logprobs_of(body):
    return (
        {"content": [{"token": "The", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
        if body.get("logprobs")
        else None
    )


def completion(body, behaviour):
    message, finish = message_of(body, behaviour)
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {"index": i, "message": message, "finish_reason": finish, "logprobs": logprobs_of(body)}
            for i in range(body.get("n") or 1)
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        "odd_field": {"kept": [1, 2.50, None]},
    }
    if behaviour == "no-usage":
        del answer["usage"]
    return answer


def chunks(body, behaviour):
    message, finish = message_of(body, behaviour)
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

    def chunk(delta, finish_reason=None):
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    yield chunk({"role": "assistant", "content": ""})
    for word in re.findall(r"\S+\s*", message.get("content") or ""):
        yield chunk({"content": word})
    for i, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        yield chunk({"tool_calls": [{"index": i, **call, "function": {"name": function["name"], "arguments": ""}}]})
        for char in function["arguments"]:
            yield chunk({"tool_calls": [{"index": i, "function": {"arguments": char}}]})
    yield chunk({}, finish)
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}}


async def stream(request, body, behaviour):
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    if behaviour in ("comment", "says-error"):
        await response.write(b": working\n\n")
    if behaviour == "says-error":
        await asyncio.sleep(0.05)  # in a piece of its own
        await response.write(b'data: {"error": {"message": "overloaded", "code": 503}}\n\n')
        await response.write_eof()
        return response
    for i, chunk in enumerate(chunks(body, behaviour)):
        if i == 2 and behaviour == "reset":
            request.transport.abort()
            return response
        if i == 2 and behaviour == "half":
            await response.write(b'data: {"id": "chatcmpl-1", "choi')
            await response.write_eof()
            return response
        if i == 2 and behaviour == "stall":
            await asyncio.sleep(60)
        if behaviour == "paced":
            await asyncio.sleep(0.1)
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await response.write(b"data: [DONE]" if behaviour == "open-line" else b"data: [DONE]\n\n")
    if behaviour == "linger":
        await asyncio.sleep(2.0)
    await response.write_eof()
    return response


async def flood(request, body):
    # More than the systems on the way take in.
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for chunk in chunks(body, "ok"):
        for _ in range(300):
            await response.write(b"data: " + json.dumps({**chunk, "padding": "x" * 20_000}).encode() + b"\n\n")
    return response


async def trickle(request, body):
    # Always alive, never done: no silence is long enough for an idle timeout.
    kind = "text/event-stream" if body.get("stream") else "application/json"
    response = web.StreamResponse(headers={"content-type": kind})
    await response.prepare(request)
    for _ in range(600):
        await response.write(b": still there\n\n" if body.get("stream") else b" ")
        await asyncio.sleep(0.1)
    return response


SLOW_OR_LARGE = {"trickle": trickle, "flood": flood}


async def complete(request):
    raw = await request.read()
    body = json.loads(raw)
    behaviour = at_this_call(behaviour_of(body), request.app["seen"], raw)
    headers = dict(request.headers)
    call = {"model": body["model"], "body": body, "headers": headers, "cancelled": False}
    request.app["calls"].append(call)
    try:
        return await answer(request, body, behaviour)
    except (asyncio.CancelledError, ConnectionError):
        call["cancelled"] = True
        raise


def at_this_call(behaviour, seen, raw):
    """`500-times-2` is `500` for two calls with the same body, and `ok` from then on; `500-after-2` the reverse."""
    seen[raw] = seen.get(raw, 0) + 1
    if "-after-" in behaviour:
        behaviour, _, before = behaviour.partition("-after-")
        return "ok" if seen[raw] <= int(before) else behaviour
    behaviour, _, times = behaviour.partition("-times-")
    return "ok" if times and seen[raw] > int(times) else behaviour


async def answer(request, body, behaviour):
    status, _, said = behaviour.partition("-")
    if status in STATUSES:
        error = {"error": {"message": f"scripted {behaviour}", "type": "scripted", "param": None, "code": "scripted"}}
        return web.json_response(error, status=int(status), headers=HEADERS[said])
    if behaviour == "redirect":
        return web.Response(status=307, headers={"location": "/elsewhere"})
    if behaviour in SLOW_OR_LARGE:
        return await SLOW_OR_LARGE[behaviour](request, body)
    if behaviour == "html":
        return web.Response(text="<h1>Bad gateway</h1>", status=502, content_type="text/html")
    if behaviour in DELAYS_S:
        await asyncio.sleep(DELAYS_S[behaviour])
    if body.get("stream") and behaviour != "json":
        return await stream(request, body, behaviour)
    if behaviour == "reset":
        request.transport.abort()
    text = json.dumps(completion(body, behaviour))
    if behaviour == "broken-json":
        text = text[: len(text) // 2]
    if behaviour == "no-choices":
        usage = '{"prompt_tokens": 100, "completion_tokens": 20}'
        text = f'{{"object": "chat.completion", "choices": [], "usage": {usage}}}'
    return web.Response(text=text, content_type="application/json")


async def calls(request):
    found = request.app["calls"]
    if request.query.get("clear"):
        request.app["calls"] = []
    return web.json_response(found)


async def main():
    app = web.Application(client_max_size=2**26)
    app["calls"] = []
    app["seen"] = {}
    app.add_routes([web.post("/v1/chat/completions", complete), web.get("/calls", calls)])
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    sys.stderr.write(f"listening on http://127.0.0.1:{port}\n")
    sys.stderr.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
