"""Chat streams as an upstream sends them, and the events that come of them: for the tests of inbound shapes."""

import json
import re

__all__ = ["call_chunk", "chunk", "events", "sse"]


def chunk(delta=None, finish=None, **fields):
    """Return one chunk of a chat completion."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "mini-1",
        "choices": choices,
        **fields,
    }


def call_chunk(index, identity=None, name=None, arguments=""):
    """Return a chunk with a piece of a tool call."""
    head = {"id": identity, "type": "function"} if identity else {}
    return chunk({"tool_calls": [{"index": index, **head, "function": {"name": name, "arguments": arguments}}]})


def sse(*chunks):
    """Return a whole stream."""
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks) + b"data: [DONE]\n\n"


def events(raw):
    """Return the data of every event."""
    return [json.loads(line) for line in re.findall(rb"^data: (.*)$", raw, re.MULTILINE)]
