"""Stored interactions read strictly: a body that holds just what the service writes, typed and in range as it is read.

The types here are those of `router_ml.schema` without its allowances (defaults, conversions, unknown fields): what fits
them means the same there, and is read in a thirtieth of the time. All else is for the reader that knows the allowances.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

from router_ml.schema import Mode, VerdictSource

__all__ = ["Json", "StoredAttempt", "StoredInteraction", "StoredRequest", "StoredVerdict", "is_simple", "read_strictly"]

Name: TypeAlias = Annotated[str, Meta(min_length=1)]
Unit: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
Amount: TypeAlias = Annotated[float, Meta(ge=0.0)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# Of any shape: JSON of JSON.
Json: TypeAlias = dict[str, Any]


class StoredVerdict(Struct, forbid_unknown_fields=True, gc=False):
    """A verdict as the service writes it."""

    adequate: bool | None
    score: Unit | None
    source: VerdictSource
    reason: str | None


class StoredAttempt(Struct, forbid_unknown_fields=True, gc=False):
    """An attempt as the service writes it, without the parts that come in numbers."""

    tier: Name
    model: str
    input_tokens: Count | None
    cached_tokens: Count
    output_tokens: Count | None
    cost_usd: Amount | None
    ttft_ms: Amount | None
    latency_ms: Amount | None
    finish_reason: str | None
    error: str | None
    response: str | None
    tool_calls: list[Json]
    verdicts: list[StoredVerdict]
    logprobs: None
    features: None


class StoredRequest(Struct, forbid_unknown_fields=True, gc=False):
    """The parts of a request that are logged."""

    messages: list[Json]
    tools: list[Json] | None
    response_format: Json | None
    max_tokens: Count | None


class StoredInteraction(Struct, forbid_unknown_fields=True, gc=False):
    """An interaction as the service writes it, without stored features and feedback."""

    schema: Literal["router_ml.interaction/1"]
    id: Name
    ts: str
    session_id: str | None
    tenant: str | None
    feature: str | None
    use_case: str | None
    tags: Json
    request: StoredRequest
    features: None
    policy_version: str | None
    candidates: list[str]
    propensity: dict[str, Unit]
    explored: bool
    mode: Mode
    attempts: list[StoredAttempt]
    feedback: Annotated[list[Any], Meta(max_length=0)]


_INTERACTION = Decoder(StoredInteraction)
_SIMPLE = ("role", "content")
# Pydantic reads nothing nested deeper than some 200.
_DEEPEST = 50


def read_strictly(body: str) -> StoredInteraction | None:
    """Return an interaction that is just as the service writes one; None for any other. Its time is not looked at.

    Args:
        body: The interaction as JSON.
    """
    try:
        found = _INTERACTION.decode(body)
    # The latter two: too deep for the decoder, and a lone surrogate.
    except (DecodeError, RecursionError, UnicodeEncodeError):
        return None
    chances = found.propensity
    if chances and not 0.999 <= sum(chances.values()) <= 1.001:
        return None
    nested = _nested(found)
    return None if nested and not _is_flat(nested, _DEEPEST) else found


def _nested(found: StoredInteraction) -> list[Any]:
    # Loops: most rows have none, and building lists of nothing costs a tenth of the reading.
    asked, nested = found.request, list[Any]()
    if found.tags or asked.tools or asked.response_format:
        nested += (found.tags, asked.tools, asked.response_format)
    for message in asked.messages:
        if not is_simple(message):
            nested.append(message)
    for attempt in found.attempts:
        if attempt.tool_calls:
            nested.append(attempt.tool_calls)
    return nested


def is_simple(message: Json) -> bool:
    """Return whether a message is a role and a text, in this order."""
    return tuple(message) == _SIMPLE and type(message["role"]) is type(message["content"]) is str


def _is_flat(value: Any, left: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return left > 0 and all(_is_flat(item, left - 1) for item in inner)
