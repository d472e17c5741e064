"""What the feature blocks look at: one request, read once, cut to a bounded length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router_ml.features.scan import TextScan, scan
from router_ml.records import record
from router_ml.schema import Request

__all__ = ["RequestView", "estimate_input_tokens", "text_of", "view_of"]

_HEAD_CHARS = 4500
_TAIL_CHARS = 1500
_SYSTEM_CHARS = 2000
# Beyond this depth a JSON value is no schema any more, and reading on would only exhaust the stack.
_MAX_DEPTH = 50
# A last turn shorter than this ("yes", "go on") says little alone: the turns before it are read with it.
_SHORT_TURN_CHARS = 80


@record
class RequestView:
    """One request as the blocks see it.

    `asked` is the text of the last user turns, head and tail kept when it is long; `chars` counts characters by role
    over the whole conversation; `parts` counts list-type content by kind (`image`, `audio`, `file`).
    """

    request: Request
    asked: str
    last_chars: int
    scan: TextScan
    system: str
    chars: Mapping[str, int]
    turns: Mapping[str, int]
    parts: Mapping[str, int]
    tool_chars: int
    schema_chars: int
    ascii: bool


def view_of(request: Request) -> RequestView:
    """Read a request; time is bounded by the number of messages, not by their length."""
    chars = {"system": 0, "user": 0, "assistant": 0, "tool": 0}
    turns = dict(chars)
    parts = {"image": 0, "audio": 0, "file": 0}
    users: list[str] = []
    system = ""
    ascii_ = True
    for message in request.messages:
        role = _role(message)
        content = message.get("content")
        text = text_of(content)
        chars[role] += len(text)
        turns[role] += 1
        ascii_ = ascii_ and text.isascii()
        if not isinstance(content, str):
            _count_parts(content, parts)
        if role == "user":
            users.append(text)
        elif role == "system" and not system:
            system = text[:_SYSTEM_CHARS]
    asked = _asked(users)
    return RequestView(
        request=request,
        asked=asked,
        last_chars=len(users[-1]) if users else 0,
        scan=scan(asked),
        system=system,
        chars=chars,
        turns=turns,
        parts=parts,
        tool_chars=_size(request.tools) if request.tools is not None else 0,
        schema_chars=_size(request.response_format) if request.response_format is not None else 0,
        ascii=ascii_,
    )


def text_of(content: object) -> str:
    """Return the text of a message's content: a string, a list of parts, or None."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in content)
    return "\n".join(text for text in texts if isinstance(text, str))


def estimate_input_tokens(view: RequestView) -> float:
    """Estimate the prompt's tokens from its characters: about 4 a token in plain ASCII, 2.5 otherwise.

    An image counts 800 tokens, each message 4 for its frame. A bill's own count always wins over this.
    """
    characters = sum(view.chars.values()) + view.tool_chars + view.schema_chars
    frames = 4 * sum(view.turns.values())
    return characters / (4.0 if view.ascii else 2.5) + frames + 800.0 * view.parts["image"]


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role")
    if role in ("system", "developer"):
        return "system"
    if role in ("tool", "function"):
        return "tool"
    return "assistant" if role == "assistant" else "user"


def _asked(users: Sequence[str]) -> str:
    if not users:
        return ""
    asked = users[-1]
    for earlier in reversed(users[:-1]):
        if len(asked) >= _SHORT_TURN_CHARS:
            break
        asked = f"{earlier}\n{asked}"
    if len(asked) > _HEAD_CHARS + _TAIL_CHARS:
        return asked[:_HEAD_CHARS] + asked[-_TAIL_CHARS:]
    return asked


def _count_parts(content: object, parts: dict[str, int]) -> None:
    if not isinstance(content, Sequence):
        return
    for part in content:
        kind = str(part.get("type", "")) if isinstance(part, Mapping) else ""
        for name in parts:
            parts[name] += name in kind


def _size(value: object, depth: int = 0) -> int:
    # Characters of a JSON value, near enough and without encoding it.
    if isinstance(value, str):
        return len(value) + 2
    if depth >= _MAX_DEPTH:
        return 4
    if isinstance(value, Mapping):
        return 2 + sum(len(str(key)) + 4 + _size(item, depth + 1) for key, item in value.items())
    if isinstance(value, Sequence):
        return 2 + sum(1 + _size(item, depth + 1) for item in value)
    return 0 if value is None else 4
