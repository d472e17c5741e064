"""Hard rules: which tiers may answer a request at all. A new rule is one function and one line in `CONSTRAINTS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.features import Features
from router_ml.ladder import Ladder
from router_ml.registry import Registry
from router_ml.schema import Request

__all__ = ["CONSTRAINTS", "Constraint", "Context", "Needs", "eligible", "needs_of"]

Mask: TypeAlias = NDArray[np.bool_]

# What an answer may need when the request sets no limit.
_DEFAULT_OUTPUT_TOKENS = 1024
# The prompt's length is an estimate; a call that overflows the context window fails.
_ESTIMATE_MARGIN = 1.1
_PART_CAPABILITY = {
    "image_url": "vision",
    "input_image": "vision",
    "image": "vision",
    "input_audio": "audio",
    "audio": "audio",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request asks of a tier: room for the prompt and the answer, in tokens, and capabilities."""

    input_tokens: float
    output_tokens: float
    capabilities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Context:
    """What holds at the moment of the decision.

    `unhealthy` tiers are failing upstream; `allowed` None means any tier; `latency_budget_ms` None means no limit.
    """

    unhealthy: frozenset[str] = frozenset()
    allowed: frozenset[str] | None = None
    latency_budget_ms: float | None = None


# Takes what the rules before it left, shape (K,), and returns what it leaves of that.
Constraint: TypeAlias = Callable[[Needs, Ladder, Context, Mask], Mask]

CONSTRAINTS: Registry[Constraint] = Registry(
    "constraint",
    {
        "allowed": "router_ml.constraints:allowed",
        "context_window": "router_ml.constraints:context_window",
        "capabilities": "router_ml.constraints:capabilities",
        "health": "router_ml.constraints:health",
        # Last: it keeps the fastest of the tiers that the others left.
        "latency_budget": "router_ml.constraints:latency_budget",
    },
)


def needs_of(request: Request, features: Features) -> Needs:
    """Return what a request asks of a tier."""
    return Needs(
        input_tokens=features.input_tokens,
        output_tokens=float(_DEFAULT_OUTPUT_TOKENS if request.max_tokens is None else request.max_tokens),
        capabilities=frozenset(_capabilities(request)),
    )


def eligible(needs: Needs, ladder: Ladder, context: Context) -> tuple[Mask, tuple[str, ...]]:
    """Apply every rule in order.

    When nothing is left, the allowed tiers with the largest context window answer: a request is never refused here,
    and never sent to a tier that its use case forbids.

    Returns:
        Which tiers may answer, shape (K,), at least one; and a phrase for every rule that took a tier away.
    """
    mask = np.ones(len(ladder), np.bool_)
    applied: list[str] = []
    for name, constraint in _constraints():
        left = constraint(needs, ladder, context, mask)
        if left is not mask and (mask & ~left).any():
            applied.append(f"{name} excludes {_names(ladder, mask & ~left)}")
        mask = left
    if mask.any():
        return mask, tuple(applied)
    rest = allowed(needs, ladder, context, np.ones(len(ladder), np.bool_))
    windows = np.array([tier.context_window for tier in ladder])
    if rest.any():
        windows = np.where(rest, windows, -1)
    mask = windows == windows.max()
    return mask, (*applied, f"no tier meets every rule: kept {_names(ladder, mask)} for the largest context window")


def allowed(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers that the use case or tenant may use."""
    if context.allowed is None:
        return mask
    return _keep(mask, (tier.name in context.allowed for tier in ladder))


def context_window(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers whose context window has room for the prompt and the answer."""
    tokens = needs.input_tokens * _ESTIMATE_MARGIN + needs.output_tokens
    return _keep(mask, (tier.context_window >= tokens for tier in ladder))


def capabilities(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers that can do everything the request uses."""
    if not needs.capabilities:
        return mask
    return _keep(mask, (needs.capabilities <= tier.capabilities for tier in ladder))


def health(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers that are not failing upstream."""
    if not context.unhealthy:
        return mask
    return _keep(mask, (tier.name not in context.unhealthy for tier in ladder))


def latency_budget(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers that usually answer within the budget; the fastest of them when none does."""
    if context.latency_budget_ms is None or not mask.any():
        return mask
    latencies = np.array([tier.latency_ms for tier in ladder])
    within = _keep(mask, latencies <= context.latency_budget_ms)
    return within if within.any() else _keep(mask, latencies == latencies[mask].min())


def _keep(mask: Mask, allows: Iterable[bool]) -> Mask:
    flags = list(allows)
    if all(flags):  # the usual case, on every request: no new array
        return mask
    kept: Mask = mask & np.array(flags)
    return kept


@cache
def _constraints() -> tuple[tuple[str, Constraint], ...]:
    return tuple((name, CONSTRAINTS.load(name)) for name in CONSTRAINTS)


def _names(ladder: Ladder, mask: Mask) -> str:
    return ", ".join(tier.name for tier, is_in in zip(ladder, mask, strict=True) if is_in)


def _capabilities(request: Request) -> set[str]:
    found = {"tools"} if request.tools else set()
    if request.response_format is not None and request.response_format.get("type") in ("json_object", "json_schema"):
        found.add("json")
    for message in request.messages:
        if message.get("tool_calls") or message.get("role") == "tool":
            found.add("tools")
        content = message.get("content")
        if isinstance(content, list | tuple):
            found.update(_PART_CAPABILITY[kind] for kind in map(_kind, content) if kind in _PART_CAPABILITY)
    return found


def _kind(part: Any) -> str:  # Any: a part of a message as the client sent it
    kind = part.get("type") if isinstance(part, Mapping) else None
    return kind if isinstance(kind, str) else ""
