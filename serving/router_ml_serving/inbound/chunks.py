"""Reading a stream of chat chunks as its bytes arrive, and writing named events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from router_ml_serving.inbound import Json

__all__ = [
    "CallDraft",
    "CallDrafts",
    "ChunkReader",
    "Delta",
    "argument_object",
    "call_parts",
    "delta_of",
    "named_event",
]

_DATA = b"data:"


class ChunkReader:
    """Cuts a stream into its JSON chunks; from a line on that is not valid JSON nothing more is read."""

    __slots__ = ("_broken", "_part")

    def __init__(self) -> None:
        self._part = b""
        self._broken = False

    def feed(self, piece: bytes) -> list[Json]:
        """Return the chunks that are complete by now.

        Args:
            piece: More bytes, cut anywhere.
        """
        lines = (self._part + piece).split(b"\n")
        self._part = lines.pop()
        return list(self._chunks(lines))

    def rest(self) -> list[Json]:
        """Return the last chunk, should its line have been left open."""
        part, self._part = self._part, b""
        return list(self._chunks([part]))

    def _chunks(self, lines: list[bytes]) -> Iterator[Json]:
        for line in lines:
            if self._broken or not line.startswith(_DATA):
                continue
            payload = line[len(_DATA) :].strip()
            if not payload or payload == b"[DONE]":
                continue
            try:
                chunk = orjson.loads(payload)
            except orjson.JSONDecodeError:
                self._broken = True
                continue
            if isinstance(chunk, dict):
                yield chunk


@dataclass(frozen=True, slots=True)
class Delta:
    """What one chunk adds to the first choice."""

    text: str = ""
    refusal: str = ""
    calls: tuple[Json, ...] = ()
    finish_reason: str | None = None
    stop: object = None
    logprobs: tuple[Json, ...] = ()


@dataclass(slots=True, eq=False)
class CallDraft:
    """One tool call as it grows; `said` counts the pieces of its arguments that the client has."""

    index: object
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    said: int = 0

    @property
    def arguments(self) -> str:
        """All arguments so far."""
        return "".join(self.pieces)

    def unsaid(self) -> str:
        """Return the arguments that the client does not have yet, and count them as said."""
        new, self.said = "".join(self.pieces[self.said :]), len(self.pieces)
        return new


@dataclass(slots=True)
class CallDrafts:
    """The tool calls of an answer in the order in which they began."""

    drafts: list[CallDraft] = field(default_factory=list)

    def add(self, piece: Json) -> CallDraft:
        """Add a piece of a call and return the call.

        Some servers number all calls 0 or not at all; a new id then tells that another call begins.
        """
        identity, name, arguments = call_parts(piece)
        index = piece.get("index")
        draft = next((one for one in reversed(self.drafts) if one.index == index), None)
        if draft is None or (identity and draft.id and identity != draft.id):
            draft = CallDraft(index)
            self.drafts.append(draft)
        draft.id = draft.id or identity
        draft.name = draft.name or name
        draft.pieces.append(arguments)
        return draft


def delta_of(chunk: Json) -> Delta | None:
    """Return what a chunk adds to the first choice, or None when it is about something else."""
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict) or choice.get("index", 0) != 0:
            continue
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        calls = delta.get("tool_calls")
        said = choice.get("logprobs")
        logprobs = said.get("content") if isinstance(said, dict) else None
        return Delta(
            text=_text(delta.get("content")),
            refusal=_text(delta.get("refusal")),
            calls=tuple(call for call in calls if isinstance(call, dict)) if isinstance(calls, list) else (),
            finish_reason=_text(choice.get("finish_reason")) or None,
            stop=choice.get("stop_reason"),
            logprobs=tuple(one for one in logprobs if isinstance(one, dict)) if isinstance(logprobs, list) else (),
        )
    return None


def call_parts(call: Json) -> tuple[str, str, str]:
    """Return id, name and arguments of a tool call or of a piece of one; what is missing is empty."""
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    if isinstance(arguments, dict):  # some servers forget that it is a string
        arguments = orjson.dumps(arguments).decode()
    return _text(call.get("id")), _text(function.get("name")), _text(arguments)


def argument_object(arguments: str) -> Any:  # untyped JSON of the wire
    """Return a call's arguments, parsed; what is no JSON object is kept under `invalid_json`, for the model to see."""
    try:
        parsed = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {"invalid_json": arguments}
    return parsed if isinstance(parsed, dict) else {"invalid_json": arguments}


def named_event(payload: Json) -> bytes:
    """Return one event, named after its `type`."""
    return b"event: " + str(payload["type"]).encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
