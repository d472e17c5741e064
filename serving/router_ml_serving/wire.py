"""OpenAI's chat body <-> `Request` and `Answer`: the only place where a dictionary of the wire is looked into.

Only what routing needs is read. The body itself is kept as it came and goes upstream with another `model`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from router_ml.errors import RequestError, UpstreamError
from router_ml.features import text_of
from router_ml.ladder import Ladder, Tier
from router_ml.records import record
from router_ml.registry import did_you_mean
from router_ml.schema import Answer, LogProbs, Request
from router_ml_serving.problems import ModelNotFound

__all__ = [
    "ROUTER_MODELS",
    "Chat",
    "Target",
    "Usage",
    "answer_of",
    "is_answer",
    "outgoing",
    "parse_json",
    "read_chat",
    "resolve",
    "token_logprobs",
    "usage_of",
    "with_facts",
]

ROUTER_MODELS = ("auto", "router")
_PREFIX = "router-"
_METADATA = ("tenant", "feature", "use_case", "session_id")
_HEADERS = {
    b"x-router-tenant": "tenant",
    b"x-router-feature": "feature",
    b"x-router-use-case": "use_case",
    b"x-session-id": "session_id",
}
# Everything behind the wire may recurse into a body; real ones have ten levels or so.
_MAX_DEPTH = 64
# Objects and lists of one body; a long agent transcript has some thousands. Eight megabytes of empty lists, looked
# through like any other body, kept a worker busy for four seconds.
_MAX_CONTAINERS = 100_000
_TOO_MANY = f"the body has more than {_MAX_CONTAINERS} objects and lists"
# Values of the wire are untyped JSON.
Json = dict[str, Any]


@record
class Chat:
    """One chat body, checked as far as routing looks; `quality` is what its `router` key asked for, if anything."""

    body: Json
    request: Request
    model: str
    stream: bool
    quality: float | None
    tags: Mapping[str, Any]


@record
class Target:
    """What a `model` name means: a tier that answers whatever the router thinks, or a routed request (None)."""

    pinned: Tier | None = None
    quality: float | None = None


@record
class Usage:
    """Tokens of one call as the upstream counted them."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


def parse_json(raw: bytes) -> Json:
    """Read a body that must be a JSON object.

    Raises:
        RequestError: When it is something else, or nested so deeply that nobody means it.
    """
    brackets = raw.count(b"{") + raw.count(b"[")
    if brackets > 5 * _MAX_CONTAINERS:  # brackets in texts count too, and prompts that are so full of them fit no model
        raise RequestError(_TOO_MANY)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}" if raw else "the body is empty") from error
    if not isinstance(body, dict):
        raise RequestError(f"the body must be a JSON object, got {_kind(body)}")
    # Counting brackets is enough for most bodies; only those with many are walked.
    if brackets > _MAX_DEPTH:
        _check_shape(body)
    return body


def read_chat(body: Json, headers: Iterable[tuple[bytes, bytes]] = (), *, tenant: str | None = None) -> Chat:
    """Check a chat body and take out what routing looks at.

    Metadata comes from the headers, else from the body's `router` object, else from its `metadata`.

    Args:
        body: The parsed body; it is not changed.
        headers: Raw request headers with lower-case names.
        tenant: Whom the request is of when it names nobody: that of the client's key.

    Raises:
        RequestError: Naming the field at fault, and what was expected.
    """
    router: Json = _optional(body, "router", dict) or {}
    metadata: Json = _optional(body, "metadata", dict) or {}
    facts = _facts(router, metadata) if router or metadata else {}
    for name, value in headers:
        if name in _HEADERS and value:
            facts[_HEADERS[name]] = value.decode("latin-1")
    if tenant is not None:
        facts.setdefault("tenant", tenant)
    max_tokens = _optional(body, "max_completion_tokens", int)
    if max_tokens is None:
        max_tokens = _optional(body, "max_tokens", int)
    if max_tokens is not None and not 0 <= max_tokens < 2**63:
        raise RequestError(f"max_tokens must not be negative or beyond 64 bits, got {max_tokens}", param="max_tokens")
    request = Request(
        messages=_messages(body),
        tools=_tools(body),
        response_format=_optional(body, "response_format", dict),
        max_tokens=max_tokens,
        **facts,
    )
    return Chat(
        body=body,
        request=request,
        model=_optional(body, "model", str) or ROUTER_MODELS[0],
        stream=bool(_optional(body, "stream", bool)),
        quality=_quality(router.get("quality")),
        tags=_tags(router, metadata) if router or metadata else {},
    )


