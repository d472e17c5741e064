"""Chat completions themselves: what comes in goes upstream, what comes back goes out, with the router's facts in it."""

from __future__ import annotations

import orjson

from router_ml_serving.inbound import Json, Turn
from router_ml_serving.sse import KEEP_ALIVE, event, facts_in_first_event, payload_of, says_error
from router_ml_serving.wire import Usage, with_facts

__all__ = ["ChatShape"]


class ChatShape:
    """OpenAI's chat completions; changes no byte but for the `router` key."""

    keep_alive = KEEP_ALIVE

    def chat_body(self, asked: Json) -> Json:
        """Return the request itself."""
        return asked

    def ignored(self, asked: Json) -> list[str]:
        """Return nothing: what the router does not know is for the upstream."""
        return []

    def reply(self, raw: bytes, completion: Json, turn: Turn, usage: Usage | None) -> bytes:
        """Return the completion as it came, with the facts."""
        return with_facts(raw, turn.facts)

    def stream(self, turn: Turn) -> ChatVoice:
        """Return what passes a stream on."""
        return ChatVoice(turn.facts)

    def error(self, raw: bytes, status: int, request_id: str) -> bytes:
        """Return the error as it is: the body is OpenAI's here too."""
        return raw

    def headers(self, request_id: str) -> dict[str, str]:
        """Return nothing: an upstream's own `x-request-id` is handed on."""
        return {}


class ChatVoice:
    """Passes a stream on as it came, cut at line ends, so that after a break what follows can still be an event.

    Args:
        facts: What goes into the first chunk.
    """

    __slots__ = ("_facts", "_failed", "_part")

    def __init__(self, facts: Json) -> None:
        self._facts: Json | None = facts
        self._failed = False
        self._part = b""

    def feed(self, piece: bytes) -> bytes:
        """Return the whole lines so far."""
        cut = piece.rfind(b"\n") + 1
        if cut != len(piece) or self._part:
            if not cut:
                self._part += piece
                return b""
            piece, self._part = self._part + piece[:cut], piece[cut:]
        if b'"error"' in piece and any(says_error(payload_of(line) or b"") for line in piece.split(b"\n")):
            self._failed = True
        if self._facts is not None:
            told = facts_in_first_event(piece, self._facts)
            if told is not None:
                self._facts = None
                return told
        return piece

    def end(self, error: Json | None, usage: Usage | None) -> bytes:
        """Return the last event, should its line have been left open, or the error."""
        last = self.feed(b"\n\n") if _is_whole(self._part) else b""
        if error is None:
            return last
        # The upstream's own error has gone out as it came: a second one would say the same. Else a blank line first
        # ends an event that the upstream left open.
        return last if self._failed else b"\n\n" + event({"error": error})


def _is_whole(line: bytes) -> bool:
    payload = payload_of(line)
    if payload is None:
        return False
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return payload == b"[DONE]"
    return True
