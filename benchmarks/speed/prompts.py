"""What is routed: a chat of four messages and about 300 tokens, and a conversation of 100,000 tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from router_ml.schema import Request

__all__ = ["CHAT", "chat_body", "chats", "long_chat"]

CHAT: tuple[Mapping[str, str], ...] = (
    {
        "role": "system",
        "content": (
            "You are the support assistant of a company that sells garden tools online. Answer briefly and politely, "
            "use only the facts in the notes, and say so when you do not know. Notes: orders are shipped within two "
            "working days; returns are free for 30 days; the warranty is three years for motors and one for blades."
        ),
    },
    {
        "role": "user",
        "content": (
            "Hello, I bought a hedge trimmer from you in March, and since last week the motor stops after about five "
            "minutes of cutting. I have cleaned the air slots and tried another socket. What can I do now, and will "
            "it cost me anything?"
        ),
    },
    {
        "role": "assistant",
        "content": (
            "I am sorry to hear that. The motor is covered by our three-year warranty, so a repair will not cost you "
            "anything. Please send me your order number and a short description of the fault, and I will open a case."
        ),
    },
    {
        "role": "user",
        "content": (
            "The order number is 4711-0815. One more thing: can you explain, step by step, how I should pack the "
            "trimmer, and which of the two accessories (the guide rail and the second battery) must be in the parcel? "
            "My neighbour said that only the battery is needed, because the rail has no electronics of its own inside."
        ),
    },
)
_CHARS_PER_TOKEN = 4


def chat_body() -> bytes:
    """Return the body of one chat request."""
    return json.dumps({"model": "auto", "messages": list(CHAT)}).encode()


def chats(n: int, *, rng: np.random.Generator) -> list[Request]:
    """Return n chats of the same shape and length, the words of the last turn in another order each time.

    So no chat is the same as the one before it, as the system prompt of a template is.
    """
    *before, last = CHAT
    words = np.array(last["content"].split())
    return [
        Request(messages=[*before, {"role": "user", "content": " ".join(rng.permutation(words).tolist())}])
        for _ in range(n)
    ]


def long_chat(tokens: int) -> Request:
    """Return a conversation of about so many tokens, a few hundred a turn, as an agent's transcript has."""
    user, assistant = (CHAT[i]["content"] * 6 for i in (1, 2))
    turns: Sequence[str] = (user, assistant)
    per_pair = sum(map(len, turns)) // _CHARS_PER_TOKEN
    pairs = -(-tokens // per_pair)
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), turns, strict=True)]
    return Request(messages=[CHAT[0], *messages * pairs, CHAT[3]])
