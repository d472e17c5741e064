"""The answer stopped at the length limit."""

from __future__ import annotations

from router_ml.schema import Answer, Request

__all__ = ["check"]


def check(request: Request, answer: Answer) -> str | None:
    """Find answers cut off at the token limit, by the upstream's own word."""
    if answer.finish_reason != "length":
        return None
    limit = f" of {request.max_tokens} tokens" if request.max_tokens is not None else ""
    return f"the answer was cut off at the length limit{limit}"
