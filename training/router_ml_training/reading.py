"""Logs of any source -> one dataset, with the rows that cannot be read counted and a ripe age asked of the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from router_ml.errors import DataError
from router_ml.features import from_stored
from router_ml.ladder import Ladder
from router_ml.schema import Interaction
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.learning import Progress
from router_ml_training.sources import SOURCES, Reject, SourceOptions

__all__ = ["Log", "read_dataset", "ripe_before"]

MAX_REJECTS = 0.05
_PROGRESS_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Log:
    """One log to learn from: where it is and which importer reads it."""

    location: str
    source: str = "native"

    def __str__(self) -> str:
        return self.location.rpartition("@")[2]  # a URL may hold a password


def read_dataset(
    logs: Sequence[Log],
    ladder: Ladder,
    *,
    ripe_before: datetime | None = None,
    progress: Progress = lambda _: None,
) -> Dataset:
    """Read logs, one interaction at a time, into one dataset.

    Args:
        logs: Where to read; an id that was met before is left out.
        ladder: The tiers to learn about.
        ripe_before: Later interactions still wait for their feedback and are left out; None takes all.
        progress: Told how far it is.

    Raises:
        DataError: When nothing can be read, or more than 5 % of the rows cannot.
    """
    counts = _Counts()
    rows = itertools.chain.from_iterable(_read(log, ladder, counts) for log in logs)
    return build_dataset(_ripe(_readable(rows, logs, counts), ripe_before, progress), ladder.names)


@dataclass(slots=True)
class _Counts:
    read: int = 0
    rejected: int = 0
    first_reason: str = ""


def _read(log: Log, ladder: Ladder, counts: _Counts) -> Iterator[Interaction]:
    # A table of outcomes names models, not tiers: those of the ladder.
    options = SourceOptions(ladder=ladder, tiers={tier.name: tier.model for tier in ladder})
    for row in SOURCES.load(log.source)(log.location, options):
        reason = row.reason if isinstance(row, Reject) else _fault(row)
        if isinstance(row, Reject) or reason is not None:
            counts.rejected += 1
            counts.first_reason = counts.first_reason or reason or ""
        else:
            counts.read += 1
            yield row


def _fault(row: Interaction) -> str | None:
    # Such a row is lost, the rest of the log is not: it was drawn by nobody who wrote these propensities, or
    # another release stored its features.
    if row.mode == "live" and row.attempts and row.propensity.get(row.attempts[0].tier) == 0.0:
        return f"propensity: {row.attempts[0].tier} was tried first, with probability 0, which cannot be"
    try:
        _ = row.features and from_stored(row.features)
    except DataError as error:
        return str(error)
    return None


def _readable(rows: Iterator[Interaction], logs: Sequence[Log], counts: _Counts) -> Iterator[Interaction]:
    yield from rows
    # Asked here, before anybody wonders why so little is left to learn from.
    if counts.rejected > MAX_REJECTS * (counts.read + counts.rejected):
        raise DataError(
            f"{counts.rejected} of {counts.read + counts.rejected} rows of {', '.join(map(str, logs))} cannot be read "
            f"(first: {counts.first_reason}); run `router-ml ingest` to see them all"
        )
    if counts.read == 0:
        raise DataError(f"{', '.join(map(str, logs))}: the log holds no interaction")


def _ripe(rows: Iterator[Interaction], ripe_before: datetime | None, progress: Progress) -> Iterator[Interaction]:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen or (ripe_before is not None and row.ts > ripe_before):
            continue
        seen.add(row.id)
        if len(seen) % _PROGRESS_EVERY == 0:
            progress(f"reading: {len(seen):,} interactions")
        yield row


def ripe_before(now: datetime, maturity_s: float) -> datetime | None:
    """Return the time before which feedback has had its time to arrive; None when no wait is asked for."""
    return now - timedelta(seconds=maturity_s) if maturity_s > 0 else None
