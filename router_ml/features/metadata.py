"""Id block: who asks, from where, with which template. Often worth more than the words."""

from __future__ import annotations

from functools import lru_cache

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
    return [_remembered(fact) if len(fact) <= _REMEMBERED_CHARS else _bucket(fact) for fact in _facts(view)]


def _bucket(fact: str) -> int:
    return N_TEXT_BUCKETS + bucket_of(fact, _KIND) % N_METADATA_BUCKETS


# The same tenants, features and templates come again and again. Both bounds together keep it under a few megabytes.
_REMEMBERED_CHARS = 256
_remembered = lru_cache(maxsize=4096)(_bucket)


def _facts(view: RequestView) -> list[str]:
    request = view.request
    tenant, feature = request.tenant, request.feature
    tools = ",".join(sorted(_tool_name(tool) for tool in request.tools)) if request.tools else ""
    facts = (
        ("tenant", tenant),
        ("feature", feature),
        ("use_case", request.use_case),
        ("tenant+feature", f"{tenant}+{feature}" if tenant and feature else None),
        ("template", view.system[:_TEMPLATE_CHARS]),
        ("tools", tools),
        ("turn", str(min(view.turns["user"], 6))),
    )
    return [f"{name}={value}" for name, value in facts if value]


def _tool_name(tool: object) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    return str(function.get("name", "")) if isinstance(function, dict) else ""
