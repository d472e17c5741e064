"""Hard rules: which tiers may answer a request at all. A new rule is one function and one line in `CONSTRAINTS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeAlias

from router_ml.features import Features
from router_ml.ladder import Ladder
from router_ml.records import record
from router_ml.registry import Registry
from router_ml.schema import Request

__all__ = [
    "CONSTRAINTS",
    "NOTHING_SPECIAL",
    "Circumstances",
    "Constraint",
    "Context",
    "Mask",
    "Needs",
    "eligible",
    "keep",
    "needs_of",
]

# Which tiers are left, one flag per tier. With at most ten of them tuples are several times faster than arrays.
Mask: TypeAlias = tuple[bool, ...]

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
_NOTHING: frozenset[str] = frozenset()


@record
class Needs:
    """What a request asks of a tier: room for the prompt and the answer, in tokens, and capabilities."""

    input_tokens: float
    output_tokens: float
    capabilities: frozenset[str] = _NOTHING


@record
class Circumstances:
    """What holds at the moment of one request, beside the request itself.

    `unhealthy` tiers are failing upstream. `allowed` are the tiers that this tenant may use now (None: any; one of
    them at least has to be on the ladder). Nothing cheaper than `floor` answers, where another tier may;
    `floor_reason` says why. The prompt cache of tier `warm` holds `warm_tokens` of this prompt. `streaming` says that
    the client waits for the first token, so that plans that hold an answer must fit the budget of that token; a tier
    whose answer cannot be held then has to be adequate with `unheld_adequacy`, or nobody dearer may answer.
    `latency_ms` of whole answers and `ttft_ms` of first tokens are measured, one figure per tier in the order of the
    router's ladder (None: the ladder's, and unknown).
    """

    unhealthy: frozenset[str] = _NOTHING
    allowed: frozenset[str] | None = None
    floor: str | None = None
    floor_reason: str = ""
    warm: str | None = None
    warm_tokens: int = 0
    streaming: bool = False
    unheld_adequacy: float = 0.0
    latency_ms: tuple[float, ...] | None = None
    ttft_ms: tuple[float, ...] | None = None


NOTHING_SPECIAL = Circumstances()


@record
class Context:
    """What a request's use case allows, and what holds `now`.

    `allowed` are the tiers of the use case (None: any); `ttft_ms` and `total_ms` its budgets until the first token and
    for the whole answer (None: no limit).
    """

    allowed: frozenset[str] | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    now: Circumstances = NOTHING_SPECIAL


# Takes what the rules before it left, and returns what it leaves of that: the same object where that is all of it.
Constraint: TypeAlias = Callable[[Needs, Ladder, Context, Mask], Mask]

CONSTRAINTS: Registry[Constraint] = Registry(
    "constraint",
    {
        "allowed": "router_ml.constraints:allowed",
        "context_window": "router_ml.constraints:context_window",
        "capabilities": "router_ml.constraints:capabilities",
        "health": "router_ml.constraints:health",
        # These two yield where they would leave nobody: they come last, and time comes before what is remembered.
        "latency_budget": "router_ml.budgets:latency_budget",
        "floor": "router_ml.constraints:floor",
    },
)


def needs_of(request: Request, features: Features) -> Needs:
    """Return what a request asks of a tier."""
    limit = request.max_tokens
    return Needs(
        max(features.input_tokens, features.sent_tokens),
        float(_DEFAULT_OUTPUT_TOKENS if limit is None else limit),
        _capabilities(request),
    )


def eligible(needs: Needs, ladder: Ladder, context: Context) -> tuple[Mask, tuple[str, ...]]:
    """Apply every rule in order.

    When nothing is left, the allowed tiers with the largest context window answer: a request is never refused here,
    and never sent to a tier that its use case or tenant forbids.

    Returns:
        Which tiers may answer, at least one; and a phrase for every rule that took a tier away.
    """
    everyone = mask = ladder.everyone
    applied: list[str] = []
    for name, constraint in _constraints():
        left = constraint(needs, ladder, context, mask)
        if left is not mask:
            applied.append(f"{name} excludes {_names(ladder, mask, left)}{_why(name, ladder, context)}")
            mask = left
    if mask is everyone:
        return mask, ()
    if True in mask:
        return mask, tuple(applied)
    rest = allowed(needs, ladder, context, everyone)
    windows = [window if may else -1 for window, may in zip(ladder.windows, rest, strict=True)]
    if True not in rest:
        windows = list(ladder.windows)
    largest = max(windows)
    mask = tuple(window == largest for window in windows)
    kept = ", ".join(name for name, may in zip(ladder.names, mask, strict=True) if may)
    return mask, (*applied, f"no tier meets every rule: kept {kept} for the largest context window")


def allowed(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers that the use case and the tenant may use; the tenant's where no tier is both."""
    names, tenants = context.allowed, context.now.allowed
    if tenants is not None:
        names = tenants if names is None or _clash(ladder, context) else names & tenants
    return mask if names is None else keep(mask, (name in names for name in ladder.names))


