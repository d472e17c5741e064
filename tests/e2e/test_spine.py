"""The whole path with real processes: upstream, service, client, a crash, a restart, a new champion."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from router_ml.bundle import Manifest, load_bundle
from router_ml.shelf import Shelf
from router_ml.store import open_store
from router_ml_training.demo.material import config_text, ladder_of
from router_ml_training.demo.processes import standin
from router_ml_training.ingest import ingest
from router_ml_training.pipeline import train_bundle
from router_ml_training.reading import Log, read_dataset
from router_ml_training.settings import TrainingSettings
from router_ml_training.simulate.outcomes import OutcomeTable, outcome_table
from router_ml_training.simulate.policies import LogOptions, simulate_log
from router_ml_training.simulate.workload import generate
from router_ml_training.sources import SOURCES, SourceOptions

pytestmark = pytest.mark.e2e

START_S = 60.0


@pytest.fixture(scope="module")
def table() -> OutcomeTable:
    frame = generate(700, rng=np.random.default_rng(3))
    return outcome_table(frame, {"small": "gpt-4o-mini", "large": "gpt-4o"})


@pytest.fixture(scope="module")
def home(table: OutcomeTable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two running upstreams, a configuration, a log and a first champion."""
    folder = tmp_path_factory.mktemp("home")
    upstream = folder / "upstream.parquet"
    table.frame.write_parquet(upstream)
    with standin(upstream, "gpt-4o-mini") as small, standin(upstream, "gpt-4o") as large:
        ladder = ladder_of(table, {"small": small, "large": large})
        text = config_text(ladder, directory=folder, quality=0.97, seed=0, learners=["constant", "linear"])
        (folder / "router.toml").write_text(text)
        raw = folder / "log.jsonl"
        with raw.open("w") as file:
            options = LogOptions(audit_share=0.5)
            for interaction in simulate_log(table, "cascade", rng=np.random.default_rng(0), options=options):
                file.write(interaction.to_json() + "\n")
        log = folder / "log.parquet"
        ingest(SOURCES.load("native"), [str(raw)], SourceOptions(ladder=ladder), out=log, now=datetime.now(UTC))
        dataset = read_dataset([Log(str(log))], ladder)
        shelf = Shelf(folder / "models")
        settings = TrainingSettings(learners=("constant", "linear"))
        now = datetime.now(UTC)
        run = train_bundle(dataset, ladder, settings, shelf, quality=0.97, now=now, description="test")
        shelf.promote(run.version, reason="first", now=now)
        yield folder


@contextmanager
def service(home: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "router_ml.cli", "serve", "--config", str(home / "router.toml"), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        url = next(line.split()[-1] for line in process.stderr if line.startswith("listening on"))
        yield url, process
    finally:
        process.terminate()
        process.wait(START_S)
        process.stderr.close()


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    """A service for tests that neither kill it nor change its champion."""
    with service(home) as (address, _):
        yield address


def post(url: str, body: object) -> dict[str, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.loads(reply.read())  # type: ignore[no-any-return]


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.loads(reply.read())  # type: ignore[no-any-return]


def until(condition: Any, *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.05)


def ask(url: str, table: OutcomeTable, i: int) -> Any:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="test", max_retries=0) as client:
        messages: Any = list(table.requests[i].messages)
        return client.chat.completions.create(model="auto", messages=messages)


def stream(url: str, table: OutcomeTable, i: int) -> list[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="test", max_retries=0) as client:
        messages: Any = list(table.requests[i].messages)
        return list(client.chat.completions.create(model="auto", messages=messages, stream=True))


def test_an_acknowledged_feedback_survives_a_kill_and_a_restart(home: Path, table: OutcomeTable) -> None:
    with service(home) as (url, process):
        decision_id = ask(url, table, 0).model_extra["router"]["decision_id"]
        reply = post(
            f"{url}/v1/feedback", {"decision_id": decision_id, "source": "user", "adequate": False, "key": "k"}
        )
        process.send_signal(signal.SIGKILL)
        assert reply["recorded"] is True
        process.wait(START_S)
    with open_store(f"sqlite:///{home}/router_ml.db") as store:
        held = [item for item in store.scan() if item.id == decision_id]
        # The answer itself may have been in the writer's queue; the feedback may not be lost, and joins it.
        assert all(item.feedback[0].key == "k" for item in held)
    with service(home) as (url, _):
        again = post(
            f"{url}/v1/feedback", {"decision_id": decision_id, "source": "user", "adequate": False, "key": "k"}
        )
        assert again["recorded"] is False, "the repeated feedback is already there, so the first one survived"


def test_decisions_attempts_and_feedback_come_back_as_training_input(home: Path, table: OutcomeTable) -> None:
    with service(home) as (url, _):
        answers = [ask(url, table, i) for i in range(20)]
        streamed = stream(url, table, 21)
        router = answers[0].model_extra["router"]
        post(
            f"{url}/v1/feedback", {"decision_id": router["decision_id"], "source": "user", "adequate": True, "key": "a"}
        )
        assert sum("router" in (chunk.model_extra or {}) for chunk in streamed) == 1
    with open_store(f"sqlite:///{home}/router_ml.db") as store:
        recorded = {item.id: item for item in store.scan()}
    mine = recorded[router["decision_id"]]
    assert mine.attempts[-1].tier == router["tier"]
    assert mine.feedback[0].adequate is True
    assert sum(mine.propensity.values()) == pytest.approx(1.0)
    assert len(mine.attempts) == router["attempts"]
    assert all(item.attempts[0].cost_usd is not None for item in recorded.values() if item.attempts)


def test_a_promotion_reaches_the_running_service_and_a_broken_bundle_does_not(home: Path, table: OutcomeTable) -> None:
    shelf = Shelf(home / "models")
    first = shelf.champion()
    assert first is not None
    good = _copy(shelf, first, "router-2000-01-01.1")
    with service(home) as (url, _):
        assert get(f"{url}/v1/policy")["version"] == first
        _command(home, "promote", good)
        until(lambda: get(f"{url}/v1/policy")["version"] == good)
        broken = _copy(shelf, first, "router-2000-01-01.2")
        (shelf.path(broken) / "model.onnx").write_bytes(b"not a graph")
        refused = _command(home, "promote", broken, expect=1)
        assert "checksum" in refused.stderr
        # Somebody forces it by hand: the service refuses it too, and keeps answering.
        (home / "models" / "champion").write_text(f"{broken}\n")
        time.sleep(1.0)
        assert get(f"{url}/v1/policy")["version"] == good
        assert ask(url, table, 1).choices[0].message is not None
    (home / "models" / "champion").write_text(f"{first}\n")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{not json", "JSON"),
        (b"[]", "object"),
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
    ],
)
def test_a_bad_body_gets_one_clear_error_and_the_service_stays_up(url: str, body: Any, says: str) -> None:
    for path in ("/v1/route", "/v1/chat/completions"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(f"{url}{path}", body)
        error = json.loads(caught.value.read())["error"]
        caught.value.close()
        assert caught.value.code == 400
        assert says in error["message"]
    assert get(f"{url}/healthz")


def _copy(shelf: Shelf, version: str, name: str) -> str:
    source = load_bundle(shelf.path(version))
    folder = shelf.directory / name
    shutil.copytree(source.path, folder)
    manifest = Manifest.model_validate({**source.manifest.model_dump(), "version": name})
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return name


def _command(home: Path, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router_ml.cli", *arguments, "--config", str(home / "router.toml")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == expect, done.stderr
    return done
