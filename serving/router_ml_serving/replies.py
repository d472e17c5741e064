"""What upstreams send, as it is read: whole answers, the first event of a stream, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import aiohttp
import orjson

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml_serving.failures import refusal_in_stream
from router_ml_serving.sse import END, first_payload, payload_of, says_error

__all__ = ["Allowance", "EndMark", "first_event", "parsed", "refused_with", "rest", "whole"]

# Of an answer that is an error; what is longer is no message.
_LONGEST_ERROR_BYTES = 2**16
# Comments before the first event of a stream; after so many nobody waits for it any more.
_LONGEST_HEAD_BYTES = 2**16
# After its end mark a stream closes, soon enough for its connection to be used again, or nobody waits for that.
_LINGER_S = 0.05
# The end mark with its line before and some blank ones behind it.
_TAIL_BYTES = 24


class EndMark:
    """Looks for `data: [DONE]` at the end of chunks that are cut anywhere."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def seen(self, chunk: bytes) -> bool:
        """Take the next chunk, and say whether the stream's end mark is its last line."""
        tail = self._tail = (chunk if len(chunk) >= _TAIL_BYTES else self._tail + chunk)[-_TAIL_BYTES:]
        tail = tail.rstrip()
        return tail.endswith(END) and payload_of(tail.rpartition(b"\n")[2]) == END


class Allowance:
    """What an answer may still take.

    Args:
        tier: Who sends it.
        limit: Bytes at most.
    """

    __slots__ = ("_left", "_limit", "_tier")

    def __init__(self, tier: Tier, limit: int) -> None:
        self._tier, self._limit, self._left = tier, limit, limit

    def take(self, piece: bytes) -> None:
        """Count a piece.

        Raises:
            UpstreamError: When the answer is too long with it.
        """
        self._left -= len(piece)
        if self._left < 0:
            message = f"tier '{self._tier.name}' sent more than {self._limit} bytes (serving.max_answer_bytes)"
            raise UpstreamError(message, kind="protocol")


async def whole(tier: Tier, response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the body of an answer.

    Args:
        tier: Who sends it.
        response: Its head has been read.
        limit: Bytes at most.

    Raises:
        UpstreamError: When it is longer; the connection is closed.
    """
    if response.content_length is not None and response.content_length <= limit:
        return await response.read()
    pieces, allowance = [], Allowance(tier, limit)
    async with response:  # what is not read to its end is closed with its connection
        async for piece in response.content.iter_any():
            allowance.take(piece)
            pieces.append(piece)
    return b"".join(pieces)


async def refused_with(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an error, or nothing where that is too long to be a message."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > _LONGEST_ERROR_BYTES:
            response.close()
            return b""
        pieces.append(piece)
    return b"".join(pieces)


def parsed(tier: Tier, raw: bytes) -> dict[str, Any]:
    """Return a whole answer as the JSON object it should be.

    Args:
        tier: Who sent it.
        raw: The bytes.

    Raises:
        UpstreamError: When it is none.
    """
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UpstreamError(f"tier '{tier.name}' sent invalid JSON", kind="protocol") from error
    if not isinstance(found, dict):
        raise UpstreamError(f"tier '{tier.name}' sent JSON that is not an object", kind="protocol")
    return found


async def first_event(tier: Tier, response: aiohttp.ClientResponse, now: Callable[[], datetime]) -> bytes:
    """Return the bytes of a stream up to its first event or further.

    Comments alone are no answer yet: until more has come, another tier can be asked in its place.

    Args:
        tier: Who sends it.
        response: Its head has been read.
        now: The time of day (UTC).

    Raises:
        UpstreamError: When it is no stream, an empty one, or an error.
    """
    if response.content_type != "text/event-stream":
        message = f"tier '{tier.name}' was asked for a stream and sent {response.content_type}"
        raise UpstreamError(message, kind="protocol")
    head, payload = b"", None
    while payload is None:
        chunk = await response.content.readany()
        head += chunk
        # A last line may have been left open.
        payload = first_payload(head if chunk else head + b"\n")
        if len(head) >= _LONGEST_HEAD_BYTES:
            break
        if not chunk and payload is None:
            raise UpstreamError(f"tier '{tier.name}' sent an empty stream", kind="protocol")
    if payload == END:
        raise UpstreamError(f"tier '{tier.name}' sent an empty stream", kind="protocol")
    if payload is not None and says_error(payload):
        raise refusal_in_stream(tier, response, payload, now)
    return head


async def rest(response: aiohttp.ClientResponse) -> bytes:
    """Return what follows the end mark, mostly nothing; whatever goes wrong then, the answer is there."""
    content = response.content
    if content.at_eof():
        return b""
    try:
        async with asyncio.timeout(_LINGER_S):
            return await content.readany()
    except (TimeoutError, aiohttp.ClientError):
        return b""
