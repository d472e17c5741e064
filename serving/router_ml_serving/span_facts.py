"""What spans say about requests, attempts and verdicts: OpenTelemetry's GenAI names and our own, never any text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import orjson

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml.schema import Attempt, Decision, VerdictSource
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.upstream import Reply
from router_ml_serving.wire import Chat

__all__ = [
    "CLIENT_CLOSED_REQUEST",
    "EVALUATION",
    "Attributes",
    "answer_facts",
    "attempt_facts",
    "call_facts",
    "decision_facts",
    "error_type",
    "evaluation_facts",
    "http_status",
    "request_facts",
    "shown",
]

Attributes: TypeAlias = dict[str, str | bool | int | float | Sequence[str]]

EVALUATION = "gen_ai.evaluation.result"
CLIENT_CLOSED_REQUEST = 499
# What a client calls its session, tenant or model is its own choice: a name is short.
_MAX_NAME_CHARS = 256
# Ends of host names and the well-known name of who is behind them.
_PROVIDERS = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "api.anthropic.com": "anthropic",
    "amazonaws.com": "aws.bedrock",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "api.mistral.ai": "mistral_ai",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.x.ai": "x_ai",
    "api.cohere.com": "cohere",
    "api.perplexity.ai": "perplexity",
}


def request_facts(chat: Chat) -> Attributes:
    """Return what a client asked for: model, stream, limits, and whom it said it is."""
    request = chat.request
    return _known(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "router_ml",
            "gen_ai.request.model": chat.model[:_MAX_NAME_CHARS],
            "gen_ai.request.stream": chat.stream,
            "gen_ai.request.max_tokens": request.max_tokens,
            "gen_ai.conversation.id": _name(request.session_id),
            "router.tenant": _name(request.tenant),
            "router.feature": _name(request.feature),
            "router.use_case": _name(request.use_case),
        }
    )


def decision_facts(decision: Decision) -> Attributes:
    """Return what the router decided, and the figures it decided by."""
    facts: Attributes = {
        "router.decision_id": decision.decision_id,
        "router.tier": decision.tier,
        "router.policy_version": decision.policy_version,
        "router.reason": decision.reason,
        "router.explored": decision.explored,
        "router.quality": decision.quality,
        "router.judged": decision.judged,
    }
    if decision.constraints_applied:
        facts["router.constraints"] = decision.constraints_applied
    facts |= {f"router.adequacy.{name}": value for name, value in decision.adequacy.items()}
    facts |= {f"router.expected_cost_usd.{name}": value for name, value in decision.expected_cost_usd.items()}
    return facts


def answer_facts(trail: Sequence[AttemptResult], *, stream: bool) -> Attributes:
    """Return what came of a request: who answered, the bill of all attempts, and the failure, if it is one.

    Args:
        trail: The attempts in order, possibly none.
        stream: Whether the client was sent a stream: its status is told before its end is known.
    """
    shown_ = shown(trail)
    facts: Attributes = {
        "router.attempts": len(trail),
        "router.cost_usd": sum(result.attempt.cost_usd or 0.0 for result in trail),
    }
    if shown_ is not None:
        facts["router.tier"] = shown_.attempt.tier
        facts |= _of_answer(shown_)
    failure = "_OTHER" if shown_ is None else error_type(shown_.attempt)
    if failure is not None:
        facts["error.type"] = failure
    if not stream:
        facts["http.response.status_code"] = http_status(shown_)
    return facts


def call_facts(tier: Tier, chat: Chat) -> Attributes:
    """Return what is known about an upstream call before it is made."""
    facts: Attributes = dict(_where(tier.base_url))
    facts |= {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": tier.model,
        "gen_ai.request.stream": chat.stream,
        "router.tier": tier.name,
    }
    if chat.request.max_tokens is not None:
        facts["gen_ai.request.max_tokens"] = chat.request.max_tokens
    return facts


def attempt_facts(result: AttemptResult) -> Attributes:
    """Return what came of one upstream call."""
    attempt = result.attempt
    facts = _of_answer(result)
    facts |= _known(
        {
            "gen_ai.response.time_to_first_chunk": None if attempt.ttft_ms is None else attempt.ttft_ms / 1e3,
            "router.cost_usd": attempt.cost_usd,
            "error.type": error_type(attempt),
        }
    )
    if result.error is not None and result.error.status is not None:
        facts["http.response.status_code"] = result.error.status
    for verdict in attempt.verdicts:
        facts |= _known(
            {
                "router.verdict.adequate": verdict.adequate,
                "router.verdict.score": verdict.score,
                "router.verdict.source": verdict.source,
            }
        )
    return facts


def evaluation_facts(source: VerdictSource, *, adequate: bool | None, score: float | None) -> Attributes:
    """Return the attributes of the event `gen_ai.evaluation.result`; never why: a reason may quote the answer."""
    label = None if adequate is None else ("adequate" if adequate else "inadequate")
    return _known(
        {
            "gen_ai.evaluation.name": source,
            "gen_ai.evaluation.score.value": score,
            "gen_ai.evaluation.score.label": label,
        }
    )


def shown(trail: Sequence[AttemptResult]) -> AttemptResult | None:
    """Return the attempt that the client got: the last answer, else the last failure."""
    answered = [result for result in trail if result.attempt.error is None]
    return (answered or [*trail])[-1] if trail else None


def error_type(attempt: Attempt) -> str | None:
    """Return the kind of a failure in one word, such as `timeout` or the status; None where there is none."""
    if attempt.error is None:
        return None
    kind, _, status = attempt.error.partition(" ")
    return status or kind


def http_status(result: AttemptResult | None) -> int:
    """Return the status that a client got who did not ask for a stream."""
    if result is None:
        return 500
    if result.error is None:
        return CLIENT_CLOSED_REQUEST if result.attempt.error is not None else 200
    return _status_of(result.error)


def _status_of(error: UpstreamError) -> int:
    return error.status or (504 if error.kind == "timeout" else 502)


def _of_answer(result: AttemptResult) -> Attributes:
    attempt = result.attempt
    said = _head(result.reply)
    cached = attempt.cached_tokens or None
    reason = attempt.finish_reason
    return _known(
        {
            "gen_ai.response.id": _text(said.get("id")),
            "gen_ai.response.model": _text(said.get("model")),
            "gen_ai.response.finish_reasons": None if reason is None else (reason[:_MAX_NAME_CHARS],),
            "gen_ai.usage.input_tokens": attempt.input_tokens,
            "gen_ai.usage.output_tokens": attempt.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": cached,
        }
    )


def _head(reply: object) -> Mapping[str, Any]:
    """Return the object that says who answered: the answer itself, or the first chunk of a stream."""
    if isinstance(reply, Reply):
        return reply.parsed
    if not isinstance(reply, bytes):
        return {}
    start = reply.find(b"data: {")
    end = reply.find(b"\n", start)
    if start < 0 or end < 0:
        return {}
    try:
        parsed = orjson.loads(reply[start + 6 : end])
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


@lru_cache(maxsize=64)
def _where(base_url: str | None) -> Mapping[str, str | int]:
    parts = urlsplit(base_url or "")
    host = parts.hostname or ""
    found = (name for end, name in _PROVIDERS.items() if host == end or host.endswith(f".{end}"))
    facts: dict[str, str | int] = {"gen_ai.provider.name": next(found, "openai_compatible")}
    if host:
        facts |= {"server.address": host, "server.port": parts.port or (443 if parts.scheme == "https" else 80)}
    return facts


def _name(value: str | None) -> str | None:
    return value[:_MAX_NAME_CHARS] if value else None


def _text(value: object) -> str | None:
    return value[:_MAX_NAME_CHARS] if isinstance(value, str) else None


def _known(facts: Mapping[str, Any]) -> Attributes:  # values as `Attributes` has them, or None
    return {name: value for name, value in facts.items() if value is not None}
