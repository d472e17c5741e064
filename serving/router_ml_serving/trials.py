"""One trial of a challenger against a champion: what is counted of both, and when it is an alarm. Pure.

A canary's trial has both side by side. A bundle that was promoted is compared with what the one before it did in this
process: a fixed sample, dealt out without replacement, a few outcomes to each of the new one's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from router_ml_serving.alarms import Rate, RiseTest

__all__ = ["METRICS", "Alarm", "Metric", "PastRecord", "Trial"]

Metric: TypeAlias = Literal["escalation", "error", "latency", "negative"]
METRICS: tuple[Metric, ...] = ("escalation", "error", "latency", "negative")
_WORDS = {
    "escalation": "escalations",
    "error": "upstream errors",
    "latency": "answers slower than 95 % of the champion's",
    "negative": "negative feedback",
}

# What a champion did is kept for one to two of these windows: long enough to compare with, and not months old.
_WINDOW = 5_000
# A quantile of 95 % from so many latencies has 10 of them above it.
_LATENCIES = 200
_SLOW = 0.95
# How many outcomes of a promoted bundle are compared with the one before; longer, and it is another time of day.
_COMPARED = 1_000
_MOST_DEALT = 8


class PastRecord:
    """What a champion did lately, per metric; state does not grow with time.

    Args:
        version: Whose record it is.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.slow_ms: float | None = None
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._now = {metric: Rate() for metric in METRICS}
        self._before = {metric: Rate() for metric in METRICS}

    def add(self, metric: Metric, *, bad: bool) -> None:
        """Count one outcome."""
        rate = self._now[metric]
        rate.add(1, int(bad))
        if rate.n >= _WINDOW:
            self._now[metric], self._before[metric] = Rate(), rate
            if metric == "latency":  # "slow" is about to mean something else
                self._before[metric] = Rate()
                self._set_slow()

    def add_latency(self, latency_ms: float) -> None:
        """Count one latency as slow or not, by what was slow before it."""
        self._latencies.append(latency_ms)
        if self.slow_ms is not None:
            self.add("latency", bad=latency_ms > self.slow_ms)
        elif len(self._latencies) == _LATENCIES:
            self._set_slow()

    def rate(self, metric: Metric) -> Rate:
        """Return the counts of the last one or two windows."""
        now, before = self._now[metric], self._before[metric]
        return Rate(now.n + before.n, now.bad + before.bad)

    def _set_slow(self) -> None:
        self.slow_ms = float(np.quantile(np.array(self._latencies), _SLOW))


@dataclass(frozen=True, slots=True)
class Alarm:
    """Evidence that a challenger does worse in one metric than it may."""

    version: str
    against: str
    metric: Metric
    evidence: Mapping[str, Any]

    @property
    def reason(self) -> str:
        """What happened, in one sentence."""
        ours, theirs = self.evidence["challenger"], self.evidence["champion"]
        return (
            f"{_WORDS[self.metric]}: {ours['rate']:.1%} of {ours['n']} with {self.version}, {theirs['rate']:.1%} of "
            f"{theirs['n']} with {self.against} (e-value {self.evidence['largest_e_value']:.0f}, "
            f"threshold {self.evidence['threshold']:.0f})"
        )


@dataclass(slots=True)
class Trial:
    """One version against another, in every metric.

    Args:
        version: Who is tried.
        against: Whom it is compared with.
        margins: How much higher its rate may be, per metric.
        threshold: The e-value at which there is an alarm: one by the metric's part of alpha.
        min_requests: No alarm before so many outcomes of a metric.
        started_s: When it began, on the clock that outcomes are counted by.
        slow_ms: The latency above which an answer is slow; None until it is known.
        past: The earlier outcomes of `against`, when it does not answer beside `version`.
        rng: Deals the earlier outcomes.
        alarm: What was found; set once.
        rings: Whether nobody has answered the alarm yet.
    """

    version: str
    against: str
    margins: Mapping[Metric, float]
    threshold: float
    min_requests: int
    started_s: float
    slow_ms: float | None = None
    past: PastRecord | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    alarm: Alarm | None = None
    rings: bool = False
    _tests: dict[Metric, RiseTest] = field(init=False)
    _decks: dict[Metric, _Deck] = field(init=False)

    def __post_init__(self) -> None:
        self._tests = {metric: RiseTest(self.margins[metric]) for metric in METRICS}
        self._decks = {} if self.past is None else {metric: _Deck.of(self.past.rate(metric)) for metric in METRICS}

    @property
    def over(self) -> bool:
        """Whether a comparison with the past has nothing left to compare with."""
        return bool(self._decks) and all(deck.dealt_out for deck in self._decks.values())

    def of_champion(self, metric: Metric, *, bad: bool) -> None:
        """Count one outcome of `against`, answering beside `version`."""
        if not self._decks:
            self._tests[metric].of_champion(1, int(bad))
            self._look(metric)

    def of_challenger(self, metric: Metric, *, bad: bool) -> None:
        """Count one outcome of `version`."""
        test = self._tests[metric]
        if self._decks:
            deck = self._decks[metric]
            if deck.dealt_out:
                return
            test.of_champion(*deck.deal(self.rng))
        test.of_challenger(bad=bad)
        self._look(metric)

    def answer(self) -> Alarm | None:
        """Return the alarm and silence it: each trial raises one."""
        self.rings = False
        return self.alarm

    def to_dict(self) -> dict[str, Any]:
        """Return the state of the trial: counts, e-values and the threshold."""
        return {
            "version": self.version,
            "against": self.against,
            "beside": not self._decks,
            "threshold": self.threshold,
            "min_requests": self.min_requests,
            "slow_ms": self.slow_ms,
            "metrics": {metric: test.to_dict() for metric, test in self._tests.items()},
            "alarm": None if self.alarm is None else self.alarm.reason,
        }

    def _look(self, metric: Metric) -> None:
        test = self._tests[metric]
        if self.alarm is None and test.largest >= self.threshold and test.challenger.n >= self.min_requests:
            evidence = {"metric": metric, "threshold": self.threshold, **test.to_dict()}
            self.alarm = Alarm(self.version, self.against, metric, evidence)
            self.rings = True


@dataclass(slots=True)
class _Deck:
    # A fixed sample in random order, without a list of it. In that order its outcomes are as exchangeable as they came.
    left: Rate
    hand: int

    @classmethod
    def of(cls, rate: Rate) -> _Deck:
        return cls(Rate(rate.n, rate.bad), min(max(rate.n // _COMPARED, 1), _MOST_DEALT))

    @property
    def dealt_out(self) -> bool:
        return self.left.n < self.hand

    def deal(self, rng: np.random.Generator) -> tuple[int, int]:
        bad = int(rng.hypergeometric(self.left.bad, self.left.n - self.left.bad, self.hand))
        self.left.add(-self.hand, -bad)
        return self.hand, bad
