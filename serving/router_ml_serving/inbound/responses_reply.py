"""A chat completion -> an answer of OpenAI's Responses API."""

from __future__ import annotations

from typing import Any

from router_ml_serving.inbound import Json, Turn
from router_ml_serving.inbound.chunks import call_parts
from router_ml_serving.wire import Usage, usage_of

__all__ = [
    "call_item",
    "frame",
    "item_id",
    "message_item",
    "refusal_part",
    "response",
    "state",
    "text_part",
    "usage_object",
]

# Fields of the request that an answer repeats, and their defaults.
_REPEATED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def response(completion: Json, turn: Turn, usage: Usage | None) -> Json:
    """Return a whole Responses answer.

    Args:
        completion: The chat completion.
        turn: What it answers.
        usage: Tokens on the bill, for when the completion has none.
    """
    choice: Any = completion["choices"][0]  # `wire.answer_of` has looked at it
    said = choice["message"]
    ended = state(choice.get("finish_reason"))
    logprobs = choice.get("logprobs")
    logprobs = logprobs.get("content") if isinstance(logprobs, dict) else None
    parts = []
    if isinstance(text := said.get("content"), str) and text:
        parts.append(text_part(text, logprobs if isinstance(logprobs, list) else []))
    if isinstance(refusal := said.get("refusal"), str) and refusal:
        parts.append(refusal_part(refusal))
    output = [message_item(turn, 0, parts, ended["status"])] if parts else []
    calls = said.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            output.append(call_item(turn, len(output), *call_parts(call), ended["status"]))
    counted = usage_object(completion, usage_of(completion) or usage)
    return {**frame(completion, turn), **ended, "output": output, "usage": counted}


def frame(completion: Json, turn: Turn) -> Json:
    """Return a Responses answer that has not begun.

    Args:
        completion: The chat completion, or its first chunk.
        turn: What it answers.
    """
    asked = turn.asked
    repeated = {name: default if asked.get(name) is None else asked[name] for name, default in _REPEATED.items()}
    reasoning = asked.get("reasoning")
    created = completion.get("created")
    return {
        "id": f"resp_{turn.facts['decision_id']}",
        "object": "response",
        "created_at": created if isinstance(created, int) else 0,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": completion.get("model") or turn.facts["model"],
        "output": [],
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **(reasoning if isinstance(reasoning, dict) else {})},
        "store": False,
        **repeated,
        "usage": None,
        "router": turn.facts,
    }


def state(finish: object) -> Json:
    """Return how an answer ended: complete, or why not.

    Args:
        finish: `finish_reason` of the chat choice.
    """
    reason = _INCOMPLETE.get(finish) if isinstance(finish, str) else None
    if reason is None:
        return {"status": "completed", "incomplete_details": None}
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


def item_id(turn: Turn, index: int, prefix: str) -> str:
    """Return the id of an output item; `prefix` is `msg` or `fc`."""
    return f"{prefix}_{turn.facts['decision_id']}_{index}"


def message_item(turn: Turn, index: int, parts: list[Json], status: str) -> Json:
    """Return an output message with these content parts."""
    identity = item_id(turn, index, "msg")
    return {"id": identity, "type": "message", "role": "assistant", "status": status, "content": parts}


def call_item(turn: Turn, index: int, call_id: str, name: str, arguments: str, status: str) -> Json:
    """Return an output item that calls a function."""
    return {
        "id": item_id(turn, index, "fc"),
        "type": "function_call",
        "call_id": call_id or f"call_{index}",
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def text_part(text: str, logprobs: list[Json]) -> Json:
    """Return a content part with text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def refusal_part(refusal: str) -> Json:
    """Return a content part with which the model declines."""
    return {"type": "refusal", "refusal": refusal}


def usage_object(completion: Json, usage: Usage | None) -> Json:
    """Return token counts under the names of the Responses API.

    Args:
        completion: The chat completion or chunk with the upstream's own counts, for those of reasoning.
        usage: The counts.
    """
    usage = usage or Usage(0, 0)
    told = completion.get("usage")
    details = told.get("completion_tokens_details") if isinstance(told, dict) else None
    thought = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": thought if isinstance(thought, int) else 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
