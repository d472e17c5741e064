"""What the feature blocks look at: one request, read once, cut to a bounded length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from router_ml.features.canonical import canonical, visible
from router_ml.features.scan import TextScan, scan
from router_ml.records import record
from router_ml.schema import Request

__all__ = ["RequestView", "estimate_input_tokens", "text_of", "view_of"]

_HEAD_CHARS = 4500
_TAIL_CHARS = 1500
# So much of a longer text is made canonical before head and tail are cut from it: padding must not push words out.
_HEAD_READ, _TAIL_READ = 2 * _HEAD_CHARS, 2 * _TAIL_CHARS
# Invisible characters, which may stand between all others, are looked for in more.
_HEAD_SEEN, _TAIL_SEEN = 8 * _HEAD_CHARS, 8 * _TAIL_CHARS
_SYSTEM_CHARS = 2000
# Beyond this depth a JSON value is no schema any more, and reading on would only exhaust the stack.
_MAX_DEPTH = 50
# What is none of these is read as a user.
_ROLES = {"system": "system", "developer": "system", "tool": "tool", "function": "tool", "assistant": "assistant"}
# A last turn shorter than this ("yes", "go on") says little alone: the turns before it are read with it.
_SHORT_TURN_CHARS = 80


@record
class RequestView:
    """One request as the blocks see it.

    `asked` is the text of the last user turns in canonical form, head and tail kept when it is long; `last_chars` is
    the length of the last one in that form, `user_chars` that of all user turns, those in `asked` in that form. `chars`
    counts characters by role over the whole conversation as it was sent; `parts` counts list-type content by kind
    (`image`, `audio`, `file`). `sent_tokens` estimates what was sent, `input_tokens` that with those turns canonical.
    """

    request: Request
    asked: str
    last_chars: int
    user_chars: int
    scan: TextScan
    system: str
    chars: Mapping[str, int]
    turns: Mapping[str, int]
    parts: Mapping[str, int]
    tool_chars: int
    schema_chars: int
    sent_tokens: float
    input_tokens: float


def view_of(request: Request) -> RequestView:
    """Read a request; time is bounded by the number of messages, not by their length."""
    chars = {"system": 0, "user": 0, "assistant": 0, "tool": 0}
    turns = dict(chars)
    parts = {"image": 0, "audio": 0, "file": 0}
    users: list[str] = []
    system = ""
    non_ascii = 0
    for message in request.messages:
        role, content = _role_of(message.get("role")), message.get("content")
        if isinstance(content, str):
            text = content
        else:
            text = text_of(content)
            _count_parts(content, parts)
        chars[role] += len(text)
        turns[role] += 1
        non_ascii += not text.isascii()
        if role == "user":
            users.append(text)
        elif role == "system" and not system:
            system = text[:_SYSTEM_CHARS]
    asked = _asked(users)
    tool_chars = _size(request.tools) if request.tools is not None else 0
    schema_chars = _size(request.response_format) if request.response_format is not None else 0
    sent = sum(chars.values()) + tool_chars + schema_chars
    other_tokens = 4 * len(request.messages) + 800.0 * parts["image"]
    return RequestView(
        request=request,
        asked=asked.text,
        last_chars=asked.last_chars,
        user_chars=chars["user"] - asked.padding,
        scan=scan(asked.text),
        system=system,
        chars=chars,
        turns=turns,
        parts=parts,
        tool_chars=tool_chars,
        schema_chars=schema_chars,
        sent_tokens=_tokens(sent, non_ascii == 0) + other_tokens,
        input_tokens=_tokens(sent - asked.padding, non_ascii == asked.made_ascii) + other_tokens,
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

    An image counts 800 tokens, each message 4 for its frame. Padding is sent and paid for: it counts. A bill's own
    count always wins over this.
    """
    return view.sent_tokens


def _tokens(chars: int, ascii_only: bool) -> float:
    return chars / (4.0 if ascii_only else 2.5)


def _role_of(said: object) -> str:
    return _ROLES.get(said, "user") if isinstance(said, str) else "user"


class _Asked(NamedTuple):
    """The turns that are read: `padding` is what canonical form took away, `made_ascii` how many it made ASCII."""

    text: str
    last_chars: int
    padding: int
    made_ascii: int


def _asked(users: Sequence[str]) -> _Asked:
    read: list[str] = []
    last_chars = n_chars = n_sent = padding = made_ascii = 0
    for turn in reversed(users):
        text, length = _canonical_turn(turn)
        n_sent += len(turn.strip())
        padding += len(turn) - length
        made_ascii += text.isascii() and not turn.isascii()
        read.append(text)
        if len(read) == 1:
            last_chars = length
        n_chars += length + 1
        # Turns of nothing but padding are short as well, and there may be any number of them.
        if n_chars > _SHORT_TURN_CHARS or n_sent > _HEAD_SEEN + _TAIL_SEEN:
            break
    read.reverse()
    asked = "\n".join(read)
    if len(asked) > _HEAD_CHARS + _TAIL_CHARS:
        asked = asked[:_HEAD_CHARS] + asked[-_TAIL_CHARS:]
    return _Asked(asked, last_chars, padding, made_ascii)


def _canonical_turn(turn: str) -> tuple[str, int]:
    """Return a turn in canonical form, and its length in that; of a long one the middle, which nobody reads, is cut."""
    turn = turn.strip()
    if len(turn) <= _HEAD_READ + _TAIL_READ:
        text = canonical(turn)
        return text, len(text)
    if not turn.isascii():
        rest = max(_HEAD_SEEN, len(turn) - _TAIL_SEEN)
        looked_at = turn[:_HEAD_SEEN], turn[rest:]
        head, tail = map(visible, looked_at)
        if (head, tail) != looked_at:
            turn = f"{head}{turn[_HEAD_SEEN:rest]}{tail}".strip()
        if len(turn) <= _HEAD_READ + _TAIL_READ:
            return _canonical_turn(turn)
    head, tail = canonical(turn[:_HEAD_READ]), canonical(turn[-_TAIL_READ:])
    return f"{head}{tail}", len(turn) - _HEAD_READ - _TAIL_READ + len(head) + len(tail)


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
