"""Streamed chat completions (server-sent events): read back whole, and told the router's facts on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from router_ml.features import text_of
from router_ml.schema import Answer, LogProbs
from router_ml_serving.wire import Usage, token_logprobs, usage_of, with_facts

__all__ = [
    "DONE",
    "END",
    "KEEP_ALIVE",
    "Streamed",
    "event",
    "facts_in_first_event",
    "first_payload",
    "payload_of",
    "read_stream",
    "says_error",
]

KEEP_ALIVE = b": keep-alive\n\n"
END = b"[DONE]"
DONE = b"data: [DONE]\n\n"
_DATA = b"data:"


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a stream said: the answer so far, and whether it came to its end (`complete`) or was an error.

    The answer is the first choice; `further_bytes` is the size of what the others said.
    """

    answer: Answer
    usage: Usage | None
    complete: bool
    error: str | None = None
    further_bytes: int = 0


def read_stream(raw: bytes) -> Streamed:
    """Put the chunks of a stream together again; what cannot be read ends the answer there, incomplete.

    Args:
        raw: All bytes of the stream so far; a piece of a line at the end is left out.
    """
    draft = _Draft()
    for payload in _payloads(raw):
        if payload == END:
            draft.done = True
            break
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            draft.error = "a chunk of the stream is not valid JSON"
            break
        if isinstance(chunk, dict):
            draft.add(chunk)
    return draft.finished()


def facts_in_first_event(head: bytes, facts: dict[str, Any]) -> bytes | None:
    """Add the `router` key to the first JSON chunk among whole lines, leaving all other bytes as they came.

    Returns:
        The changed bytes, or None when there is no JSON chunk in them.
    """
    start = 0
    while (end := head.find(b"\n", start)) >= 0:
        line = head[start:end]
        payload = line[len(_DATA) :].strip() if line.startswith(_DATA) else b""
        if payload.startswith(b"{"):
            at = start + line.index(b"{")
            return head[:at] + with_facts(head[at:end], facts) + head[end:]
        start = end + 1
    return None


def first_payload(head: bytes) -> bytes | None:
    """Return the data of the first event among whole lines; None while there is none, comments being no events."""
    start = 0
    while (end := head.find(b"\n", start)) >= 0:
        payload = payload_of(head[start:end])
        if payload:
            return payload
        start = end + 1
    return None


def payload_of(line: bytes) -> bytes | None:
    """Return the data that a line holds; None when it holds none."""
    return line[len(_DATA) :].strip() if line.startswith(_DATA) else None


def says_error(payload: bytes) -> bool:
    """Say whether the data of an event is an error and no piece of an answer."""
    if b'"error"' not in payload:
        return False
    try:
        parsed = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return isinstance(parsed, dict) and bool(parsed.get("error"))


def event(payload: dict[str, Any]) -> bytes:
    """Return one event that carries a JSON object."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def _payloads(raw: bytes) -> Iterator[bytes]:
    for line in raw.split(b"\n"):
        if line.startswith(_DATA):
            yield line[len(_DATA) :].strip()


@dataclass(slots=True)
class _Draft:
    # The first choice, as it grows; of the others, how much they say and whether all have ended.
    text: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage | None = None
    done: bool = False
    error: str | None = None
    begun: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    further_bytes: int = 0

    def add(self, chunk: dict[str, Any]) -> None:
        # Looked at thousands of times: nothing is called for what usually is not there.
        if chunk.get("usage"):
            self.usage = usage_of(chunk) or self.usage
        if chunk.get("error"):
            self.error = "the upstream reported an error in the stream"
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        index, delta, finish_reason = choice.get("index", 0), choice.get("delta"), choice.get("finish_reason")
        index = index if isinstance(index, int) else 0
        self.begun.add(index)
        if finish_reason:
            self.ended.add(index)
        if index != 0:
            self.further_bytes += _said_bytes(delta)
            return
        if finish_reason:
            self.finish_reason = str(finish_reason)
        if choice.get("logprobs"):
            self.logprobs += token_logprobs(choice)
        if isinstance(delta, dict):
            self._add_delta(delta)

    def _add_delta(self, delta: dict[str, Any]) -> None:
        content, calls = delta.get("content"), delta.get("tool_calls")
        if type(content) is str and content:
            self.text.append(content)
        else:
            self.text.append(text_of(content) or str(delta.get("refusal") or ""))
        for piece in calls if isinstance(calls, list) else ():
            if not isinstance(piece, dict):
                continue
            index = piece.get("index")
            call = self.calls.setdefault(
                index if isinstance(index, int) else len(self.calls),
                {"id": None, "type": "function", "function": {"name": "", "arguments": ""}},
            )
            call["id"] = piece.get("id") or call["id"]
            function = piece.get("function")
            if isinstance(function, dict):
                for key in ("name", "arguments"):
                    call["function"][key] += str(function.get(key) or "")

    def finished(self) -> Streamed:
        answer = Answer(
            text="".join(self.text),
            finish_reason=self.finish_reason,
            tool_calls=tuple(self.calls[index] for index in sorted(self.calls)),
            output_tokens=self.usage.output_tokens if self.usage else None,
            logprobs=LogProbs.of(self.logprobs),
        )
        complete = self.done or (bool(self.begun) and self.begun == self.ended)
        return Streamed(answer, self.usage, complete and self.error is None, self.error, self.further_bytes)


def _said_bytes(delta: object) -> int:
    if not isinstance(delta, dict):
        return 0
    text = text_of(delta.get("content")) or str(delta.get("refusal") or "")
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            text += str(function.get("name") or "") + str(function.get("arguments") or "")
    return len(text.encode(errors="replace"))
