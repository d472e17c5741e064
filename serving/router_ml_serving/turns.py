"""What a conversation looks like from outside: fingerprints of its messages, and whether its last turn is a follow-up.

Fingerprints are Python's own hashes of strings, which are keyed anew in every process: they compare within one worker,
cannot be chosen by a client, and say nothing about the text. Long texts are compared by length, head and tail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

from router_ml.features import text_of
from router_ml.features.scan import scan

__all__ = ["FOLLOW_UP_CHARS", "Turn", "fingerprint", "is_follow_up", "likeness", "turn_of", "words_of"]

Messages: TypeAlias = Sequence[Mapping[str, Any]]  # chat messages as the client sent them

# As in the feature `is_follow_up`, which a test compares with.
FOLLOW_UP_CHARS = 80
_NOT_THE_USERS = frozenset({"system", "developer", "tool", "function", "assistant"})
_HEAD_CHARS, _TAIL_CHARS = 2048, 512
_PARTS = 32
_LOOKED_AT = 256
# A person's question; longer ones are mostly templates filled in, which are all alike without being the same question.
_QUESTION_CHARS = 400
# Fewer words are alike by chance: "yes please", "yes".
_FEW_WORDS = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """The last turn of a conversation of `n` messages.

    `asks` is false where the last message is not the user's, as in the loop of an agent and its tools. `whole` and
    `earlier` are fingerprints with and without the last message.
    """

    n: int
    asks: bool
    whole: int
    earlier: int
    follow_up: bool


def turn_of(messages: Messages) -> Turn:
    """Return what is known of the last turn; the time it takes does not depend on the length of the texts."""
    n = len(messages)
    return Turn(
        n=n,
        asks=n > 0 and _is_users(messages[-1]),
        whole=fingerprint(messages, n),
        earlier=fingerprint(messages, n - 1),
        follow_up=is_follow_up(messages),
    )


def fingerprint(messages: Messages, n: int) -> int:
    """Return one number for the first `n` messages: their count, the first and the last of them."""
    if not 0 < n <= len(messages):
        return 0
    return hash((n, _digest(messages[0]), _digest(messages[n - 1])))


def is_follow_up(messages: Messages) -> bool:
    """Return whether the last user turn is short and not the first, such as "yes" or "go on".

    In a loop of an agent that is longer than 256 messages without a word of the user it no longer is.
    """
    seen = False
    for message in islice(reversed(messages), _LOOKED_AT):
        if not _is_users(message):
            continue
        if seen:
            return True
        if len(text_of(message.get("content"))) >= FOLLOW_UP_CHARS:
            return False
        seen = True
    return False


def words_of(messages: Messages) -> bytes:
    """Return the hashed words of the last message, 4 bytes each; none when it is too short or too long to compare."""
    text = text_of(messages[-1].get("content")) if messages else ""
    if not text or len(text) > _QUESTION_CHARS:
        return b""
    words = {word & 0xFFFFFFFF for word in scan(text).words.tolist()}
    if len(words) < _FEW_WORDS:
        return b""
    return b"".join(word.to_bytes(4, "little") for word in sorted(words))


def likeness(one: bytes, other: bytes) -> float:
    """Return the share of common words among all words of two results of `words_of`, 0 to 1."""
    mine, yours = _unpack(one), _unpack(other)
    union = len(mine | yours)
    return len(mine & yours) / union if union else 0.0


def _unpack(words: bytes) -> set[bytes]:
    return {words[i : i + 4] for i in range(0, len(words), 4)}


def _is_users(message: Mapping[str, Any]) -> bool:
    return message.get("role") not in _NOT_THE_USERS


def _digest(message: Mapping[str, Any]) -> int:
    content, calls = message.get("content"), message.get("tool_calls")
    parts = _part(content) if isinstance(content, str) else _parts(content)
    made = calls[:_PARTS] if isinstance(calls, list | tuple) else ()
    return hash((message.get("role"), parts, *(_part(call.get("id")) for call in made if isinstance(call, Mapping))))


def _parts(content: object) -> int:
    if not isinstance(content, list | tuple):
        return 0
    return hash((len(content), *(_fields(part) for part in content[:_PARTS])))


def _fields(part: object) -> int:
    # An image is its address or its data, one level deeper: the same question about another image is another question.
    if not isinstance(part, Mapping):
        return _part(part)
    deeper = (value.values() if isinstance(value, Mapping) else (value,) for value in part.values())
    return hash(tuple(_part(value) for values in deeper for value in values))


def _part(value: object) -> int:
    if not isinstance(value, str):
        return 0
    if len(value) <= _HEAD_CHARS + _TAIL_CHARS:
        return hash(value)
    return hash((len(value), value[:_HEAD_CHARS], value[-_TAIL_CHARS:]))
