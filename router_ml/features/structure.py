"""Dense block: the shape of the request: turns, roles, tools, output format, attachments, limits."""

from __future__ import annotations

from math import log1p

from router_ml.features.view import RequestView

__all__ = ["COLUMNS", "compute"]

_FOLLOW_UP_CHARS = 80
# A limit beyond every context window says no more than this one, however absurd the number.
_MOST_TOKENS = 10_000_000

COLUMNS: tuple[str, ...] = (
    "log_user_turns",
    "log_assistant_turns",
    "log_tool_turns",
    "log_system_chars",
    "log_user_chars",
    "log_assistant_chars",
    "log_tool_chars",
    "log_input_tokens",
    "log_last_turn_chars",
    "is_follow_up",
    "log_tools",
    "log_tool_schema_chars",
    "wants_json",
    "log_output_schema_chars",
    "log_images",
    "log_other_attachments",
    "has_max_tokens",
    "log_max_tokens",
)


def compute(view: RequestView) -> list[float]:
    """Return one value per column; counts are log(1 + count), flags 0 or 1."""
    request = view.request
    limit = request.max_tokens
    return [
        log1p(view.turns["user"]),
        log1p(view.turns["assistant"]),
        log1p(view.turns["tool"]),
        log1p(view.chars["system"]),
        log1p(view.user_chars),
        log1p(view.chars["assistant"]),
        log1p(view.chars["tool"]),
        log1p(view.input_tokens),
        log1p(view.last_chars),
        float(view.turns["user"] > 1 and view.last_chars < _FOLLOW_UP_CHARS),
        log1p(len(request.tools or ())),
        log1p(view.tool_chars),
        float(_wants_json(view)),
        log1p(view.schema_chars),
        log1p(view.parts["image"]),
        log1p(view.parts["audio"] + view.parts["file"]),
        float(limit is not None),
        log1p(min(max(limit or 0, 0), _MOST_TOKENS)),
    ]


def _wants_json(view: RequestView) -> bool:
    form = view.request.response_format
    return form is not None and form.get("type") in ("json_object", "json_schema")
