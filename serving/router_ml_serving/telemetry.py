"""What the service counts, for Prometheus and for `/v1/stats`: one registry per application, never prompt text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router_ml.schema import Attempt, Decision
from router_ml_serving.meters import LoopCounter, LoopHistogram
from router_ml_serving.recorder import Recorder
from router_ml_serving.watch_gauges import WatchGauges

__all__ = ["CountRequests", "Telemetry", "outcome"]

_OVERHEAD_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
_LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Telemetry:
    """Counters and histograms of one service; times in seconds, money in USD.

    All methods are called on the thread of the event loop, but `feedback`, which has a lock, and `reload`, which the
    holder calls from one thread at a time.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests by path and status.", "path", "status")
        self._decisions = self._counter("decisions", "Decisions by tier.", "tier", "policy_version", "explored")
        self._attempts = self._counter("attempts", "Upstream calls by outcome.", "tier", "outcome")
        self._errors = self._counter("upstream_errors", "Failed upstream calls by kind.", "tier", "kind")
        self._escalations = self._counter("escalations", "Requests that needed a further tier.", "tier", "cause")
        self._background = self._counter(
            "background", "Draws of audits and shadows, by what came of them.", "mode", "result"
        )
        self._cost = self._counter("cost_usd", "What upstream calls cost.", "tier")
        self._tokens = self._counter("tokens", "Tokens of upstream calls.", "tier", "direction")
        self._feedback = self._counter(
            "feedback", "Feedback by source; repeated arrivals are not new.", "source", "new"
        )
        # The recorder's thread counts weak negatives, the event loop all other feedback.
        self._feedback_lock = Lock()
        self._reloads = self._counter("bundle_reloads", "Attempts to load a bundle.", "result")
        self._overhead = self._histogram("overhead_seconds", "Time of the router itself.", _OVERHEAD_BUCKETS, "path")
        self._latency = self._histogram("attempt_seconds", "Time of an upstream call.", _LATENCY_BUCKETS, "tier")
        self._first_token = self._histogram(
            "first_token_seconds", "Time to an upstream's first piece of a stream.", _LATENCY_BUCKETS, "tier"
        )
        self._first_byte = self._histogram(
            "first_byte_seconds",
            "Time until an answer could begin.",
            _LATENCY_BUCKETS,
            "path",
        )
        self._retries = self._counter("upstream_retries", "Upstream calls that were tried again.", "tier")
        self._limited = self._counter("rate_limited", "Requests that a tenant's limits refused.", "limit")
        self._limits_shared = self._gauge("limits_shared", "1 while replicas settle their limits with each other.")
        self._floors = self._counter("floors", "Decisions that began no cheaper than what is remembered.", "why")
        self._rollout = self._counter("rollout", "Steps of the roll-out.", "event")
        self._circuits = self._gauge("circuit_open", "1 while a tier's circuit is open.", "tier")
        self._remembered = self._gauge("remembered", "What is held in memory to decide by.", "what")
        self._policy = self._gauge("policy", "The bundle in service.", "version")
        self._watch = WatchGauges(
            self._gauge("drift", "How far traffic drifted, in limits.", "name", "kind"),
            self._gauge("drifted", "1 for what drifted beyond chance and limit.", "name", "kind"),
            self._gauge("alarm", "1 for an alarm that rings.", "kind", "tier", "direction"),
            self._gauge("watch_age_seconds", "Time since traffic was last looked at.", "bundle"),
        )

    def watch(self, recorder: Recorder) -> None:
        """Show the state of the recorder beside the counters."""
        for name in ("recorded", "spilled", "recovered", "failed", "pending", "purged"):
            gauge = Gauge(f"router_ml_recorder_{name}", f"Events of the recorder: {name}.", registry=self.registry)
            gauge.set_function(partial(attrgetter(name), recorder))

    def watch_traffic(self, models_dir: Path, clock: Callable[[], datetime]) -> None:
        """Show what the last look at the traffic found, from the shelf's `watch.json`."""
        self._watch.look_at(models_dir, clock)

    def watch_size(self, what: str, size: Callable[[], float]) -> None:
        """Show how much of something is remembered: `sessions`, `templates`."""
        self._remembered.labels(what).set_function(size)

    def request(self, path: str, status: int) -> None:
        """Count one answered HTTP request."""
        self._requests.add((path, status))

    def decision(self, decision: Decision, path: str, overhead_s: float) -> None:
        """Count one decision and the time it took."""
        self._decisions.add((decision.tier, decision.policy_version, decision.explored))
        self._overhead.observe(path, overhead_s)

    def exchange(self, attempts: list[Attempt]) -> None:
        """Count the upstream calls of one proxied request."""
        self.calls(attempts)
        for before, after in pairwise(attempts):
            self._escalations.add((after.tier, outcome(before)))

    def background(self, mode: str, result: str) -> None:
        """Count one draw of background calls: `run`, `dropped`, `failed`, or `none`: nobody was there to be asked."""
        self._background.add((mode, result))

    def calls(self, attempts: list[Attempt]) -> None:
        """Count upstream calls, with their bill."""
        for attempt in attempts:
            tier = attempt.tier
            self._attempts.add((tier, outcome(attempt)))
            self._cost.add((tier,), attempt.cost_usd or 0.0)
            self._tokens.add((tier, "input"), attempt.input_tokens or 0)
            self._tokens.add((tier, "output"), attempt.output_tokens or 0)
            if attempt.error is not None:
                self._errors.add((tier, attempt.error))
            if attempt.latency_ms is not None:
                self._latency.observe(tier, attempt.latency_ms / 1e3)
            if attempt.ttft_ms is not None:
                self._first_token.observe(tier, attempt.ttft_ms / 1e3)

    def first_byte(self, path: str, seconds: float) -> None:
        """Note how long a client waited for the first piece of its answer."""
        self._first_byte.observe(path, seconds)

    def retry(self, tier: str) -> None:
        """Count one upstream call that is tried again."""
        self._retries.add((tier,))

    def circuit(self, tier: str, is_open: bool) -> None:
        """Note that a tier's circuit opened or closed."""
        self._circuits.labels(tier).set(is_open)

    def limited(self, limit: str) -> None:
        """Count one request that was refused: by `requests` or `tokens` per minute."""
        self._limited.add((limit,))

    def limits_shared(self, is_shared: bool) -> None:
        """Note whether limits were settled with the other replicas just now."""
        self._limits_shared.set(is_shared)

    def floor(self, why: str) -> None:
        """Count one decision with a floor: of its `session`, or of the `template memory`."""
        self._floors.add((why,))

    def rollout(self, event: str) -> None:
        """Count one step of the roll-out: `alarm`, `withdrawn`, `rolled_back`, `failed`."""
        self._rollout.add((event,))

    def feedback(self, source: str, *, new: bool) -> None:
        """Count one piece of feedback."""
        with self._feedback_lock:
            self._feedback.add((source, new))

    def reload(self, result: str, version: str | None = None) -> None:
        """Count one attempt to load a bundle: `loaded` (with its version) or `refused`."""
        self._reloads.add((result,))
        if version is not None:
            self._policy.clear()
            self._policy.labels(version).set(1)

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        self._watch.refresh()
        return generate_latest(self.registry)

    def stats(self) -> dict[str, Any]:
        """Return the counters as plain numbers: without labels, or as {labels: value} where there are any."""
        found: dict[str, Any] = {}
        self._watch.refresh()
        for metric in self.registry.collect():
            name = metric.name.removeprefix("router_ml_")
            for sample in metric.samples:
                if not sample.name.endswith(("_created", "_bucket")):
                    label = ",".join(sample.labels.values())
                    suffix = sample.name.removeprefix(metric.name).removesuffix("_total")
                    if label:
                        found.setdefault(name + suffix, {})[label] = sample.value
                    else:
                        found[name + suffix] = sample.value
        return found

    def _counter(self, name: str, text: str, *labels: str) -> LoopCounter:
        return LoopCounter(f"router_ml_{name}", text, labels, self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"router_ml_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], label: str) -> LoopHistogram:
        return LoopHistogram(f"router_ml_{name}", text, bounds, label, self.registry)


class CountRequests:
    """ASGI middleware that counts every HTTP request by path and status; unknown paths are one label."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, paths: frozenset[str]) -> None:
        self.app = app
        self.telemetry = telemetry
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note the status of its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self.paths else "other"

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.telemetry.request(path, message["status"])
            await send(message)

        await self.app(scope, receive, noting)


def outcome(attempt: Attempt) -> str:
    """Name how an attempt went: `error`, `cancelled`, `inadequate` or `ok`."""
    if attempt.finish_reason == "cancelled":
        return "cancelled"
    if attempt.error is not None:
        return "error"
    return "inadequate" if any(verdict.adequate is False for verdict in attempt.verdicts) else "ok"
