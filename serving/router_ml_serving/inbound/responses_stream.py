"""A stream of chat chunks -> the events of OpenAI's Responses API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from router_ml_serving.inbound import Json, Turn
from router_ml_serving.inbound.chunks import CallDraft, CallDrafts, ChunkReader, delta_of, named_event
from router_ml_serving.inbound.responses_reply import (
    call_item,
    frame,
    item_id,
    message_item,
    refusal_part,
    state,
    text_part,
    usage_object,
)
from router_ml_serving.wire import Usage, usage_of

__all__ = ["ResponsesVoice"]


@dataclass(slots=True)
class _Part:
    # One content part of the message while it grows: `kind` is `output_text` or `refusal`.
    kind: str
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)

    def whole(self) -> Json:
        text = "".join(self.pieces)
        return text_part(text, self.logprobs) if self.kind == "output_text" else refusal_part(text)


class ResponsesVoice:
    """Says a stream as events of the Responses API: items may grow side by side, and all are closed at the end.

    Args:
        turn: What is answered.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._reader = ChunkReader()
        self._calls = CallDrafts()
        self._items: list[str | CallDraft] = []  # in the order of their output_index; "message" once at most
        self._parts: list[_Part] = []
        self._frame: Json | None = None
        self._sequence = 0
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._counted: Json = {}

    def feed(self, piece: bytes) -> bytes:
        """Return the events that follow from these bytes."""
        return b"".join(self._said(chunk) for chunk in self._reader.feed(piece))

    def end(self, error: Json | None, usage: Usage | None) -> bytes:
        """Return the last events: everything closed and the whole answer, or the error."""
        said = [self._said(chunk) for chunk in self._reader.rest()]
        if error is not None:
            return b"".join([*said, self._failed(error)])
        said += [] if self._frame else [self._start({})]
        for draft in self._calls.drafts:
            if draft not in self._items:
                said.append(self._begin_call(draft))
        status = state(self._finish)["status"]
        for index, item in enumerate(self._items):
            said.append(self._call_done(index, item) if isinstance(item, CallDraft) else self._parts_done(index))
            whole = self._item(index, status)
            said.append(self._event("response.output_item.done", output_index=index, item=whole))
        output = [self._item(index, status) for index in range(len(self._items))]
        counted = usage_object(self._counted, self._usage or usage)
        whole = {**(self._frame or {}), **state(self._finish), "output": output, "usage": counted}
        said.append(self._event(f"response.{status}", response=whole))
        return b"".join(said)

    def _said(self, chunk: Json) -> bytes:
        if (usage := usage_of(chunk)) is not None:
            self._usage, self._counted = usage, chunk
        delta = delta_of(chunk)
        if delta is None:
            return b""
        said = [] if self._frame else [self._start(chunk)]
        self._finish = delta.finish_reason or self._finish
        if delta.text:
            said.append(self._words("output_text", delta.text, list(delta.logprobs)))
        if delta.refusal:
            said.append(self._words("refusal", delta.refusal, []))
        said += [self._call_piece(piece) for piece in delta.calls]
        return b"".join(said)

    def _start(self, chunk: Json) -> bytes:
        self._frame = frame(chunk, self._turn)
        first = self._event("response.created", response=self._frame)
        return first + self._event("response.in_progress", response=self._frame)

    def _words(self, kind: str, text: str, logprobs: list[Json]) -> bytes:
        said = []
        if "message" not in self._items:
            self._items.append("message")
            index = len(self._items) - 1
            item = message_item(self._turn, index, [], "in_progress")
            said.append(self._event("response.output_item.added", output_index=index, item=item))
        place = self._place()
        part = next((one for one in self._parts if one.kind == kind), None)
        if part is None:
            part = _Part(kind)
            self._parts.append(part)
            content_index = len(self._parts) - 1
            said.append(
                self._event("response.content_part.added", **place, content_index=content_index, part=part.whole())
            )
        part.pieces.append(text)
        part.logprobs += logprobs
        place["content_index"] = self._parts.index(part)
        if kind == "output_text":
            said.append(self._event("response.output_text.delta", **place, delta=text, logprobs=logprobs))
        else:
            said.append(self._event("response.refusal.delta", **place, delta=text))
        return b"".join(said)

    def _call_piece(self, piece: Json) -> bytes:
        draft = self._calls.add(piece)
        if draft not in self._items:
            if not (draft.id and draft.name):
                return b""
            return self._begin_call(draft)
        return self._arguments(draft)

    def _begin_call(self, draft: CallDraft) -> bytes:
        self._items.append(draft)
        index = len(self._items) - 1
        item = call_item(self._turn, index, draft.id, draft.name, "", "in_progress")
        return self._event("response.output_item.added", output_index=index, item=item) + self._arguments(draft)

    def _arguments(self, draft: CallDraft) -> bytes:
        index = self._items.index(draft)
        arguments = draft.unsaid()
        if not arguments:
            return b""
        place = {"item_id": item_id(self._turn, index, "fc"), "output_index": index}
        return self._event("response.function_call_arguments.delta", **place, delta=arguments)

    def _call_done(self, index: int, draft: CallDraft) -> bytes:
        place = {"item_id": item_id(self._turn, index, "fc"), "output_index": index}
        done = {"name": draft.name, "arguments": draft.arguments}
        return self._event("response.function_call_arguments.done", **place, **done)

    def _parts_done(self, index: int) -> bytes:
        said = []
        for content_index, part in enumerate(self._parts):
            place = {**self._place(), "output_index": index, "content_index": content_index}
            whole = part.whole()
            if part.kind == "output_text":
                done = {"text": whole["text"], "logprobs": part.logprobs}
                said.append(self._event("response.output_text.done", **place, **done))
            else:
                said.append(self._event("response.refusal.done", **place, refusal=whole["refusal"]))
            said.append(self._event("response.content_part.done", **place, part=whole))
        return b"".join(said)

    def _failed(self, error: Json) -> bytes:
        told = {"code": str(error.get("code") or "server_error"), "message": str(error.get("message") or "")}
        said = b""
        if self._frame is not None:
            output = [self._item(index, "incomplete") for index in range(len(self._items))]
            failed = {**self._frame, "status": "failed", "error": {**told, "code": "server_error"}, "output": output}
            said = self._event("response.failed", response=failed)
        # Clients look for the error at either place.
        return said + self._event("error", **told, param=None, error=error)

    def _item(self, index: int, status: str) -> Json:
        item = self._items[index]
        if isinstance(item, CallDraft):
            return call_item(self._turn, index, item.id, item.name, item.arguments, status)
        return message_item(self._turn, index, [part.whole() for part in self._parts], status)

    def _place(self) -> Json:
        index = self._items.index("message")
        return {"item_id": item_id(self._turn, index, "msg"), "output_index": index}

    def _event(self, kind: str, **fields: Any) -> bytes:  # untyped JSON of the wire
        payload = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return named_event(payload)
