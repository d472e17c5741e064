"""Clocks that jump, back and forth, by seconds and by years: everybody is served and nothing is lost."""

import asyncio
import functools
import json
import socket
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn

from router_ml.config import load_config
from router_ml.schema import Interaction
from router_ml.store import open_store
from router_ml.store.engine import connect, parse_url
from router_ml.store.sql import SqlStore
from router_ml_serving.app import create_app
from router_ml_serving.guard import GuardedProtocol
from router_ml_serving.recorder import PURGE_EVERY_S, Recorder
from router_ml_serving.settings import serving_settings
from tests.serving.conftest import TOML, put_bundle

T0 = datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC)
JUMPS = [
    timedelta(seconds=1), timedelta(hours=1), -timedelta(hours=1), -timedelta(days=1), timedelta(days=3650),
    -timedelta(days=3650), timedelta(days=-20_000), timedelta(days=40_000),
]  # fmt: skip


class Clock:
    """A time of day that jumps when it is told to."""

    def __init__(self):
        self.now = T0

    def __call__(self):
        self.now += timedelta(milliseconds=1)
        return self.now


def store_by(clock, folder):
    url = parse_url(f"sqlite:///{folder}/events.db")
    store = SqlStore(connect(url), "events.db", clock=clock)
    store.upgrade()
    return store


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def serving(tmp_path, upstream, clock):
    """The service in a thread, with that clock; returns its URL."""
    put_bundle(tmp_path / "models", "one")
    (tmp_path / "models" / "champion").write_text("one\n")
    lines = f'spill = "{tmp_path}/spill.jsonl"\nflush_s = 0.02\nreload_s = 0.1\nseed = 1'
    where = {"home": tmp_path, "upstream": upstream.url, "small": upstream.url}
    toml = TOML.format(**where, serving=lines, exploration="", toml="")
    toml = toml.replace("[serving]", "retention_days = 30\n[serving]")
    (tmp_path / "router.toml").write_text(toml)
    config = load_config(tmp_path / "router.toml", {})
    settings = serving_settings(config)
    store = store_by(clock, tmp_path)
    app = create_app(settings, config, store=store, environ={"SMALL_KEY": "k"}, clock=clock)
    listener = socket.create_server(("127.0.0.1", 0))
    http = functools.partial(GuardedProtocol, receive_s=settings.receive_s, send_s=settings.send_s)
    server = uvicorn.Server(uvicorn.Config(app, http=http, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield url
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def post(url, body):
    with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=20) as response:
        return json.loads(response.read())


def get(url):
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read()


def test_whatever_the_clock_does_requests_are_answered_and_recorded(serving, clock, tmp_path):
    told = {}
    for jump in JUMPS:
        clock.now += jump
        for stream in (False, True):
            session = {"session_id": "s"}
            body = {"messages": [{"role": "user", "content": "Hello"}], "router": session, "stream": stream}
            request = urllib.request.Request(f"{serving}/v1/chat/completions", json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=20) as response:
                assert b"The " in response.read()
                decision = response.headers["x-router-decision-id"]
            told[decision] = clock.now
            said = post(f"{serving}/v1/feedback", {"decision_id": decision, "adequate": True, "key": decision})
            assert said["recorded"]
        # What is older than the retention, by the clock when it is written, is not stored: it is written first.
        while b"router_ml_recorder_pending 0.0" not in get(f"{serving}/metrics"):
            time.sleep(0.01)
        assert json.loads(get(f"{serving}/v1/stats"))["policy_version"] == "one"
        assert json.loads(get(f"{serving}/v1/models"))["data"]
    deadline = time.monotonic() + 10
    found = {}
    while len(found) < len(told) and time.monotonic() < deadline:
        time.sleep(0.05)
        with open_store(f"sqlite:///{tmp_path}/events.db") as store:
            found = {one.id: one for one in store.scan()}
    assert sorted(found) == sorted(told)
    for id_, one in found.items():
        assert abs(one.ts - told[id_]) < timedelta(seconds=1)
        assert {item.key for item in one.feedback if item.source == "user"} == {id_}


def test_a_clock_that_jumps_ahead_deletes_nothing_before_it_has_stayed_there(tmp_path):
    now, seconds = [T0], [0.0]

    async def main(store):
        recorder = Recorder(
            store, spill=tmp_path / "spill", flush_s=0.005, retention=timedelta(days=30),
            clock=lambda: seconds[0], now=lambda: now[0],
        )  # fmt: skip
        await recorder.start()

        async def an_hour(jump=timedelta()):
            seconds[0] += PURGE_EVERY_S + 1
            now[0] += timedelta(seconds=PURGE_EVERY_S + 1) + jump
            await asyncio.sleep(0.1)
            return store.count()

        counts = [await an_hour(), await an_hour(timedelta(days=3650)), await an_hour(timedelta(days=-3650))]
        counts += [await an_hour(), await an_hour(timedelta(days=60)), await an_hour()]
        await recorder.close()
        return counts

    with open_store(f"sqlite:///{tmp_path}/events.db") as store:
        store.append([Interaction(id=f"i{n}", ts=T0 - timedelta(days=n)) for n in (0, 1, 40)])
        assert asyncio.run(main(store)) == [2, 2, 2, 2, 2, 0]


def test_what_a_clock_that_was_ahead_has_deleted_keeps_nothing_out_once_it_is_right(tmp_path, clock):
    clock.now = T0 + timedelta(days=3650)
    with store_by(clock, tmp_path) as store:
        store.delete(before=clock.now - timedelta(days=30))
        store.delete(tenant="acme")
        clock.now = T0
        store.append([Interaction(id="i1", ts=T0), Interaction(id="i2", ts=T0, tenant="acme")])
        store.delete(before=T0 - timedelta(days=30))
        store.append([Interaction(id="i3", ts=T0), Interaction(id="i4", ts=T0 - timedelta(days=31))])
        assert [one.id for one in store.scan()] == ["i1", "i2", "i3"]