def resolve(model: str, ladder: Ladder, *, allowed: Container[str] | None = None) -> Target:
    """Say what a `model` name means.

    Args:
        model: The name.
        ladder: The tiers in service.
        allowed: The tiers that may be told of in the error; None: all.

    Raises:
        ModelNotFound: When it is no router, tier or upstream model of this ladder.
    """
    if model in ROUTER_MODELS:
        return Target()
    if model in ladder.names:
        return Target(pinned=ladder.tier(model))
    tier = ladder.by_model(model)
    if tier is not None:
        return Target(pinned=tier)
    if model.startswith(_PREFIX):
        return Target(quality=_quality_in_name(model))
    tiers = [tier for tier in ladder if allowed is None or tier.name in allowed]
    known = [*ROUTER_MODELS, *dict.fromkeys((*(tier.name for tier in tiers), *(tier.model for tier in tiers)))]
    hint = did_you_mean(model, known)
    raise ModelNotFound(f"the model '{model:.60}' does not exist{hint}; known: {', '.join(known)}", param="model")


def outgoing(body: Json, tier: Tier, *, whole: bool = False) -> bytes:
    """Return the body that goes upstream: the client's own, with the tier's model and without our `router` key.

    Args:
        body: The client's.
        tier: Who is asked.
        whole: Ask for the answer in one piece, whatever the client asked for.
    """
    sent = {**body, "model": tier.model}
    sent.pop("router", None)
    if whole:
        sent.pop("stream", None)
        sent.pop("stream_options", None)
    return orjson.dumps(sent)


def answer_of(parsed: Json) -> Answer:
    """Return the first choice of a whole chat completion.

    Raises:
        UpstreamError: When it has no choice with a message.
    """
    choice = _first_choice(parsed)
    if choice is None:
        raise UpstreamError("the upstream's answer has no choice with a message", kind="protocol")
    usage, message = usage_of(parsed), choice["message"]
    calls = message.get("tool_calls")
    return Answer(
        text=text_of(message.get("content")) or str(message.get("refusal") or ""),
        finish_reason=None if choice.get("finish_reason") is None else str(choice["finish_reason"]),
        tool_calls=tuple(call for call in calls if isinstance(call, dict)) if isinstance(calls, list) else (),
        output_tokens=usage.output_tokens if usage else None,
        logprobs=LogProbs.of(token_logprobs(choice)),
    )


def is_answer(parsed: Json) -> bool:
    """Say whether a whole chat completion has a choice with a message."""
    return _first_choice(parsed) is not None


def token_logprobs(choice: Json) -> list[float]:
    """Return the log-probabilities of a choice's tokens, or of a chunk's; usually nobody asked for any."""
    found = choice.get("logprobs")
    if found is None:
        return []
    tokens = found.get("content") if isinstance(found, dict) else None
    said = [token.get("logprob") for token in tokens if isinstance(token, dict)] if isinstance(tokens, list) else []
    return [float(value) for value in said if isinstance(value, int | float) and not isinstance(value, bool)]


def usage_of(parsed: Json) -> Usage | None:
    """Return the token counts of a completion or of a chunk, or None when it carries none."""
    usage = parsed.get("usage")
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    if not isinstance(given, int) or not isinstance(made, int) or given < 0 or made < 0:
        return None
    return Usage(given, made, cached if isinstance(cached, int) and cached >= 0 else 0)


