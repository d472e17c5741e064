"""Alerts: to the log always, to a webhook once in a while, over real HTTP; failure is a warning."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from router_ml.errors import ConfigError
from router_ml_training import alerts as module
from router_ml_training.alerts import Alert, raise_alerts, webhook_of
from router_ml_training.settings import AlertSettings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FELL = Alert("quality", "small fall", "quality of small fell from 90.0% to 70.0%")
DRIFTED = Alert("drift", "text.log_words", "text.log_words has drifted")
SETTINGS = AlertSettings(timeout_s=2.0, pause_s=3600.0)


@dataclass
class Hook:
    """A webhook: what it was sent, and what it answers, in turn."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)


@pytest.fixture
def hook() -> Iterator[Hook]:
    one = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            one.got.append((self.path, self.headers["content-type"], json.loads(body)))
            status = one.answers.pop(0) if one.answers else 204
            self.send_response(status)
            if status == 302:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        one.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        yield one
        server.shutdown()
        thread.join()


def send(alerts: list[Alert], hook: Hook | None, sent: dict[str, datetime] | None = None, after_s: float = 0.0) -> Any:
    now = NOW + timedelta(seconds=after_s)
    return raise_alerts(
        alerts, SETTINGS, bundle="v1", sent=sent or {}, now=now, webhook=None if hook is None else hook.url
    )


def test_all_that_is_due_is_one_post_of_json(hook: Hook) -> None:
    sent = send([FELL, DRIFTED], hook)
    assert sent == {FELL.key: NOW, DRIFTED.key: NOW}
    [(path, kind, body)] = hook.got
    assert (path, kind) == ("/hook", "application/json")
    assert body["bundle"] == "v1"
    assert body["checked"] == NOW.isoformat()
    assert body["alerts"][0] == {"kind": "quality", "name": "small fall", "text": FELL.text}
    assert FELL.text in body["text"]


def test_the_same_alert_waits_for_the_pause_and_a_new_one_does_not(hook: Hook) -> None:
    sent = send([FELL], hook)
    assert send([FELL], hook, sent, after_s=3599) == sent
    assert len(hook.got) == 1
    both = send([FELL, DRIFTED], hook, sent, after_s=3599)
    assert [one["name"] for one in hook.got[1][2]["alerts"]] == ["text.log_words"]
    again = send([FELL, DRIFTED], hook, both, after_s=3600)
    assert [one["name"] for one in hook.got[2][2]["alerts"]] == ["small fall"]
    assert again[FELL.key] == NOW + timedelta(seconds=3600)


def test_an_alert_that_is_over_may_come_back_at_once(hook: Hook) -> None:
    assert send([], hook, {FELL.key: NOW}, after_s=10) == {}
    assert hook.got == []


def test_it_is_tried_twice(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BETWEEN_S", 0.01)
    hook.answers = [503]
    assert send([FELL], hook) == {FELL.key: NOW}
    assert len(hook.got) == 2


@pytest.mark.parametrize("status", [500, 302], ids=["refused", "sent elsewhere"])
def test_a_webhook_that_does_not_take_it_is_a_warning_and_tried_at_the_next_look(
    hook: Hook, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_BETWEEN_S", 0.01)
    hook.answers = [status, status]
    assert send([FELL], hook) == {}
    assert {path for path, _, _ in hook.got} == {"/hook"}
    assert f"the webhook answered {status}" in caplog.text
    assert send([FELL], hook, {}, after_s=1) == {FELL.key: NOW + timedelta(seconds=1)}


def test_a_webhook_that_is_away_is_a_warning_without_its_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_BETWEEN_S", 0.01)
    assert send([FELL], Hook("http://127.0.0.1:9/secret-token")) == {}
    assert "cannot be reached (ConnectionRefusedError)" in caplog.text
    assert "secret-token" not in caplog.text


def test_without_a_webhook_the_log_says_it_every_time(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert send([FELL], None) == {}
    assert [record.getMessage() for record in caplog.records] == [f"alert: {FELL.text}"] * 2
    assert caplog.records[0].levelno == logging.WARNING


def test_the_url_comes_from_the_environment() -> None:
    settings = AlertSettings(webhook_env="HOOK")
    assert webhook_of(settings, {"HOOK": " https://hooks.example/x?y=1 "}) == "https://hooks.example/x?y=1"
    assert webhook_of(AlertSettings(), {"HOOK": "https://hooks.example"}) is None


@pytest.mark.parametrize(
    "value", ["", "ftp://host/x", "file:///etc/passwd", "hooks.example/x", "http://", "http://[::1", "http://h:99999/x"]
)
def test_what_is_no_web_address_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ConfigError, match="HOOK") as caught:
        webhook_of(AlertSettings(webhook_env="HOOK"), {"HOOK": value})
    assert len(value) < 8 or value not in str(caught.value)
