"""The answer has neither text nor a tool call."""

from __future__ import annotations

from router_ml.schema import Answer, Request

__all__ = ["check"]


def check(request: Request, answer: Answer) -> str | None:
    """Find answers with nothing in them; a tool call alone is an answer."""
    if answer.tool_calls or answer.text.strip():
        return None
    return "the answer is empty"
