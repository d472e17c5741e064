"""A stream of chat chunks -> the events of Anthropic's Messages API."""

from __future__ import annotations

from router_ml_serving.inbound import Json, Turn
from router_ml_serving.inbound.anthropic_reply import error_object, message_frame, stop_facts, usage_object
from router_ml_serving.inbound.chunks import CallDraft, CallDrafts, ChunkReader, Delta, delta_of, named_event
from router_ml_serving.wire import Usage, usage_of

__all__ = ["AnthropicVoice"]


class AnthropicVoice:
    """Says a stream as Anthropic's events, one content block after the other.

    Blocks must not overlap there. The first tool call is said as it grows; further calls, and text after a call, wait
    for the end.

    Args:
        turn: What is answered.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._reader = ChunkReader()
        self._calls = CallDrafts()
        self._late: list[str] = []
        self._blocks = 0
        self._open: str | CallDraft | None = None
        self._started = False
        self._refused = False
        self._finish: str | None = None
        self._matched: object = None
        self._usage: Usage | None = None

    def feed(self, piece: bytes) -> bytes:
        """Return the events that follow from these bytes."""
        return b"".join(self._said(chunk) for chunk in self._reader.feed(piece))

    def end(self, error: Json | None, usage: Usage | None) -> bytes:
        """Return the last events: the end of the message, or the error."""
        said = [self._said(chunk) for chunk in self._reader.rest()]
        if error is not None:
            return b"".join([*said, named_event(error_object(error, 502))])
        said += [] if self._started else [self._start({})]
        said += [self._call_piece(draft, last=True) for draft in self._calls.drafts]
        if self._late:
            said.append(self._text("".join(self._late)))
        said.append(self._close())
        stop = stop_facts(
            self._finish,
            self._turn,
            calls=bool(self._calls.drafts),
            refused=self._refused,
            matched=self._matched,
        )
        counted = usage_object(self._usage or usage)
        said.append(named_event({"type": "message_delta", "delta": stop, "usage": counted}))
        said.append(named_event({"type": "message_stop"}))
        return b"".join(said)

    def _said(self, chunk: Json) -> bytes:
        self._usage = usage_of(chunk) or self._usage
        delta = delta_of(chunk)
        if delta is None:
            return b""
        self._finish = delta.finish_reason or self._finish
        self._matched = delta.stop or self._matched
        start = b"" if self._started else self._start(chunk)
        return start + self._words(delta)

    def _words(self, delta: Delta) -> bytes:
        self._refused = self._refused or bool(delta.refusal)
        said = b""
        if text := delta.text + delta.refusal:
            if self._calls.drafts:
                self._late.append(text)
            else:
                said = self._text(text)
        for piece in delta.calls:
            draft = self._calls.add(piece)
            if draft is self._calls.drafts[0]:
                said += self._call_piece(draft, last=False)
        return said

    def _start(self, chunk: Json) -> bytes:
        self._started = True
        return named_event({"type": "message_start", "message": message_frame(chunk, self._turn)})

    def _text(self, text: str) -> bytes:
        opened = b""
        if self._open != "text":
            opened = self._begin("text", {"type": "text", "text": ""})
        return opened + self._delta({"type": "text_delta", "text": text})

    def _call_piece(self, draft: CallDraft, *, last: bool) -> bytes:
        opened = b""
        if self._open is not draft:
            if not (draft.name and draft.id) and not last:
                return b""
            identity = draft.id or f"call_{self._calls.drafts.index(draft)}"
            opened = self._begin(draft, {"type": "tool_use", "id": identity, "name": draft.name, "input": {}})
        arguments = draft.unsaid()
        return opened + (self._delta({"type": "input_json_delta", "partial_json": arguments}) if arguments else b"")

    def _begin(self, what: str | CallDraft, block: Json) -> bytes:
        closed = self._close()
        self._open = what
        return closed + named_event({"type": "content_block_start", "index": self._blocks, "content_block": block})

    def _delta(self, delta: Json) -> bytes:
        return named_event({"type": "content_block_delta", "index": self._blocks, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        self._blocks += 1
        return named_event({"type": "content_block_stop", "index": self._blocks - 1})
