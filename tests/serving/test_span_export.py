"""What is said about an export that fails, what cannot be asked for, and what the spans of a process begin with."""

import logging
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from router_ml.errors import ConfigError
from router_ml.ladder import Tier
from router_ml.schema import Attempt, Decision, Plan
from router_ml_serving import span_export
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.span_export import QuietExporter, open_tracing
from router_ml_serving.tracing import Tracing
from router_ml_serving.wire import read_chat

TIER = Tier(name="small", model="mini", input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
DECISION = Decision("d", "small", "mini", Plan("small"), "v", {}, {}, {"small": 1.0}, 1.0, 0.0, False, "asked for")
CHAT = read_chat({"messages": [{"role": "user", "content": "Hello"}]})


class Moody(SpanExporter):
    def __init__(self, *results):
        self.results = list(results)
        self.closed = False

    def export(self, spans):
        return self.results.pop(0)

    def shutdown(self):
        self.closed = True

    def force_flush(self, timeout_millis=30_000):
        return True


def test_a_collector_that_is_away_is_told_once_and_its_return_once(caplog):
    bad, good = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    inner = Moody(good, bad, bad, bad, good, good)
    exporter = QuietExporter(inner)
    with caplog.at_level(logging.INFO):
        results = [exporter.export([None, None]) for _ in range(6)]
    assert results == [good, bad, bad, bad, good, good]
    assert [record.message for record in caplog.records] == ["traces_not_exported", "traces_exported_again"]
    assert caplog.records[-1].lost == 6
    assert exporter.force_flush()
    exporter.shutdown()
    assert inner.closed


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "console"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_what_is_not_built_in_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name}: only .* is built in, got '{value}'"):
        open_tracing({name: value})


def test_text_is_never_captured_even_where_that_is_asked_for(caplog):
    with caplog.at_level(logging.WARNING):
        tracing = open_tracing({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"})
    assert [record.message for record in caplog.records] == ["traces_never_hold_text"]
    tracing.close()


def test_a_stopping_service_does_not_wait_for_its_collector(monkeypatch, caplog):
    monkeypatch.setattr(span_export, "CLOSE_S", 0.05)

    class Stuck:
        def shutdown(self):
            time.sleep(0.3)

    exporter = Moody()
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        span_export._close(Stuck(), exporter)
    assert time.monotonic() - started < 0.25
    assert exporter.closed
    assert [record.message for record in caplog.records] == ["traces_close_deadline"]


@pytest.fixture
def memory():
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider.get_tracer("test"), provider.shutdown, wall_ns=lambda: 10**18, now_s=lambda: 5.0)
    yield tracing, exporter
    tracing.close()


def test_moments_on_the_exchanges_clock_become_the_time_of_day(memory):
    tracing, exporter = memory
    trace = tracing.request("/v1/chat/completions", (), CHAT, 4.5)
    assert len(trace.trace_id) == 32
    trace.attempt(TIER, 4.6)
    attempt = Attempt(tier="small", latency_ms=300.0, ttft_ms=100.0)
    trace.finish(DECISION, [AttemptResult(attempt)], overhead_ms=1.0, ended_s=5.0, answered_s=4.75)
    call, request = exporter.get_finished_spans()
    assert (request.start_time, request.end_time) == (10**18 - 5 * 10**8, 10**18)
    assert (call.start_time, call.end_time) == (10**18 - 4 * 10**8, 10**18 - 10**8)
    assert request.attributes["gen_ai.response.time_to_first_chunk"] == 0.25


def test_a_call_that_ended_in_an_unforeseen_way_is_an_error(memory):
    tracing, exporter = memory
    trace = tracing.request("/v1/chat/completions", (), CHAT, 5.0)
    trace.attempt(TIER, 5.0)
    trace.finish(DECISION, [], overhead_ms=0.0, ended_s=5.0)
    assert [span.attributes["error.type"] for span in exporter.get_finished_spans()] == ["_OTHER", "_OTHER"]
    assert not any(span.status.is_ok for span in exporter.get_finished_spans())


def test_background_calls_are_marked_and_outlive_the_request(memory):
    tracing, exporter = memory
    trace = tracing.request("/v1/chat/completions", (), CHAT, 5.0)
    trace.finish(DECISION, [AttemptResult(Attempt(tier="small"))], overhead_ms=0.0, ended_s=5.0)
    call = trace.beside(TIER, 5.0)
    call.end(AttemptResult(Attempt(tier="small", finish_reason="stop", latency_ms=1.0)))
    request, background = exporter.get_finished_spans()
    assert background.parent.span_id == request.context.span_id
    assert background.attributes["router.background"] is True
    assert background.kind is SpanKind.CLIENT


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"00-zz-1-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"])
def test_a_broken_traceparent_begins_a_new_trace(memory, value):
    tracing, exporter = memory
    tracing.refused("/v1/route", [(b"traceparent", value), (b"tracestate", b"\xff")], status=503, code="bundle_error")
    (span,) = exporter.get_finished_spans()
    assert span.parent is None
    assert not span.status.is_ok
