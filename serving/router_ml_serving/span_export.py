"""Where spans go: OpenTelemetry's SDK, its batch thread, and an OTLP/HTTP collector; all by the OTEL_ variables."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from router_ml import __version__
from router_ml.errors import ConfigError
from router_ml_serving.tracing import Tracing

__all__ = ["CLOSE_S", "QuietExporter", "open_tracing"]

log = logging.getLogger(__name__)

# How long a stopping service waits for its collector.
CLOSE_S = 3.0
_NAME = "router-ml"
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
# What a person may ask for by the standard variables, and the only thing that is built in.
_ONLY = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
}
_TRUE = frozenset({"true", "1", "span_only", "event_only", "span_and_event"})


def open_tracing(environ: Mapping[str, str]) -> Tracing:
    """Start the export of spans.

    Args:
        environ: Looked at for what cannot be done; the SDK reads the process's own variables for all the rest.

    Raises:
        ConfigError: When an OTEL_ variable asks for another exporter or protocol.
    """
    for name, only in _ONLY.items():
        asked = environ.get(name, "").strip().lower()
        if asked not in ("", only):
            raise ConfigError(
                f"{name}: only {only} is built in, got '{asked}'; unset it, or set serving.traces = false"
            )
    if environ.get(_CAPTURE, "").strip().lower() in _TRUE:
        log.warning("traces_never_hold_text", extra={"variable": _CAPTURE})
    exporter = QuietExporter(OTLPSpanExporter())
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider.get_tracer(_NAME, __version__), lambda: _close(provider, exporter))


class QuietExporter(SpanExporter):
    """Exports as another does, and says once when that fails and once when it works again.

    The SDK's own logger would say so for every batch and every retry, with addresses in it: it is silenced.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch; what a collector does not take within the SDK's retries is lost."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                log.warning("traces_not_exported", extra={"spans": len(spans)})
            self._lost += len(spans)
        elif self._lost:
            log.info("traces_exported_again", extra={"lost": self._lost})
            self._lost = 0
        return result

    def shutdown(self) -> None:
        """Stop retrying."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter itself holds back."""
        return self._exporter.force_flush(timeout_millis)


def _close(provider: TracerProvider, exporter: SpanExporter) -> None:
    # The SDK would wait for half a minute; a service that stops has not got that.
    closing = threading.Thread(target=provider.shutdown, name="traces-close", daemon=True)
    closing.start()
    closing.join(CLOSE_S)
    if closing.is_alive():
        log.warning("traces_close_deadline", extra={"waited_s": CLOSE_S})
        exporter.shutdown()


def _resource() -> Resource:
    given = OTELResourceDetector().detect().attributes
    return Resource.create({"service.name": _NAME, "service.version": __version__, **given})
