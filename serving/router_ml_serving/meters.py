"""Counters and histograms that a busy event loop moves: a dictionary each, read out when Prometheus asks.

The client library's own take a lock for every number that they move, which is for threads; these are for one. A count
costs a tenth of it, and what every request counts adds up to more than its routing rules cost.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

__all__ = ["LoopCounter", "LoopHistogram"]

Labels = tuple[object, ...]


class LoopCounter(Collector):
    """A counter by labels, for the thread of one event loop; any thread may read it out.

    Args:
        name: Of the metric, without `_total`.
        text: Its description.
        labels: Names of the labels.
        registry: Where it is read out.
        now_s: Seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._text, self._labelnames, self._now_s = name, text, tuple(labels), now_s
        self._counts: defaultdict[Labels, float] = defaultdict(float)
        self._created: dict[Labels, float] = {}
        registry.register(self)

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        """Count.

        Args:
            labels: Values of the labels, in order: texts, or what is written as one.
            amount: How much, not negative.
        """
        if labels not in self._counts:
            self._created[labels] = self._now_s()
        self._counts[labels] += amount

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Yield the metric without values."""
        yield CounterMetricFamily(self._name, self._text, labels=self._labelnames)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the metric with its values."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labelnames)
        for labels, count in list(self._counts.items()):
            family.add_metric(_written(labels), count, created=self._created[labels])
        yield family


class LoopHistogram(Collector):
    """A histogram by one label, for the thread of one event loop; any thread may read it out.

    Args:
        name: Of the metric.
        text: Its description.
        bounds: Upper bounds of the buckets, rising; a last one without bound is added.
        label: Name of the label.
        registry: Where it is read out.
        now_s: Seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        text: str,
        bounds: Sequence[float],
        label: str,
        registry: CollectorRegistry,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._text, self._labelnames, self._now_s = name, text, (label,), now_s
        self._bounds = tuple(bounds)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._created: dict[str, float] = {}
        registry.register(self)

    def observe(self, label: str, value: float) -> None:
        """Count one value.

        Args:
            label: Value of the label.
            value: What was measured; a bucket takes what is no more than its bound.
        """
        counts = self._counts.get(label)
        if counts is None:
            counts = self._counts[label] = [0] * (len(self._bounds) + 1)
            self._sums[label], self._created[label] = 0.0, self._now_s()
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[label] += value

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Yield the metric without values."""
        yield HistogramMetricFamily(self._name, self._text, labels=self._labelnames)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the metric with its values."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labelnames)
        for label, counts in list(self._counts.items()):
            buckets, total = [], 0.0
            for bound, count in zip((*self._bounds, "+Inf"), counts, strict=True):
                total += count
                buckets.append((str(bound), total))
            family.add_metric((label,), buckets, self._sums[label])
            family.add_sample(f"{self._name}_created", {self._labelnames[0]: label}, self._created[label])
        yield family


def _written(labels: Labels) -> tuple[str, ...]:
    return tuple(str(value).lower() if isinstance(value, bool) else str(value) for value in labels)
