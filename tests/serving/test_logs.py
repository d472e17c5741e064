"""One line per event, with its fields, as text or JSON; exceptions say where, and never what they were about."""

import json
import logging
import sys

import pytest

from router_ml.errors import StoreError
from router_ml_serving.logs import FieldFormatter, JsonFormatter


def made(message, **fields):
    return logging.makeLogRecord({"msg": message, "levelname": "WARNING", "created": 0.0, "name": "a.b", **fields})


def record(message, **fields):
    return FieldFormatter().format(made(message, **fields))


def failing(error, cause=None):
    try:
        raise error from cause
    except type(error):
        return sys.exc_info()


def test_fields_stand_beside_the_event():
    assert record("bundle_refused", reason="bad", tries=2) == (
        "1970-01-01T00:00:00.000+00:00 warning bundle_refused reason='bad' tries=2"
    )


def test_json_is_one_object_per_line_whatever_the_fields_hold():
    line = JsonFormatter().format(made("bundle_refused", reason="ba\nd \ud800 é", path=StoreError, level="mine"))
    assert "\n" not in line
    said = json.loads(line)
    assert list(said)[:3] == ["ts", "level", "event"]
    assert (said["ts"], said["level"], said["event"]) == ("1970-01-01T00:00:00.000+00:00", "warning", "bundle_refused")
    assert (said["logger"], said["reason"]) == ("a.b", "ba\nd \ud800 é")


@pytest.mark.parametrize("form", [FieldFormatter(), JsonFormatter()])
def test_a_stack_tells_the_way_and_only_messages_that_quote_nobody(form):
    line = form.format(made("failed", exc_info=failing(StoreError("no space"), ValueError("the prompt"))))
    assert "test_logs.py" in line
    assert "StoreError: no space" in line
    assert "caused by" in line
    assert "ValueError" in line
    assert "the prompt" not in line
    assert "No such file" in form.format(made("failed", exc_info=failing(FileNotFoundError(2, "No such file"))))


def test_what_comes_below_the_first_line_of_a_message_is_left_out():
    # As asyncio reports a task that nobody waited for: with its exception, and so its message.
    said = "Task exception was never retrieved\nfuture: <Task exception=ValueError('the prompt')>"
    assert record(said).endswith("Task exception was never retrieved")


def test_the_service_logs_requests_as_json_without_their_text(start_service, call):
    service = start_service(log_format="json", log_requests=True)
    reply = service.ask("the prompt [mini=idk]")
    failed = service.ask("the prompt [mini=500][maxi=reset]")
    assert (reply.status, failed.status) == (200, 502)
    call(f"{service.url}/healthz")
    service.process.stop()
    lines = [json.loads(line) for line in service.process.log.read_text().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    first, second, third = requests
    expected = {
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "tier": "large",
        "attempts": 2,
        "decision_id": reply.json["router"]["decision_id"],
    }
    assert expected.items() <= first.items()
    assert first["ms"] > 0
    assert (second["status"], third["path"]) == (502, "/healthz")
    (why,) = [line for line in lines if line["event"] == "request_failed"]
    assert why["decision_id"] == second["decision_id"]
    assert (why["level"], why["error"], why["attempts"]) == ("warning", "reset", 2)
    assert lines[0]["event"].startswith("listening on http://")
    assert "the prompt" not in service.process.log.read_text()


def test_the_level_hides_what_is_below_it(start_service):
    service = start_service(log_level="error", log_requests=True)
    assert service.ask("Hi [mini=500][maxi=500]").status == 500
    service.process.stop()
    assert service.process.log.read_text().splitlines() == [f"listening on {service.url}"]
