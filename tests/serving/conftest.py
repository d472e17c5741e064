"""Real processes for the tests of the service: stand-in upstreams, the service itself, and a tiny bundle."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openai
import pytest
from onnx import TensorProto, helper, numpy_helper

from router_ml.bundle import write_bundle
from router_ml.features import DENSE_NAMES, SCHEMA_HASH
from router_ml.ladder import Ladder, Tier
from router_ml.manifest import FrontierPoint, PolicySpec, TrainedOn
from router_ml.schema import Interaction
from router_ml.store import open_store

HERE = Path(__file__).parent


def tiny_model(adequacy: tuple[float, ...], tiers: tuple[str, ...] = ("small", "large")) -> bytes:
    """Return a graph that gives every request the same adequacies, and 100 output tokens."""

    def constant(name: str, values: list[float]) -> Any:
        return numpy_helper.from_array(np.array(values, np.float32), name)

    weights = numpy_helper.from_array(np.zeros((len(DENSE_NAMES), len(tiers)), np.float32), "zero")
    nodes = [
        helper.make_node("MatMul", ["dense", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "p"], ["adequacy"]),
        helper.make_node("Add", ["nothing", "t"], ["output_tokens"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["n", len(DENSE_NAMES)]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "l"]),
            helper.make_tensor_value_info("counts", TensorProto.FLOAT, ["n", "l"]),
        ],
        [
            helper.make_tensor_value_info("adequacy", TensorProto.FLOAT, ["n", len(tiers)]),
            helper.make_tensor_value_info("output_tokens", TensorProto.FLOAT, ["n", len(tiers)]),
        ],
        [weights, constant("p", list(adequacy)), constant("t", [100.0] * len(tiers))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"feature_schema_hash": SCHEMA_HASH, "tiers": json.dumps(list(tiers))})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def put_bundle(models_dir: Path, version: str, adequacy: tuple[float, ...] = (0.6, 0.95)) -> Path:
    """Write a bundle: at 0.97 the small tier answers first, `router-1` asks the large one."""
    ladder = Ladder.of(
        [Tier(name="small", model="mini", **price(0.15)), Tier(name="large", model="maxi", **price(5.0))]
    )
    manifest = {
        "version": version,
        "created": datetime(2026, 1, 2, tzinfo=UTC),
        "trained_on": TrainedOn(digest="none", n_interactions=0, description="made up for a test").model_dump(),
        "learner": "constant",
        "simulated": True,
    }
    frontier = (FrontierPoint(quality=0.97, shadow_price=2000.0, saving=0.5),)
    policy = PolicySpec(tiers=ladder.tiers, best_tier="large", frontier=frontier)
    return write_bundle(models_dir, manifest=manifest, policy=policy, model=tiny_model(adequacy))


def price(usd: float) -> dict[str, float]:
    return {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd}


@dataclass
class Reply:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(url: str, body: object = None, *, method: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    """Send one request; bytes go as they are, anything else as JSON."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


@dataclass
class Process:
    """A server in a process of its own, and where it listens."""

    command: list[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    url: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Process:
        # A restart on the same log waits for its own line, not for the one of the process before.
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stderr=log, env={**os.environ, **self.env})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            new = self.log.read_bytes()[before:].decode()
            said = re.findall(r'listening on (http://[^\s"]+)["\n]', new)
            if said:
                self.url = said[-1]
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        pytest.fail(f"did not start: {self.log.read_text()}")

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@dataclass
class Upstream:
    """The stand-in upstream as tests see it."""

    url: str

    def calls(self) -> list[dict[str, Any]]:
        """Return the calls since the last look."""
        found: list[dict[str, Any]] = call(f"{self.url}/calls?clear=1").json
        return found

    def cancelled(self) -> list[dict[str, Any]]:
        """Return the calls since the last look that were cancelled; waits for the first one, ten seconds at most."""
        deadline = time.monotonic() + 10
        # Not `calls`: one that is taken away while it runs is never seen to be cancelled.
        while not any(sent["cancelled"] for sent in call(f"{self.url}/calls").json) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [sent for sent in self.calls() if sent["cancelled"]]


