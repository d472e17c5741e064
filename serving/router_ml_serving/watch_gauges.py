"""What the last look at the traffic found, beside the service's own counters: read again when the file has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from prometheus_client import Gauge

from router_ml.errors import DataError
from router_ml.watch import WATCH, Watch, read_watch

__all__ = ["WatchGauges"]

log = logging.getLogger(__name__)


class WatchGauges:
    """Shows `watch.json` as gauges; a file that cannot be read is logged once and shows nothing.

    Args:
        drift: Distance over limit, by name and kind.
        drifted: 1 where that is beyond chance, too.
        alarm: 1 for one that rings, by kind, tier and direction.
        age: Seconds since the look, by bundle.
    """

    def __init__(self, drift: Gauge, drifted: Gauge, alarm: Gauge, age: Gauge) -> None:
        self._drift, self._drifted, self._alarm, self._age = drift, drifted, alarm, age
        self._models_dir: Path | None = None
        self._clock: Callable[[], datetime] = datetime.now
        self._seen: tuple[int, int, int] | None = None

    def look_at(self, models_dir: Path, clock: Callable[[], datetime]) -> None:
        """Say where the file is, and what tells the time of day (UTC)."""
        self._models_dir, self._clock = models_dir, clock

    def refresh(self) -> None:
        """Show what the file says now; costs one look at its date when it has not changed."""
        if self._models_dir is None:
            return
        seen = _facts_of(self._models_dir / WATCH)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            watch = read_watch(self._models_dir)
        except DataError as error:
            log.warning("watch_unreadable", extra={"reason": str(error)})
            watch = None
        self._show(watch)

    def _show(self, watch: Watch | None) -> None:
        for gauge in (self._drift, self._drifted, self._alarm, self._age):
            gauge.clear()
        if watch is None:
            return
        for line in watch.drift:
            self._drift.labels(line.name, line.kind).set(line.distance / (line.limit or 1.0))
            self._drifted.labels(line.name, line.kind).set(line.drifted)
        for alarm in watch.alarms:
            self._alarm.labels(alarm.kind, alarm.tier, alarm.direction).set(alarm.rings)
        if not watch.n:  # a golden set alone has ended; nobody has looked at the traffic
            return
        clock, checked = self._clock, watch.checked
        self._age.labels(watch.bundle).set_function(lambda: (clock() - checked).total_seconds())


def _facts_of(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
