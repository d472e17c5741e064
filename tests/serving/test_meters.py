"""Counters and histograms of one event loop say what the client library's own would say."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from router_ml_serving.meters import LoopCounter, LoopHistogram

BOUNDS = (0.1, 1.0, 10.0)


def exposed(registry):
    """What is exposed, without the moments at which it began."""
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_created" not in line)


def test_a_counter_says_what_the_librarys_says():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counter = LoopCounter("tests", "Tests.", ("path", "status", "new"), ours)
    reference = Counter("tests", "Tests.", ("path", "status", "new"), registry=theirs)
    for path, status, new, amount in (("/a", 200, True, 1.0), ("/a", 200, True, 2.5), ('/"b"', 404, False, 0.0)):
        counter.add((path, status, new), amount)
        reference.labels(path, str(status), str(new).lower()).inc(amount)
    assert exposed(ours) == exposed(theirs)


@pytest.mark.parametrize("values", [[], [0.05], [0.1, 0.1000001], [10.0, 1e9, -1.0], [0.5] * 7])
def test_a_histogram_says_what_the_librarys_says(values):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = LoopHistogram("waits", "Waits.", BOUNDS, "path", ours)
    reference = Histogram("waits", "Waits.", ("path",), registry=theirs, buckets=BOUNDS)
    for value in values:
        histogram.observe("/a", value)
        reference.labels("/a").observe(value)
    assert exposed(ours) == exposed(theirs)


def test_a_series_says_since_when_it_is_counted():
    registry, times = CollectorRegistry(), iter([5.0, 6.0, 7.0])
    counter = LoopCounter("tests", "Tests.", ("path",), registry, now_s=lambda: next(times))
    histogram = LoopHistogram("waits", "Waits.", BOUNDS, "path", registry, now_s=lambda: next(times))
    for _ in range(2):
        counter.add(("/a",))
        histogram.observe("/a", 1.0)
    assert registry.get_sample_value("tests_created", {"path": "/a"}) == 5.0
    assert registry.get_sample_value("waits_created", {"path": "/a"}) == 6.0


def test_two_metrics_of_one_name_are_refused_as_the_library_does():
    registry = CollectorRegistry()
    LoopCounter("tests", "Tests.", (), registry)
    with pytest.raises(ValueError, match="Duplicated"):
        LoopCounter("tests", "Tests.", (), registry)