@dataclass
class Service:
    """A running service as tests see it."""

    process: Process
    home: Path

    @property
    def url(self) -> str:
        return self.process.url

    @cached_property
    def client(self) -> openai.OpenAI:
        """The official client, without its own retries."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=30)

    def ask(self, prompt: str, **fields: Any) -> Reply:
        """Send one chat body."""
        body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], **fields}
        return call(f"{self.url}/v1/chat/completions", body)

    def recorded(self, decision_id: str) -> Interaction:
        """Return the record of a decision, once it is there."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with open_store(f"sqlite:///{self.home / 'events.db'}") as store:
                found = [one for one in store.scan() if one.id == decision_id]
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"{decision_id} was never recorded")

    def metric(self, line: str) -> float:
        """Return the value of one line of /metrics (0 when it is not there)."""
        text = call(f"{self.url}/metrics").body.decode()
        found = [row for row in text.splitlines() if row.startswith(f"{line} ")]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    log = tmp_path_factory.mktemp("upstream") / "log"
    process = Process([sys.executable, str(HERE / "standin_upstream.py")], log).start()
    yield Upstream(process.url)
    process.stop()


@pytest.fixture(scope="module")
def start_service(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Callable[..., Service]]:
    """Start services; keyword arguments are lines of `[serving]`, `toml` is put at the end of the file.

    `small` is the URL of another upstream for the small tier.

    Nothing is explored but what `exploration` says; circuits never open and no template is remembered unless asked for.
    """
    started: list[Service] = []

    def start(
        *,
        toml: str = "",
        env: dict[str, str] | None = None,
        home: Path | None = None,
        exploration: dict[str, float] | None = None,
        small: str | None = None,
        **serving: Any,
    ) -> Service:
        home = home or tmp_path_factory.mktemp("service")
        if not (home / "models").exists():
            put_bundle(home / "models", "one")
            (home / "models" / "champion").write_text("one\n")
        settings = {"port": 0, "reload_s": 0.1, "flush_s": 0.02, "spill": str(home / "spill.jsonl")}
        # What one test does to a tier is not remembered in the next.
        settings |= {"breaker_failures": 0, "memory_classes": 0, **serving}
        lines = _lines(settings)
        shares = _lines({"up": 0.0, "audit": 0.0, "shadow": 0.0} | (exploration or {}))
        (home / "router.toml").write_text(
            TOML.format(
                home=home,
                upstream=upstream.url,
                small=small or upstream.url,
                serving=lines,
                exploration=shares,
                toml=toml,
            ),
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "router_ml.cli", "serve", "--config", str(home / "router.toml")]
        process = Process(command, home / "log", {"SMALL_KEY": "sk-small", **(env or {})})
        started.append(Service(process, home))
        process.start()
        return started[-1]

    yield start
    for service in started:
        service.client.close()
        process = service.process
        if process.process is not None and process.process.poll() is None:
            process.stop()


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Service]) -> Service:
    return start_service()


@pytest.fixture(name="call")
def call_fixture() -> Callable[..., Reply]:
    return call


@pytest.fixture(name="put_bundle")
def put_bundle_fixture() -> Callable[..., Path]:
    return put_bundle


def _lines(settings: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())


TOML = """
models_dir = "{home}/models"

[[tiers]]
name = "small"
model = "mini"
base_url = "{small}/v1"
api_key_env = "SMALL_KEY"
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.60

[[tiers]]
name = "large"
model = "maxi"
base_url = "{upstream}/v1"
input_usd_per_mtok = 2.5
output_usd_per_mtok = 10.0

[exploration]
{exploration}

[store]
url = "sqlite:///{home}/events.db"

[serving]
{serving}

{toml}
"""
