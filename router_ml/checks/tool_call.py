"""A tool call that no program could carry out: an unknown tool, or arguments that do not parse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from router_ml.checks.json_valid import missing_keys
from router_ml.schema import Answer, Request

__all__ = ["check"]


def check(request: Request, answer: Answer) -> str | None:
    """Find broken tool calls: name not offered, arguments not a JSON object, or a required argument missing."""
    offered = {str(function.get("name")): function for function in map(_function, request.tools or ())}
    for call in answer.tool_calls:
        function = _function(call)
        name = function.get("name")
        if not isinstance(name, str) or not name:
            return "a tool call has no name"
        if offered and name not in offered:  # a log without request bodies does not say what was offered
            return f"the answer calls '{name}', a tool that was not offered"
        problem = _problem(function.get("arguments"), offered.get(name, {}).get("parameters"))
        if problem is not None:
            return f"the arguments of the call to '{name}' {problem}"
    return None


def _problem(arguments: object, parameters: object) -> str | None:
    if arguments in (None, ""):  # how some models call a tool that takes no arguments
        arguments = "{}"
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return "are not valid JSON"
    if not isinstance(arguments, Mapping):
        return "are not a JSON object"
    missing = missing_keys(parameters, arguments)
    return f"lack {', '.join(missing)}" if missing else None


def _function(entry: Mapping[str, Any]) -> Mapping[str, Any]:  # Any: a tool or a call as the wire has it
    # Both come as {"type": "function", "function": {...}}; some logs keep the inner part alone.
    inner = entry.get("function")
    return inner if isinstance(inner, Mapping) else entry