def with_facts(raw: bytes, facts: Json) -> bytes:
    """Add a `router` key to a JSON object, leaving its other bytes as they came.

    Args:
        raw: One JSON object.
        facts: The value of the key.
    """
    head = raw.rstrip()
    if not head.endswith(b"}"):
        return raw
    inside = head[:-1].rstrip()
    comma = b"" if inside.endswith(b"{") else b","
    return inside + comma + b'"router":' + orjson.dumps(facts) + b"}" + raw[len(head) :]


def _first_choice(parsed: Json) -> Json | None:
    choices = parsed.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) and isinstance(choice.get("message"), dict) else None


def _check_shape(body: Json) -> None:
    level: list[Any] = [body]
    left = _MAX_CONTAINERS
    for _ in range(_MAX_DEPTH):
        inside = (item.values() if isinstance(item, dict) else item for item in level)
        found = (value for values in inside for value in values if isinstance(value, dict | list))
        level = list(islice(found, left))
        left -= len(level)
        if not level:
            return
        if left == 0:
            raise RequestError(_TOO_MANY)
    raise RequestError(f"the body is nested deeper than {_MAX_DEPTH} levels")


def _messages(body: Json) -> Sequence[Json]:
    messages = body.get("messages")
    if messages is None:
        raise RequestError("messages is missing: send a list of chat messages", param="messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(f"messages must be a non-empty list, got {_kind(messages)}", param="messages")
    for i, message in enumerate(messages):
        if isinstance(message, dict) and isinstance(message.get("role"), str) and _is_content(message.get("content")):
            continue
        raise _no_message(message, f"messages[{i}]")
    return messages


def _is_content(content: object) -> bool:
    if content is None or isinstance(content, str):
        return True
    return isinstance(content, list) and all(isinstance(part, dict) for part in content)


def _no_message(message: object, where: str) -> RequestError:
    if not isinstance(message, dict):
        return RequestError(f"{where} must be an object, got {_kind(message)}", param=where)
    if not isinstance(message.get("role"), str):
        return RequestError(f"{where}.role must be a string such as 'user'", param=f"{where}.role")
    content, param = message.get("content"), f"{where}.content"
    if isinstance(content, list):
        return RequestError(f"{param} must hold objects only", param=param)
    return RequestError(f"{param} must be a string, a list of parts, or null, got {_kind(content)}", param=param)


def _facts(router: Json, metadata: Json) -> dict[str, str]:
    facts = {name: value for name in _METADATA if isinstance(value := metadata.get(name), str) and value}
    return facts | {name: value for name in _METADATA if (value := _optional(router, name, str, "router."))}


def _tags(router: Json, metadata: Json) -> Json:
    return {name: value for name, value in {**metadata, **router}.items() if name not in (*_METADATA, "quality")}


def _tools(body: Json) -> Sequence[Json] | None:
    tools: list[Any] | None = _optional(body, "tools", list)
    for i, tool in enumerate(tools or ()):
        if not isinstance(tool, dict):
            raise RequestError(f"tools[{i}] must be an object, got {_kind(tool)}", param=f"tools[{i}]")
    return tools


def _optional(body: Json, name: str, kind: type[Any], prefix: str = "") -> Any:  # a value of the wire
    value = body.get(name)
    if value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    raise RequestError(f"{prefix}{name} must be {_NAMES[kind]}, got {_kind(value)}", param=f"{prefix}{name}")


def _quality(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise RequestError(f"router.quality must be a number in (0, 1], got {value!r:.40}", param="router.quality")


def _quality_in_name(model: str) -> float:
    try:
        quality = float(model.removeprefix(_PREFIX))
    except ValueError:
        quality = float("nan")
    if 0 < quality <= 1:
        return quality
    hint = f" (did you mean '{_PREFIX}{quality / 100:g}'?)" if 1 < quality <= 100 else ""
    message = f"the model '{model:.60}' does not exist{hint}: after 'router-' goes the quality to keep, in (0, 1]"
    raise ModelNotFound(message, param="model")


_NAMES: Mapping[type[Any], str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    bool: "true or false",
}


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list) and not value:
        return "an empty list"
    return _NAMES.get(type(value), "a number")
