"""`router-ml bench`: how long a decision of the bundle in service takes on this machine."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from router_ml.cli.output import emit, table
from router_ml.config import load_config
from router_ml.features import featurize
from router_ml.router import Router
from router_ml.schema import Request

__all__ = ["add_arguments", "run"]

_TURNS = 20
# About 300 tokens with the question: what an ordinary chat request looks like.
_SYSTEM = "You are the support assistant of a company that sells garden tools. Answer briefly and politely. " * 8
_QUESTION = (
    "My hedge trimmer, bought in March, stops after {i} minutes of cutting; what can I do, and what will it cost?"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--calls", type=int, default=100, help="decisions a turn (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print the median time of a decision and its parts, in microseconds and in units of `sum(range(1000))`."""
    router = Router.load(load_config(args.config, os.environ))
    rng = np.random.default_rng(0)
    requests = [_request(i) for i in range(64)]
    bag = router.bundle.reads_bag
    features = [featurize(request, bag=bag) for request in requests]
    parts: dict[str, Callable[[int], object]] = {
        "decision": lambda i: router.route(requests[i], decision_id="bench", rng=rng),
        "of which features": lambda i: featurize(requests[i], bag=bag),
        "of which graph": lambda i: router.bundle.score(features[i]),
    }
    timings = {name: _measure(work, max(args.calls, 1)) for name, work in parts.items()}
    record = {
        "version": router.bundle.version,
        **{name: {"us": us, "yardsticks": units} for name, (us, units) in timings.items()},
    }
    rows = [[name, f"{us:.0f}", f"{units:.1f}"] for name, (us, units) in timings.items()]
    note = "a yardstick is one sum(range(1000)) on the same core at the same moment"
    emit(args, record, f"{router.bundle.version}\n{table(['part', 'us', 'yardsticks'], rows)}\n{note}")
    return 0


def _measure(work: Callable[[int], object], calls: int) -> tuple[float, float]:
    # Turns of work and of the yardstick alternate, since a core's speed changes within a run.
    times, units = [], []
    for _ in range(_TURNS):
        median = statistics.median(_seconds(lambda i=i: work(i % 64)) for i in range(calls))  # type: ignore[misc]
        yardstick = statistics.median(_seconds(lambda: sum(range(1000))) for _ in range(20))
        times.append(median * 1e6)
        units.append(median / yardstick)
    return statistics.median(times), statistics.median(units)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _request(i: int) -> Request:
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _QUESTION.format(i=i)}]
    return Request(messages=messages, tenant="bench", feature="support")
