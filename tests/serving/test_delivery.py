"""Streams: held where a judgement can change something and there is time for it, else straight through."""

from __future__ import annotations

from typing import Any

import pytest

from router_ml.schema import Decision, Plan
from router_ml_serving.delivery import delivery_of
from router_ml_serving.wire import read_chat

TOOLS = [{"type": "function", "function": {"name": "pay", "parameters": {}}}]


def decided(adequacy: float = 0.6, then: str | None = "large", **fields: Any) -> Decision:
    facts: dict[str, Any] = {
        "decision_id": "d1",
        "tier": "small",
        "model": "mini",
        "plan": Plan("small", then),
        "policy_version": "one",
        "adequacy": {"small": adequacy, "large": 0.95},
        "expected_cost_usd": {},
        "propensity": {},
        "quality": 1.0,
        "threshold": 0.0,
        "explored": False,
        "reason": "",
    }
    return Decision(**{**facts, **fields})


@pytest.mark.parametrize(
    ("decision", "body", "delivery"),
    [
        (decided(), {}, "hold"),
        (decided(0.9), {}, "through"),
        (decided(then=None), {}, "through"),
        (decided(then=None), {"tools": TOOLS}, "through"),
        (decided(0.99, judged=True), {}, "hold"),
        (decided(may_hold=False), {}, "through"),
        (decided(0.99), {"tools": TOOLS}, "hold"),
        (decided(0.99, may_hold=False), {"tools": TOOLS}, "hold"),
        (decided(0.99), {"tools": TOOLS, "tool_choice": "none"}, "through"),
        (decided(0.99), {"tools": []}, "through"),
        (decided(0.99), {"functions": [{"name": "pay"}]}, "hold"),
        (decided(0.99), {"functions": [{"name": "pay"}], "function_call": "none"}, "through"),
    ],
)
def test_how_a_stream_is_delivered(decision: Decision, body: dict[str, Any], delivery: str) -> None:
    chat = read_chat({"messages": [{"role": "user", "content": "Hello"}], "stream": True, **body})
    assert delivery_of(decision, chat, 0.9) == delivery
