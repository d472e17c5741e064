"""What a look at the traffic found is among the service's metrics as soon as the file is there, and only then."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from router_ml.watch import WATCH, Watch, WatchedAlarm, WatchedDrift, write_watch
from router_ml_serving.telemetry import Telemetry

TIME = datetime(2026, 3, 1, tzinfo=UTC)


def a_watch(*, rings: bool = True, bundle: str = "v1") -> Watch:
    alarm = WatchedAlarm(
        kind="quality", tier="small", direction="fall", evidence=9.0, limit=8.0, rings=rings, text="it fell"
    )
    line = WatchedDrift(name="text.log_words", kind="feature", distance=0.3, limit=0.2, drifted=True)
    return Watch(checked=TIME, bundle=bundle, since=TIME, until=TIME, n=3, drift=(line,), alarms=(alarm,))


@pytest.fixture
def telemetry(tmp_path: Path) -> Telemetry:
    one = Telemetry()
    one.watch_traffic(tmp_path, lambda: TIME + timedelta(hours=1))
    return one


def shown(telemetry: Telemetry) -> list[str]:
    words = ("router_ml_drift", "router_ml_alarm", "router_ml_watch")
    return [line for line in telemetry.exposition().decode().splitlines() if line.startswith(words)]


def test_before_the_first_look_nothing_is_shown(telemetry: Telemetry) -> None:
    assert shown(telemetry) == []


def test_a_look_is_shown_with_its_age(telemetry: Telemetry, tmp_path: Path) -> None:
    write_watch(tmp_path, a_watch())
    assert shown(telemetry) == [
        'router_ml_drift{kind="feature",name="text.log_words"} 1.4999999999999998',
        'router_ml_drifted{kind="feature",name="text.log_words"} 1.0',
        'router_ml_alarm{direction="fall",kind="quality",tier="small"} 1.0',
        'router_ml_watch_age_seconds{bundle="v1"} 3600.0',
    ]
    assert telemetry.stats()["alarm"] == {"quality,small,fall": 1.0}


def test_a_golden_set_alone_has_no_age_of_a_look_at_the_traffic(telemetry: Telemetry, tmp_path: Path) -> None:
    write_watch(tmp_path, a_watch().model_copy(update={"n": 0, "drift": ()}))
    found = shown(telemetry)
    assert any("router_ml_alarm{" in line for line in found)
    assert [line for line in found if "watch_age" in line] == []


def test_the_next_look_replaces_it(telemetry: Telemetry, tmp_path: Path) -> None:
    write_watch(tmp_path, a_watch())
    shown(telemetry)
    write_watch(tmp_path, a_watch(rings=False, bundle="v2"))
    found = shown(telemetry)
    assert 'router_ml_alarm{direction="fall",kind="quality",tier="small"} 0.0' in found
    assert [line for line in found if "bundle" in line] == ['router_ml_watch_age_seconds{bundle="v2"} 3600.0']
    (tmp_path / WATCH).unlink()
    assert shown(telemetry) == []


def test_a_bad_file_shows_nothing_and_is_logged_once(
    telemetry: Telemetry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_watch(tmp_path, a_watch())
    assert shown(telemetry)
    (tmp_path / WATCH).write_text("half a fi")
    with caplog.at_level(logging.WARNING):
        assert shown(telemetry) == shown(telemetry) == []
    assert [record.getMessage() for record in caplog.records] == ["watch_unreadable"]


def test_an_unchanged_file_is_not_read_again(telemetry: Telemetry, tmp_path: Path) -> None:
    path = write_watch(tmp_path, a_watch())
    facts = path.stat()
    before = shown(telemetry)
    with path.open("r+b") as file:  # the same file, length and date
        file.write(b"x")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert shown(telemetry) == before


@pytest.mark.e2e
def test_a_running_service_shows_a_look_and_answers_on_after_a_bad_file(start_service: Any, call: Any) -> None:
    service = start_service()
    rings = 'router_ml_alarm{direction="fall",kind="quality",tier="small"}'
    assert service.metric('router_ml_watch_age_seconds{bundle="v1"}') == 0.0
    write_watch(service.home / "models", a_watch())
    assert service.metric(rings) == 1.0
    assert service.metric('router_ml_watch_age_seconds{bundle="v1"}') > 0.0
    (service.home / "models" / WATCH).write_bytes(b"\xff{")
    assert service.metric(rings) == 0.0
    assert call(f"{service.url}/metrics").status == 200
    assert "watch_unreadable" in (service.home / "log").read_text()
