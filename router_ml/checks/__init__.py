"""Response checks: rules that find an answer inadequate by looking at it. One file and one line below per check.

A check is `check(request, answer) -> str | None`: None when it has nothing to say, else one sentence. Checks are
used by the cascade online and by the labels offline; none of them ever finds an answer good.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

from router_ml.registry import Registry
from router_ml.schema import Answer, Request

__all__ = ["CHECKS", "Check", "run_checks"]

Check: TypeAlias = Callable[[Request, Answer], str | None]

# In the order they run: the first that fires gives the reason.
CHECKS: Registry[Check] = Registry(
    "check",
    {
        "empty": "router_ml.checks.empty:check",
        "truncated": "router_ml.checks.truncated:check",
        "tool_call": "router_ml.checks.tool_call:check",
        "json_valid": "router_ml.checks.json_valid:check",
        "refusal": "router_ml.checks.refusal:check",
        "dont_know": "router_ml.checks.dont_know:check",
    },
)


def run_checks(request: Request, answer: Answer) -> str | None:
    """Run every check.

    Returns:
        "name: reason" of the first check that fires, or None.
    """
    for name, check in _checks():
        reason = check(request, answer)
        if reason is not None:
            return f"{name}: {reason}"
    return None


@cache
def _checks() -> tuple[tuple[str, Check], ...]:
    return tuple((name, CHECKS.load(name)) for name in CHECKS)