def context_window(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers whose context window has room for the prompt and the answer."""
    tokens = needs.input_tokens * _ESTIMATE_MARGIN + needs.output_tokens
    if tokens <= ladder.smallest_window:
        return mask
    return keep(mask, (window >= tokens for window in ladder.windows))


def capabilities(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers that can do everything the request uses."""
    if not needs.capabilities:
        return mask
    return keep(mask, (needs.capabilities <= tier.capabilities for tier in ladder.tiers))


def health(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers that are not failing upstream."""
    unhealthy = context.now.unhealthy
    return keep(mask, (name not in unhealthy for name in ladder.names)) if unhealthy else mask


def floor(needs: Needs, ladder: Ladder, context: Context, mask: Mask) -> Mask:
    """Keep the tiers that are no cheaper than the floor; all of them when none is left of those."""
    lowest = ladder.places.get(context.now.floor or "", 0)
    if not lowest:
        return mask
    left = keep(mask, (i >= lowest for i in range(len(mask))))
    return left if True in left else mask


def keep(mask: Mask, allows: Iterable[bool]) -> Mask:
    """Return what is left of a mask: the same object where nothing was taken away."""
    kept = tuple([may and left for may, left in zip(allows, mask, strict=True)])
    return mask if kept == mask else kept


@cache
def _constraints() -> tuple[tuple[str, Constraint], ...]:
    return tuple((name, CONSTRAINTS.load(name)) for name in CONSTRAINTS)


def _clash(ladder: Ladder, context: Context) -> bool:
    return not (context.allowed or _NOTHING) & (context.now.allowed or _NOTHING) & ladder.places.keys()


def _names(ladder: Ladder, before: Mask, after: Mask) -> str:
    gone = (name for name, had, has in zip(ladder.names, before, after, strict=True) if had and not has)
    return ", ".join(gone)


def _why(name: str, ladder: Ladder, context: Context) -> str:
    """Return what a phrase has to add where the rule alone does not explain it."""
    now = context.now
    if name == "floor" and now.floor_reason:
        return f" ({now.floor_reason})"
    if name == "allowed" and context.allowed is not None and now.allowed is not None and _clash(ladder, context):
        return " (the tenant may use none of the use case's tiers: the tenant's rule wins)"
    return ""


def _capabilities(request: Request) -> frozenset[str]:
    found = {"tools"} if request.tools else set()
    form = request.response_format
    if form is not None and form.get("type") in ("json_object", "json_schema"):
        found.add("json")
    for message in request.messages:
        if message.get("tool_calls") or message.get("role") == "tool":
            found.add("tools")
        content = message.get("content")
        if not isinstance(content, str) and isinstance(content, list | tuple):
            found.update(_PART_CAPABILITY[kind] for kind in map(_kind, content) if kind in _PART_CAPABILITY)
    return frozenset(found) if found else _NOTHING


def _kind(part: Any) -> str:  # Any: a part of a message as the client sent it
    kind = part.get("type") if isinstance(part, Mapping) else None
    return kind if isinstance(kind, str) else ""
