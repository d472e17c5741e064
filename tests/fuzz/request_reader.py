"""A fuzz target: whatever bytes arrive as a request, they are read soon and refused with `RequestError` alone.

`python tests/fuzz/request_reader.py --minutes 1` runs it: guided by coverage where atheris is installed
(`pip install atheris`), else by a plain loop of mutations. What fails is written to a file to try again with `--input`.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson

from router_ml.errors import RequestError
from router_ml.features import featurize
from router_ml.features.view import estimate_input_tokens, view_of
from router_ml.ladder import Ladder, Tier
from router_ml.schema import Decision, Plan
from router_ml_serving.delivery import delivery_of
from router_ml_serving.inbound import SHAPES, Json, Shape
from router_ml_serving.journal import row_of_exchange
from router_ml_serving.recall import Recall
from router_ml_serving.settings import ServingSettings
from router_ml_serving.wire import Chat, outgoing, parse_json, read_chat, resolve

__all__ = ["mutated", "one_input", "seeds"]

# A request as long as a fuzzer makes them takes well under a millisecond; this is for machines that do other things.
_SLOWEST_S = 2.0
# Messages are logged and traced: they quote a few words of the client at most.
_LONGEST_MESSAGE = 1000
_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
_LADDER = Ladder.of(
    [
        Tier(name="small", model="mini", **_PRICE),
        Tier(name="large", model="maxi", input_usd_per_mtok=9.0, output_usd_per_mtok=9.0),
    ]
)
_SHAPES = tuple(SHAPES.load(name)() for name in SHAPES)
_DECISION = Decision(
    "d", "small", "mini", Plan("small", "large"), "v", {"small": 0.5, "large": 0.9}, {"small": 1.0, "large": 9.0},
    {"small": 1.0, "large": 0.0}, 0.97, 0.0, False, "fuzzed",
)  # fmt: skip
_RECALL = Recall(ServingSettings(sessions=100, memory_classes=100), lambda: 1000.0)


def one_input(data: bytes) -> bool:
    """Read one request as every endpoint would, up to what goes upstream and into the record.

    Args:
        data: The body, after a first line with header values if it has more than one line.

    Returns:
        Whether some endpoint would have answered it.

    Raises:
        AssertionError: When it took too long, or what came out is not what went in.
    """
    started_s = time.perf_counter()
    line, _, rest = data.partition(b"\n")
    body, headers = (rest, _headers(line)) if rest else (data, [])
    answered = [_read_as(shape, body, headers) for shape in _SHAPES]
    took_s = time.perf_counter() - started_s
    assert took_s < _SLOWEST_S, f"{len(data)} bytes took {took_s:.1f} s"
    return any(answered)


def seeds() -> list[bytes]:
    """Return requests of every kind, for a fuzzer to start from."""
    bodies: list[Json] = [_chat(), _messages(), _responses(), {"input": "Hello"}, {"messages": []}]
    whole = [orjson.dumps(body) for body in bodies]
    return [*whole, b"acme\tchat\temail\ts1\n" + whole[0], b"", b"[]", b'{"messages": [{"role": "user"}]}']


def _chat() -> Json:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    return {
        "model": "router-0.9",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "é"}, image]},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c", "content": "1"},
            {"role": "user", "content": "```py\nx = 1\n```\nSolve 2x + 3 = 7?"},
        ],
        "tools": [tool],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "router": {"tenant": "t", "session_id": "s", "use_case": "u", "feature": "f", "quality": 0.9},
        "metadata": {"tenant": "t", "ticket": "1"},
    }


def _messages() -> Json:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
    return {
        "model": "auto",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "metadata": {"user_id": "u"},
        "thinking": {"type": "enabled"},
        "stop_sequences": ["x"],
    }


def _responses() -> Json:
    image = {"type": "input_image", "image_url": "https://example.com/a.png"}
    return {
        "model": "small",
        "instructions": "i",
        "max_output_tokens": 5,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "t"}, image]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "1"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "reasoning": {"effort": "low"},
        "stream": False,
    }


def _headers(line: bytes) -> list[tuple[bytes, bytes]]:
    names = (b"x-router-tenant", b"x-router-feature", b"x-router-use-case", b"x-session-id")
    return list(zip(names, line.split(b"\t"), strict=False))


def _read_as(shape: Shape, body: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    try:
        asked = parse_json(body)
        chat = read_chat(shape.chat_body(asked), headers, tenant="acme")
        resolve(chat.model, _LADDER)
    except RequestError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert len(refusal) < _LONGEST_MESSAGE, f"a message of {len(refusal)} characters"
        return False
    before = orjson.dumps(asked)
    shape.ignored(asked)
    _go_on(chat)
    assert orjson.dumps(asked) == before, "the client's body was changed"
    return True


def _go_on(chat: Chat) -> None:
    found = featurize(chat.request)
    assert np.isfinite(found.dense).all()
    assert np.isfinite(found.counts).all()
    assert estimate_input_tokens(view_of(chat.request)) >= 0.0
    _RECALL.before(chat.request, _LADDER.names, "v")
    _RECALL.decided(chat.request, _DECISION, 1)
    delivery_of(_DECISION, chat, 0.9)
    sent = orjson.loads(outgoing(chat.body, _LADDER.tier("small"), whole=True))
    assert sent["model"] == "mini"
    assert {name: value for name, value in sent.items() if name != "model"} == {
        name: value for name, value in chat.body.items() if name not in ("model", "router", "stream", "stream_options")
    }
    for keep_text in (True, False):
        row_of_exchange(chat, _DECISION, [], ts=_T0, candidates=_LADDER.names, keep_text=keep_text)


def mutated(data: bytes, rng: random.Random, corpus: list[bytes]) -> bytes:
    """Return a request with a few things changed in it.

    Args:
        data: The request.
        rng: Draws what is changed.
        corpus: Other requests, to take pieces from.
    """
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at, end = sorted(rng.randrange(len(raw) + 1) for _ in range(2))
        end = min(end, at + rng.choice((1, 4, 40)))
        way = rng.randrange(6)
        if way == 0:
            del raw[at:end]
        elif way == 1:
            raw[at:at] = rng.choice(_PIECES)
        elif way == 2:
            raw[at:end] = rng.choice(_PIECES)
        elif way == 3:
            raw[at:at] = raw[at:end] * rng.choice((1, 3, 200))
        elif way == 4 and raw:
            raw[at % len(raw)] ^= 1 << rng.randrange(8)
        else:
            other = rng.choice(corpus)
            start = rng.randrange(len(other) + 1)
            raw[at:at] = other[start : start + rng.choice((4, 40, 400))]
    return bytes(raw[:1_000_000])


_PIECES = (
    b"null", b"true", b"[]", b"{}", b'""', b"0", b"-1", b"1e308", b"18446744073709551616", b"0.1", b"NaN", b"[[[[[[[[",
    b'{"a":' * 40, b"}" * 40, b'"\\ud800"', b'"\\u0000"', b"\xff", b"\xed\xa0\x80",
    "\u202e".encode(), "\U0001f600".encode(),
    b'"messages"', b'"content"', b'"role"', b'"router"', b'"quality"', b'"type"', b'"text"', b'"function"', b'"name"',
    b'"input"', b'"tools"', b'"tool_calls"', b'"system"', b'"stream"', b",", b":", b'"', b"\\", b" " * 300, b"a" * 5000,
)  # fmt: skip


def _loop(seconds: float, seed: int) -> None:
    rng, corpus = random.Random(seed), seeds()
    n = answered = 0
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        data = mutated(rng.choice(corpus), rng, corpus)
        n += 1
        try:
            is_answered = one_input(data)
        except Exception:
            kept = Path(tempfile.gettempdir()) / "request_reader.input"
            kept.write_bytes(data)
            sys.stderr.write(f"failed after {n} inputs; try it again with --input {kept}\n")
            raise
        if is_answered:
            answered += 1
            if len(corpus) < 2000 and len(data) < 20_000:
                corpus.append(data)
    sys.stderr.write(f"{n} inputs, of which {answered} could be answered; none failed\n")


def _guided(seconds: float) -> None:
    import atheris

    def target(data: bytes) -> None:
        one_input(data)

    with tempfile.TemporaryDirectory() as corpus:
        for i, seed in enumerate(seeds()):
            (Path(corpus) / str(i)).write_bytes(seed)
        options = [f"-max_total_time={seconds:.0f}", "-max_len=20000", f"-artifact_prefix={tempfile.gettempdir()}/"]
        atheris.instrument_all()  # takes a minute
        atheris.Setup([sys.argv[0], *options, corpus], target)
        atheris.Fuzz()


def main() -> None:
    """Fuzz for a while, or try one input again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of the plain loop")
    parser.add_argument("--input", type=Path, help="a file that failed, to try it once more")
    args = parser.parse_args()
    if args.input:
        one_input(args.input.read_bytes())
    elif importlib.util.find_spec("atheris"):
        _guided(args.minutes * 60)
    else:
        _loop(args.minutes * 60, args.seed)


if __name__ == "__main__":
    main()
