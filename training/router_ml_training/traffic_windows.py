"""The latest traffic beside what came before it: two windows of one log, and who decided their requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle
from router_ml.errors import DataError
from router_ml.ladder import Ladder
from router_ml_training.blocks import BlockBuilder
from router_ml_training.dataset import Dataset, facts_of
from router_ml_training.learning import Progress
from router_ml_training.reading import Log, read_interactions

__all__ = ["EARLIER_WINDOWS", "TrafficWindows", "expected_adequacy", "read_windows"]

F64: TypeAlias = NDArray[np.float64]

# What came before is read for so many times the length of the window: enough to be steadier than the window itself.
EARLIER_WINDOWS = 4
# Requests of the window that the model is asked about; so many tell its distribution to a point.
_ASKED = 20_000
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class TrafficWindows:
    """Requests of a window that began at `since` and ended at `until`, after those of the time before it.

    `latest` (n,) marks the rows of the window, `own` (n,) those that `version` decided live or ran in the background.
    """

    dataset: Dataset
    latest: NDArray[np.bool_]
    own: NDArray[np.bool_]
    since: datetime
    until: datetime

    @property
    def earliest(self) -> datetime:
        """Where the time before the window began."""
        return self.since - EARLIER_WINDOWS * (self.until - self.since)

    def window(self) -> Dataset:
        """Return the rows of the window."""
        return self.dataset.rows(np.flatnonzero(self.latest))

    def before(self) -> Dataset | None:
        """Return the rows before the window; None when there are none."""
        return self._rows(~self.latest)

    def own_window(self) -> Dataset | None:
        """Return the version's own rows of the window; None when there are none."""
        return self._rows(self.latest & self.own)

    def own_before(self) -> Dataset | None:
        """Return the version's own rows before the window; None when there are none."""
        return self._rows(~self.latest & self.own)

    def _rows(self, mask: NDArray[np.bool_]) -> Dataset | None:
        return self.dataset.rows(np.flatnonzero(mask)) if mask.any() else None


def read_windows(
    logs: Sequence[Log],
    ladder: Ladder,
    *,
    length: timedelta,
    until: datetime,
    version: str,
    progress: Progress = lambda _: None,
) -> TrafficWindows:
    """Read the last window of the logs, and the time before it; rows after `until` are left out.

    Args:
        logs: Where to read.
        ladder: The tiers.
        length: Of the window.
        until: Its end.
        version: Bundle whose own decisions are marked.
        progress: Told how far it is.

    Raises:
        DataError: When nothing can be read, or the window is empty.
    """
    since, builder = until - length, BlockBuilder(ladder.names)
    earliest = since - EARLIER_WINDOWS * length
    for item in read_interactions(logs, ladder, since=earliest, ripe_before=until, progress=progress):
        builder.add(item)
    block = builder.built()
    latest = block.ts >= since.timestamp()
    if not latest.any():
        listed = ", ".join(map(str, logs))
        raise DataError(
            f"{listed}: no interaction between {since:%Y-%m-%d %H:%M} and {until:%Y-%m-%d %H:%M} UTC; "
            "look further back with --since, or at another time with --until"
        )
    facts = facts_of([block], ladder.names, silent=True)
    of_version = np.array([policy == version for policy, _ in block.strata], np.bool_)
    own = of_version[block.stratum]
    return TrafficWindows(replace(facts, text=block.text), latest, own, since, until)


def expected_adequacy(dataset: Dataset, bundle: Bundle, *, rng: np.random.Generator) -> F64:
    """Return what a bundle says of each row and tier, (n, K); NaN for rows it was not asked about.

    Args:
        dataset: Rows with words, over the bundle's tiers.
        bundle: The bundle.
        rng: Draws the rows that are asked about, where there are many.
    """
    n = len(dataset)
    asked = np.arange(n) if n <= _ASKED else np.sort(rng.choice(n, _ASKED, replace=False))
    found = np.full((n, len(dataset.tiers)), np.nan)
    for start in range(0, len(asked), _CHUNK):
        rows = asked[start : start + _CHUNK]
        found[rows] = bundle.score_many(dataset.features(rows))[0]
    return found
