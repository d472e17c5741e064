"""Id block: who asks, from where, with which template. Often worth more than the words."""

from __future__ import annotations

from router_ml.features.scan import N_TEXT_BUCKETS, bucket_of
from router_ml.features.view import RequestView

__all__ = ["N_METADATA_BUCKETS", "compute"]

# Metadata has few distinct values; its buckets follow those of the text, so the two never collide.
N_METADATA_BUCKETS = 1 << 12
_KIND = 3
# The head of the system prompt names the template; what follows is often filled in per request.
_TEMPLATE_CHARS = 160


def compute(view: RequestView) -> list[int]:
    """Return one metadata bucket per known fact, in [N_TEXT_BUCKETS, N_TEXT_BUCKETS + N_METADATA_BUCKETS)."""
    return [
        N_TEXT_BUCKETS + bucket_of(f"{name}={value}", _KIND) % N_METADATA_BUCKETS
        for name, value in _facts(view)
        if value
    ]


def _facts(view: RequestView) -> list[tuple[str, str | None]]:
    request = view.request
    tenant, feature = request.tenant, request.feature
    tools = ",".join(sorted(_tool_name(tool) for tool in request.tools or ()))
    return [
        ("tenant", tenant),
        ("feature", feature),
        ("use_case", request.use_case),
        ("tenant+feature", f"{tenant}+{feature}" if tenant and feature else None),
        ("template", view.system[:_TEMPLATE_CHARS]),
        ("tools", tools),
        ("turn", str(min(view.turns["user"], 6))),
    ]


def _tool_name(tool: object) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    return str(function.get("name", "")) if isinstance(function, dict) else ""
