"""The whole proxy beside one that does nothing but pass on, and beside no proxy at all; whole answers and streams."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from benchmarks.results_file import Row
from benchmarks.speed.prompts import chat_body
from benchmarks.speed.servers import Server, litellm_server, load, minimal_server, mock_upstream, router_server
from benchmarks.speed.servers import stream_load as open_streams

__all__ = ["measured"]

_PATH = "/v1/chat/completions"
_STREAMS = 50
_NO_GOAL = (None, None)
# LiteLLM answers after half a second under this load: shorter turns would lose what is under way at their end.
_LITELLM_SECONDS = 5.0

Better = Literal["higher", "lower"]
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rounds:
    """The figures of every server in every round: `of["router"][2]["p50_ms"]`."""

    of: Mapping[str, Sequence[Figures]]

    def ratio(self, figure: str, mine: str, base: str) -> list[float]:
        """Return one ratio a round."""
        return [a[figure] / b[figure] for a, b in zip(self.of[mine], self.of[base], strict=True)]


def measured(
    bundle: Path, *, rounds: int, seconds: float, say: Callable[[str], None], litellm: Path | None = None
) -> list[Row]:
    """Load all proxies in turn; ratios are taken within a round, and their median is kept.

    Args:
        bundle: What the router decides with.
        rounds: Rounds over all servers.
        seconds: Counted seconds of a turn.
        say: Told what is being done.
        litellm: The `litellm` command, where it is installed.
    """
    with tempfile.TemporaryDirectory() as folder, mock_upstream() as mock:
        body, streaming = Path(folder) / "body.json", Path(folder) / "streaming.json"
        body.write_bytes(chat_body())
        streaming.write_bytes(orjson.dumps({**orjson.loads(chat_body()), "stream": True}))
        at_once, slow = f"{mock.url}/after-0", f"{mock.url}/after-50"
        rows: list[Row] = []
        with router_server(bundle, name="router", upstream=at_once) as router, minimal_server(at_once) as minimal:
            done = _rounds([router, minimal], rounds, say, "32 at once", lambda one: _turn(one, body, 32, seconds))
            rows += _proxy_rows(done)
            pair = [router, minimal]
            done = _rounds(pair, rounds, say, f"{_STREAMS} streams", lambda one: _stream_turn(one, streaming))
            rows += _stream_rows(done)
        with router_server(bundle, name="router", upstream=slow) as router, minimal_server(slow) as minimal:
            direct = Server("direct", slow, mock.pid)
            three = [direct, router, minimal]
            done = _rounds(three, rounds, say, "50 ms upstream", lambda one: _turn(one, body, 16, seconds))
            rows += _slow_rows(done)
        if litellm is not None:
            rows += _litellm_rows(bundle, litellm, at_once, Path(folder), rounds=rounds, say=say)
    return rows


def _rounds(
    servers: Sequence[Server], rounds: int, say: Callable[[str], None], what: str, turn: Callable[[Server], Figures]
) -> Rounds:
    found: dict[str, list[Figures]] = {}
    for server in servers:  # warm-up
        turn(server)
    for number in range(rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            found.setdefault(server.name, []).append(turn(server))
        say(f"{what}: round {number + 1} of {rounds}")
    return Rounds(found)


def _turn(server: Server, body: Path, concurrency: int, seconds: float, key: str | None = None) -> Figures:
    before_s = server.cpu_s()
    loaded = load(f"{server.url}{_PATH}", body, concurrency=concurrency, seconds=seconds, key=key)
    used_s = server.cpu_s() - before_s
    _refuse_errors(server, loaded, "errors")
    return {**loaded, "per_cpu_s": loaded["total"] / max(used_s, 0.01)}


def _stream_turn(server: Server, body: Path) -> Figures:
    before_s = server.cpu_s()
    loaded = open_streams(f"{server.url}{_PATH}", body, streams=_STREAMS)
    used_s = server.cpu_s() - before_s
    _refuse_errors(server, loaded, "failed")
    return {**loaded, "cpu_us": used_s / loaded["chunks"] * 1e6}


def _refuse_errors(server: Server, loaded: Mapping[str, Any], name: str) -> None:
    if loaded[name]:
        raise RuntimeError(f"{server.name}: {loaded[name]} answers were errors")


def _proxy_rows(done: Rounds) -> Iterator[Row]:
    yield _row(
        "proxy", "rate / minimal proxy at concurrency 32", done.ratio("per_cpu_s", "router", "minimal"), 0.55, 0.75
    )
    for name, turns in done.of.items():
        yield _row("proxy", f"{name} requests per CPU-second", [turn["per_cpu_s"] for turn in turns])
        yield _row("proxy", f"{name} p99, ms", [turn["p99_ms"] for turn in turns], better="lower")


def _slow_rows(done: Rounds) -> Iterator[Row]:
    for figure, must, aim in (("p50", 1.2, 1.1), ("p99", 1.5, 1.2)):
        for name, goal in (("router", (must, aim)), ("minimal", _NO_GOAL)):
            ratio = done.ratio(f"{figure}_ms", name, "direct")
            yield _row("proxy-50ms", f"{name} {figure} / direct, 16 connections", ratio, *goal, better="lower")


def _stream_rows(done: Rounds) -> Iterator[Row]:
    ttft, cpu = (done.ratio(figure, "router", "minimal") for figure in ("ttft_p50_ms", "cpu_us"))
    yield _row("streams", "time to first chunk p50 / minimal proxy", ttft, 1.5, 1.2, better="lower")
    yield _row("streams", "processor time a chunk / minimal proxy", cpu, 1.3, 1.1, better="lower")
    for name, turns in done.of.items():
        for figure in ("ttft_p50_ms", "delay_p99_ms", "cpu_us"):
            yield _row("streams", f"{name} {figure}", [turn[figure] for turn in turns], better="lower")


def _litellm_rows(
    bundle: Path, program: Path, upstream: str, folder: Path, *, rounds: int, say: Callable[[str], None]
) -> Iterator[Row]:
    body = folder / "litellm.json"
    body.write_bytes(orjson.dumps({**orjson.loads(chat_body()), "model": "gpt-4o-mini"}))
    routed = folder / "body.json"
    with router_server(bundle, name="router", upstream=upstream) as router, litellm_server(program, upstream) as other:
        bodies = {"router": (routed, None), "litellm": (body, "sk-bench")}

        def turn(server: Server) -> Figures:
            sent, key = bodies[server.name]
            return _turn(server, sent, 32, _LITELLM_SECONDS, key)

        done = _rounds([router, other], rounds, say, "LiteLLM", turn)
    yield _row("litellm", "rate / LiteLLM's pass-through", done.ratio("per_cpu_s", "router", "litellm"), 25.0, 40.0)
    yield _row("litellm", "LiteLLM requests per CPU-second", [one["per_cpu_s"] for one in done.of["litellm"]])


def _row(
    protocol: str,
    metric: str,
    by_round: Sequence[float],
    must: float | None = None,
    aim: float | None = None,
    *,
    better: Better = "higher",
) -> Row:
    median = statistics.median(by_round)
    return Row(protocol, metric, median, min(by_round), max(by_round), len(by_round), must, aim, better)
