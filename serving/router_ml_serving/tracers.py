"""Whether spans are made at all: the only door to `tracing`, so that OpenTelemetry is imported where it is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from router_ml.registry import require
from router_ml_serving.settings import ServingSettings

if TYPE_CHECKING:
    from router_ml_serving.tracing import Tracing

__all__ = ["tracing_of"]

_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def tracing_of(settings: ServingSettings, environ: Mapping[str, str]) -> Tracing | None:
    """Return what makes spans, or None with `serving.traces` off: then nothing is imported and nothing is spent.

    Args:
        settings: `[serving]` of the configuration.
        environ: The process's environment, for the OTEL_ variables.

    Raises:
        MissingExtra: When OpenTelemetry is not installed.
        ConfigError: When an OTEL_ variable asks for what is not built in.
    """
    if not settings.traces:
        return None
    for module in _NEEDED:
        require(module, extra="otel", why="send traces (serving.traces)")
    from router_ml_serving.span_export import open_tracing

    return open_tracing(environ)
