"""What one upstream call comes to: its record, with its bill."""

from __future__ import annotations

import contextlib
from typing import Any

from router_ml.errors import UpstreamError
from router_ml.features.view import estimate_input_tokens, view_of
from router_ml.ladder import Tier
from router_ml.schema import Answer, Attempt, Request
from router_ml_serving.wire import Usage, answer_of

__all__ = ["CANCELLED", "attempt_of", "further_bytes"]

CANCELLED = "cancelled"
# Bytes of UTF-8 per token of an answer, where the upstream does not count: English about 4, Chinese about 3 to 4.
_BYTES_PER_TOKEN = 4
# A refused or unreachable call is not billed; one that broke off or took too long was worked on.
_NOT_BILLED = frozenset({"status", "connect", "open"})


def attempt_of(
    tier: Tier,
    request: Request,
    answer: Answer,
    usage: Usage | None,
    *,
    error: UpstreamError | None = None,
    started_s: float,
    ended_s: float,
    first_byte_s: float | None = None,
    further_bytes: int = 0,
) -> Attempt:
    """Return the record of one call.

    Args:
        tier: Who was called.
        request: What was asked.
        answer: What came, as far as it came.
        usage: Tokens as the upstream counted them; None: they are estimated, where there is a bill.
        error: What went wrong.
        started_s: When the call went out.
        ended_s: When it was over, on the same clock.
        first_byte_s: When the first piece of a stream was there.
        further_bytes: Of what is billed besides `answer`.
    """
    billed = error is None or error.kind not in _NOT_BILLED
    if usage is None and billed:
        given = round(estimate_input_tokens(view_of(request)))
        usage = Usage(given, -(-(_bytes_of(answer) + further_bytes) // _BYTES_PER_TOKEN))
    return Attempt(
        tier=tier.name,
        model=tier.model,
        input_tokens=usage.input_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else None,
        cost_usd=tier.cost_usd(usage.input_tokens, usage.output_tokens, usage.cached_tokens) if usage else 0.0,
        ttft_ms=None if first_byte_s is None else (first_byte_s - started_s) * 1e3,
        latency_ms=(ended_s - started_s) * 1e3,
        finish_reason=answer.finish_reason,
        error=_error_name(answer, error),
        response=None if error else answer.text,
        tool_calls=tuple(dict(call) for call in answer.tool_calls),
        logprobs=answer.logprobs,
    )


def further_bytes(parsed: dict[str, Any]) -> int:  # Any: JSON of the wire
    """Return how much the choices beyond the first said: they are billed too."""
    said = 0
    for choice in parsed["choices"][1:]:
        with contextlib.suppress(UpstreamError):
            said += _bytes_of(answer_of({"choices": [choice]}))
    return said


def _error_name(answer: Answer, error: UpstreamError | None) -> str | None:
    if error is not None:
        return f"{error.kind} {error.status}" if error.status else error.kind
    # Half an answer that the client did not wait for says nothing about its tier.
    return CANCELLED if answer.finish_reason == CANCELLED else None


def _bytes_of(answer: Answer) -> int:
    calls = "".join(str(call.get("function") or "") for call in answer.tool_calls)
    return len((answer.text + calls).encode(errors="replace"))
