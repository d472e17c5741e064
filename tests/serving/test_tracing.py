"""Spans of a real service at a real OTLP/HTTP collector: parents, names, attributes, and never a word of text."""

import http.client
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # pragma: allowlist secret
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
CANARY = "xyzzy-canary"


class Collector:
    """A collector in a thread: keeps every span that arrives, and all bytes they came in."""

    def __init__(self):
        self.raw, self.spans, self.resources = b"", [], []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                raw = self.rfile.read(int(self.headers["content-length"]))
                collector.take(raw)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, raw):
        self.raw += raw
        for resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
            self.resources.append(values(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def of(self, decision_id, name="chat auto"):
        """Return a decision's own span and its children, oldest first, once they are here."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for span in list(self.spans):
                if span.name == name and values(span.attributes).get("router.decision_id") == decision_id:
                    children = [one for one in self.spans if one.parent_span_id == span.span_id]
                    return span, sorted(children, key=lambda one: one.start_time_unix_nano)
            time.sleep(0.02)
        raise AssertionError(f"no span {name} of {decision_id} among {[span.name for span in self.spans]}")


def values(attributes):
    found = {}
    for item in attributes:
        kind = item.value.WhichOneof("value")
        value = getattr(item.value, kind)
        found[item.key] = [one.string_value for one in value.values] if kind == "array_value" else value
    return found


@pytest.fixture(scope="module")
def collector():
    one = Collector()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture(scope="module")
def traced(start_service, collector):
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    return start_service(traces=True, env=env)


def ask(call, service, prompt, headers=None, **fields):
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], **fields}
    return call(f"{service.url}/v1/chat/completions", body, headers=headers)


def test_an_escalation_is_one_span_with_a_child_for_each_call(call, traced, collector, upstream):
    upstream.calls()
    sent = {"traceparent": TRACEPARENT, "tracestate": "a=b", "x-session-id": "s-1", "x-router-feature": "search"}
    reply = ask(call, traced, f"{CANARY} [mini=idk]", sent, max_tokens=50)
    assert reply.status == 200
    span, children = collector.of(reply.json["router"]["decision_id"])
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT), "the client's trace goes on"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.status.code == Status.STATUS_CODE_UNSET
    facts = values(span.attributes)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "auto",
        "gen_ai.request.stream": False,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.conversation.id": "s-1",
        "gen_ai.response.model": "maxi",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "router.feature": "search",
        "router.tier": "large",
        "router.attempts": 2,
        "router.policy_version": "one",
        "router.explored": False,
        "router.quality": 0.97,
        "http.response.status_code": 200,
    }
    assert expected.items() <= facts.items()
    assert facts["router.adequacy.small"] == pytest.approx(0.6)
    assert facts["router.cost_usd"] == pytest.approx((100 * 2.65 + 20 * 10.6) / 1e6)
    assert facts["router.expected_cost_usd.large"] > facts["router.expected_cost_usd.small"] > 0.0
    assert facts["router.overhead_ms"] >= 0.0
    assert facts["gen_ai.response.time_to_first_chunk"] > 0.0
    small, large = children
    assert [child.name for child in children] == ["chat mini", "chat maxi"]
    assert {child.kind for child in children} == {Span.SPAN_KIND_CLIENT}
    assert span.start_time_unix_nano <= small.start_time_unix_nano <= small.end_time_unix_nano
    assert small.end_time_unix_nano <= large.start_time_unix_nano <= large.end_time_unix_nano <= span.end_time_unix_nano
    facts = values(small.attributes)
    assert facts["server.address"] == "127.0.0.1"
    assert facts["router.verdict.adequate"] is False
    assert facts["router.verdict.source"] == "rule"
    (event,) = small.events
    assert event.name == "gen_ai.evaluation.result"
    judged = values(event.attributes)
    assert judged == {
        "gen_ai.evaluation.name": "rule",
        "gen_ai.evaluation.score.label": "inadequate",
        "router.tier": "small",
    }
    handed_on = [{name.lower(): value for name, value in one["headers"].items()} for one in upstream.calls()]
    assert [one["traceparent"] for one in handed_on] == [f"00-{TRACE}-{child.span_id.hex()}-01" for child in children]
    assert {one["tracestate"] for one in handed_on} == {"a=b"}


def test_a_failure_of_every_tier_is_an_error_with_its_kind(call, traced, collector):
    reply = ask(call, traced, "Hi [mini=400]")
    span, (only,) = collector.of(reply.headers["x-router-decision-id"])
    assert reply.status == 400
    for one in (span, only):
        assert one.status.code == Status.STATUS_CODE_ERROR
        assert values(one.attributes)["error.type"] == "400"
        assert values(one.attributes)["http.response.status_code"] == 400


@pytest.mark.parametrize(
    ("prompt", "model", "calls"), [("Hi", "large", ["maxi"]), ("Hi [mini=idk]", "auto", ["mini", "maxi"])]
)
def test_streams_have_the_time_of_their_first_chunk(call, traced, collector, prompt, model, calls):
    reply = ask(call, traced, prompt, stream=True, model=model)
    span, children = collector.of(reply.headers["x-router-decision-id"], f"chat {model}")
    assert [child.name for child in children] == [f"chat {name}" for name in calls]
    facts = values(span.attributes)
    assert facts["gen_ai.request.stream"] is True
    assert (
        0.0
        < facts["gen_ai.response.time_to_first_chunk"]
        <= (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    )
    assert facts["gen_ai.response.model"] == "maxi"
    last = values(children[-1].attributes)
    assert last["gen_ai.response.finish_reasons"] == ["stop"]
    assert last["gen_ai.response.time_to_first_chunk"] > 0.0


def test_a_client_that_hangs_up_is_seen(traced, collector):
    where = urlsplit(traced.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
    body = {"model": "large", "stream": True, "messages": [{"role": "user", "content": "Hi [maxi=paced]"}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    decision_id = response.headers["x-router-decision-id"]
    response.read(10)
    response.close()
    connection.close()
    span, (only,) = collector.of(decision_id, "chat large")
    for one in (span, only):
        assert values(one.attributes)["error.type"] == "cancelled"
    assert values(only.attributes)["gen_ai.usage.input_tokens"] >= 1, "what was begun is billed"


def test_a_decision_alone_is_one_span(call, traced, collector):
    body = {"messages": [{"role": "user", "content": CANARY}]}
    reply = call(f"{traced.url}/v1/route", body, headers={"traceparent": TRACEPARENT}).json
    span, children = collector.of(reply["decision_id"], "route")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert children == []
    assert values(span.attributes)["router.reason"] == reply["reason"]


def test_feedback_is_an_event_without_its_reason(call, traced, collector):
    decision_id = ask(call, traced, "Hi").json["router"]["decision_id"]
    said = [
        {"source": "user", "adequate": False, "reason": f"said {CANARY}"},
        {"source": "judge", "tier": "small", "score": 0.25},
    ]
    assert call(f"{traced.url}/v1/feedback", {"decision_id": decision_id, "verdicts": said}).status == 200
    span, _ = collector.of(decision_id, "feedback")
    user, judge = [values(event.attributes) for event in span.events]
    assert user == {
        "gen_ai.evaluation.name": "user",
        "gen_ai.evaluation.score.label": "inadequate",
        "router.decision_id": decision_id,
    }
    assert judge["gen_ai.evaluation.score.value"] == 0.25
    assert judge["router.tier"] == "small"


def test_a_refused_request_is_a_span_too(call, traced, collector):
    trace = "1" * 32
    reply = ask(call, traced, CANARY, {"traceparent": f"00-{trace}-{PARENT}-01"}, model="nobody")
    assert reply.status == 404
    deadline = time.monotonic() + 10
    while (
        not (found := [one for one in collector.spans if one.trace_id.hex() == trace]) and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    (span,) = found
    assert span.name == "POST /v1/chat/completions"
    assert values(span.attributes)["http.response.status_code"] == 404
    assert values(span.attributes)["error.type"] == reply.json["error"]["code"]


def test_who_asks_not_to_be_traced_is_not(call, traced, collector, upstream):
    trace = "2" * 32
    upstream.calls()
    decision_id = ask(call, traced, "Hi", {"traceparent": f"00-{trace}-{PARENT}-00"}).json["router"]["decision_id"]
    (sent,) = upstream.calls()
    headers = {name.lower(): value for name, value in sent["headers"].items()}
    assert headers["traceparent"].startswith(f"00-{trace}-")
    assert headers["traceparent"].endswith("-00")
    later = ask(call, traced, "Hi").json["router"]["decision_id"]
    collector.of(later)
    assert decision_id not in {values(span.attributes).get("router.decision_id") for span in collector.spans}


def test_no_span_holds_any_text(call, traced, collector):
    tools = [{"type": "function", "function": {"name": f"{CANARY}-tool", "parameters": {}}}]
    messages = [{"role": "system", "content": f"{CANARY} system"}, {"role": "user", "content": f"{CANARY} [mini=idk]"}]
    for stream in (False, True):
        body = {"model": "auto", "messages": messages, "tools": tools, "stream": stream}
        reply = call(f"{traced.url}/v1/chat/completions", body)
        collector.of(reply.headers["x-router-decision-id"])
    assert collector.raw
    for text in (CANARY, "The answer of", "I don't know", "[mini=", "sk-small"):
        assert text.encode() not in collector.raw
    assert collector.resources[-1]["service.name"] == "router-ml"


def test_a_collector_that_is_away_costs_nobody_anything(call, start_service):
    # Port 9 discards; nobody listens on it.
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "20"}
    service = start_service(traces=True, env=env | {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"})
    started = time.monotonic()
    while "traces_not_exported" not in service.process.log.read_text():
        assert ask(call, service, "Hi").status == 200
        assert time.monotonic() < started + 15
        time.sleep(0.02)
    for _ in range(5):
        assert ask(call, service, "Hi").status == 200
        time.sleep(0.05)
    stopping = time.monotonic()
    assert service.process.stop() == 0
    assert time.monotonic() - stopping < 8
    log = service.process.log.read_text()
    assert log.count("traces_not_exported") == 1, log
    assert "Traceback" not in log
    assert "127.0.0.1:9" not in log


def test_a_variable_that_asks_for_more_than_there_is_is_refused(start_service):
    with pytest.raises(BaseException, match="OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is built in, got 'grpc'"):
        start_service(traces=True, env={"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
