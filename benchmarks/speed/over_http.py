"""`POST /v1/route` of a real `router-ml serve`, beside an endpoint that does nothing, in alternating rounds."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.results_file import Row
from benchmarks.speed.prompts import chat_body
from benchmarks.speed.servers import Server, load, noop_server, router_server

__all__ = ["PROTOCOL", "measured"]

PROTOCOL = "route-http"
_CONCURRENCIES = (1, 64)
_RATE_GOALS = {64: (0.60, 1.0)}
_ADDED_GOALS = {1: (0.30, 0.15)}
_NO_GOAL = (None, None)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of load on one server."""

    per_cpu_s: float
    p50_ms: float
    p99_ms: float


def measured(bundle: Path, *, rounds: int, seconds: float, say: Callable[[str], None]) -> list[Row]:
    """Load both servers in turn; ratios and differences are taken within a round, and their median is kept.

    Args:
        bundle: What the service routes with.
        rounds: Rounds over both servers and all concurrencies.
        seconds: Counted seconds of a turn.
        say: Told what is being done.
    """
    turns: dict[tuple[str, int], list[Turn]] = {}
    with tempfile.TemporaryDirectory() as folder, noop_server() as noop, router_server(bundle) as route:
        body = Path(folder) / "body.json"
        body.write_bytes(chat_body())
        for server in (noop, route):  # warm-up
            _turn(server, body, 8, 0.5)
        for number in range(rounds):
            order = (noop, route) if number % 2 == 0 else (route, noop)
            for concurrency in _CONCURRENCIES:
                for server in order:
                    turns.setdefault((server.name, concurrency), []).append(_turn(server, body, concurrency, seconds))
            say(f"round {number + 1} of {rounds}")
    return [row for concurrency in _CONCURRENCIES for row in _rows(turns, concurrency)]


def _turn(server: Server, body: Path, concurrency: int, seconds: float) -> Turn:
    before_s = server.cpu_s()
    loaded = load(f"{server.url}/v1/route", body, concurrency=concurrency, seconds=seconds)
    used_s = server.cpu_s() - before_s
    if loaded["errors"]:
        raise RuntimeError(f"{server.name}: {loaded['errors']} of {loaded['total']} answers were errors")
    return Turn(loaded["total"] / max(used_s, 0.01), loaded["p50_ms"], loaded["p99_ms"])


def _rows(turns: Mapping[tuple[str, int], Sequence[Turn]], concurrency: int) -> Iterator[Row]:
    noop, route = turns["no-op", concurrency], turns["route", concurrency]
    at = f"at concurrency {concurrency}"
    pairs = list(zip(route, noop, strict=True))
    rate = [mine.per_cpu_s / base.per_cpu_s for mine, base in pairs]
    added = [mine.p50_ms - base.p50_ms for mine, base in pairs]
    yield _row(f"rate / no-op {at}", rate, "higher", _RATE_GOALS.get(concurrency, _NO_GOAL))
    yield _row(f"added p50 {at}, ms", added, "lower", _ADDED_GOALS.get(concurrency, _NO_GOAL))
    for name, done in (("route", route), ("no-op", noop)):
        yield _row(f"{name} requests per CPU-second {at}", [turn.per_cpu_s for turn in done], "higher")
        yield _row(f"{name} p50 {at}, ms", [turn.p50_ms for turn in done], "lower")
        yield _row(f"{name} p99 {at}, ms", [turn.p99_ms for turn in done], "lower")


def _row(
    metric: str,
    by_round: Sequence[float],
    better: Literal["higher", "lower"],
    goal: tuple[float, float] | tuple[None, None] = _NO_GOAL,
) -> Row:
    median = statistics.median(by_round)
    return Row(PROTOCOL, metric, median, min(by_round), max(by_round), len(by_round), *goal, better)
