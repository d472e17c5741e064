"""A chat completion -> an answer of Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

from router_ml_serving.inbound import Json, Turn
from router_ml_serving.inbound.chunks import argument_object, call_parts
from router_ml_serving.wire import Usage, usage_of

__all__ = ["error_object", "message", "message_frame", "stop_facts", "usage_object"]

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
_CALLS = ("tool_calls", "function_call")
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def message(completion: Json, turn: Turn, usage: Usage | None) -> Json:
    """Return a whole Messages answer.

    Args:
        completion: The chat completion.
        turn: What it answers.
        usage: Tokens on the bill, for when the completion has none.
    """
    choice: Any = completion["choices"][0]  # `wire.answer_of` has looked at it
    said = choice["message"]
    calls = said.get("tool_calls")
    calls = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    refusal = said.get("refusal")
    content = [{"type": "text", "text": text} for text in (_text(said.get("content")), refusal) if text]
    content += [_tool_use(call, i) for i, call in enumerate(calls)]
    stop = stop_facts(
        choice.get("finish_reason"), turn, calls=bool(calls), refused=bool(refusal), matched=choice.get("stop_reason")
    )
    frame = message_frame(completion, turn)
    return {**frame, "content": content, **stop, "usage": usage_object(usage_of(completion) or usage)}


def message_frame(completion: Json, turn: Turn) -> Json:
    """Return a Messages answer that has not begun.

    Args:
        completion: The chat completion, or its first chunk.
        turn: What it answers.
    """
    return {
        "id": f"msg_{turn.facts['decision_id']}",
        "type": "message",
        "role": "assistant",
        "model": completion.get("model") or turn.facts["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_object(None),
        "router": turn.facts,
    }


def stop_facts(finish: object, turn: Turn, *, calls: bool, refused: bool, matched: object) -> Json:
    """Return why an answer ended, in Anthropic's words.

    Args:
        finish: `finish_reason` of the chat choice.
        turn: What it answers.
        calls: Whether tools are called; some servers say `stop` all the same.
        refused: Whether the model declined.
        matched: The stop sequence that ended it, where the server tells (`stop_reason` of vLLM's choice).
    """
    reason = _STOP_REASONS.get(finish, "end_turn") if isinstance(finish, str) else "end_turn"
    if finish in _CALLS or (calls and reason == "end_turn"):
        reason = "tool_use"
    elif refused:
        reason = "refusal"
    sequences = turn.asked.get("stop_sequences")
    if reason == "end_turn" and isinstance(matched, str) and isinstance(sequences, list) and matched in sequences:
        return {"stop_reason": "stop_sequence", "stop_sequence": matched}
    return {"stop_reason": reason, "stop_sequence": None}


def usage_object(usage: Usage | None) -> Json:
    """Return token counts as Anthropic counts: input that came from a cache is told apart."""
    usage = usage or Usage(0, 0)
    return {
        "input_tokens": max(usage.input_tokens - usage.cached_tokens, 0),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }


def error_object(error: object, status: int) -> Json:
    """Return Anthropic's error for OpenAI's.

    Args:
        error: OpenAI's error object, or what a server of the same API sent in its place.
        status: The HTTP status.
    """
    kind = _ERROR_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    message = error.get("message") if isinstance(error, dict) else error
    return {"type": "error", "error": {"type": kind, "message": str(message or "unknown error")}}


def _tool_use(call: Json, i: int) -> Json:
    identity, name, arguments = call_parts(call)
    return {"type": "tool_use", "id": identity or f"call_{i}", "name": name, "input": argument_object(arguments)}


def _text(content: object) -> str:
    return content if isinstance(content, str) else ""
