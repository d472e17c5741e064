"""The decision itself, without any server: `Router.route` in yardsticks, and on a very long conversation in ms."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.results_file import Row
from benchmarks.speed.prompts import chats, long_chat
from benchmarks.speed.yardstick import Timing, measure
from router_ml.bundle import load_bundle
from router_ml.config import ExplorationSettings, PolicySettings
from router_ml.features import featurize
from router_ml.router import Router

__all__ = ["PROTOCOL", "measured"]

PROTOCOL = "route-in-process"
_TURNS, _CALLS = 30, 100
_LONG_TOKENS, _LONG_CALLS = 100_000, 200


def measured(bundle: Path) -> list[Row]:
    """Time decisions with a bundle. The requests differ from each other; their system prompt does not."""
    router = Router(load_bundle(bundle), PolicySettings(), ExplorationSettings(), {})
    rng = np.random.default_rng(0)
    requests = chats(256, rng=rng)

    def decide(i: int) -> dict[str, float]:
        started = time.perf_counter()
        router.route(requests[i % len(requests)], decision_id="none", rng=rng)
        return {"decision": time.perf_counter() - started}

    def parts(i: int) -> dict[str, float]:
        started = time.perf_counter()
        features = featurize(requests[i % len(requests)], bag=router.bundle.reads_bag)
        halfway = time.perf_counter()
        router.bundle.score(features)
        return {"features": halfway - started, "ONNX": time.perf_counter() - halfway}

    whole, yardstick_us = measure(decide, turns=_TURNS, calls=_CALLS)
    split, _ = measure(parts, turns=_TURNS, calls=_CALLS)
    decision = whole["decision"]
    return [
        _p50("decision p50, yardsticks", decision, must=9.0, aim=6.0),
        Row(PROTOCOL, "decision p99, yardsticks", decision.p99, None, None, decision.n, better="lower"),
        *(_p50(f"of which {name} p50, yardsticks", part) for name, part in split.items()),
        *_long_rows(_long_ms(router, rng)),
        Row(PROTOCOL, "one yardstick, us", yardstick_us, None, None, _TURNS, better="lower"),
    ]


def _p50(metric: str, timing: Timing, *, must: float | None = None, aim: float | None = None) -> Row:
    return Row(PROTOCOL, metric, timing.p50, timing.low, timing.high, timing.n, must, aim, "lower")


def _long_ms(router: Router, rng: np.random.Generator) -> list[float]:
    request = long_chat(_LONG_TOKENS)
    taken = []
    for _ in range(_LONG_CALLS + 5):
        started = time.perf_counter()
        router.route(request, decision_id="none", rng=rng)
        taken.append((time.perf_counter() - started) * 1e3)
    return taken[5:]


def _long_rows(taken_ms: list[float]) -> list[Row]:
    p50, low, high, p99 = (float(x) for x in np.quantile(taken_ms, (0.5, 0.025, 0.975, 0.99)))
    name = f"decision on {_LONG_TOKENS:,} tokens"
    return [
        Row(PROTOCOL, f"{name} p50, ms", p50, low, high, _LONG_CALLS, 5.0, 2.0, "lower"),
        Row(PROTOCOL, f"{name} p99, ms", p99, None, None, _LONG_CALLS, better="lower"),
    ]
