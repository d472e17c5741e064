"""Time in yardsticks: one yardstick is what `sum(range(1000))` takes on the same core at the same moment.

Cores change their speed by a factor of two within a run, and machines differ more than that. Turns of work and of the
yardstick alternate, and only their ratio is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Timing", "measure", "yardstick_s"]

_YARDSTICK_CALLS = 30


@dataclass(frozen=True, slots=True)
class Timing:
    """One part of the work: its p50 and p99 in yardsticks, medians over the turns, with the range of the p50.

    `p50_us` is the median in microseconds, for the reader's sense of scale; it means nothing on another machine.
    """

    p50: float
    p99: float
    low: float
    high: float
    p50_us: float
    n: int


def measure(work: Callable[[int], Mapping[str, float]], *, turns: int, calls: int) -> tuple[dict[str, Timing], float]:
    """Time work in turns, each beside its own reading of the yardstick.

    Args:
        work: Does call number i and returns seconds by part.
        turns: Turns; the first is not counted.
        calls: Calls of `work` in a turn.

    Returns:
        Timings by part, and the yardstick's median in microseconds.
    """
    seconds: dict[str, list[NDArray[np.float64]]] = {}
    yardsticks = []
    for turn in range(turns + 1):
        done = [work(turn * calls + i) for i in range(calls)]
        yardstick = yardstick_s()
        if turn == 0:
            continue
        yardsticks.append(yardstick)
        for name in done[0]:
            seconds.setdefault(name, []).append(np.array([one[name] for one in done]))
    unit = np.array(yardsticks)
    return {name: _timing(np.stack(turned), unit) for name, turned in seconds.items()}, float(np.median(unit)) * 1e6


def _timing(seconds: NDArray[np.float64], unit: NDArray[np.float64]) -> Timing:
    halves = np.median(seconds, axis=1) / unit
    # A turn has too few calls for a p99 of its own: every call counts in the yardstick of its turn.
    p99 = float(np.quantile(seconds / unit[:, None], 0.99))
    low, high = (float(x) for x in np.quantile(halves, (0.025, 0.975)))
    return Timing(float(np.median(halves)), p99, low, high, float(np.median(seconds)) * 1e6, seconds.size)


def yardstick_s() -> float:
    """Return the seconds of one yardstick here and now, the median of a few."""
    taken = []
    for _ in range(_YARDSTICK_CALLS):
        started = time.perf_counter()
        sum(range(1000))
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))
