"""Logs of any source -> one dataset, with the rows that cannot be read counted and a ripe age asked of the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from router_ml.config import ObjectSettings
from router_ml.errors import DataError
from router_ml.features import from_stored
from router_ml.ladder import Ladder
from router_ml.schema import Interaction
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.learning import Progress
from router_ml_training.sources import SOURCES, Reject, SourceOptions

__all__ = [
    "Log",
    "options_of",
    "read_dataset",
    "read_interactions",
    "refuse_unreadable",
    "ripe_before",
    "traffic",
    "usable",
]

MAX_REJECTS = 0.05
_PROGRESS_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Log:
    """One log to learn from: where it is, which importer reads it, and how to reach it on object storage."""

    location: str
    source: str = "native"
    objects: ObjectSettings = field(default_factory=ObjectSettings, repr=False)

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
    return build_dataset(read_interactions(logs, ladder, ripe_before=ripe_before, progress=progress), ladder.names)


def read_interactions(
    logs: Sequence[Log],
    ladder: Ladder,
    *,
    since: datetime | None = None,
    ripe_before: datetime | None = None,
    progress: Progress = lambda _: None,
) -> Iterator[Interaction]:
    """Read logs, one interaction at a time; see `read_dataset`, which makes arrays of them.

    Args:
        logs: As there.
        ladder: As there.
        since: Earlier interactions are left out; None takes all.
        ripe_before: As there.
        progress: As there.

    Raises:
        DataError: At the end, when nothing can be read, or more than 5 % of the rows cannot.
    """
    counts = _Counts()
    rows = itertools.chain.from_iterable(_read(log, ladder, since, counts) for log in logs)
    ripe = _ripe(_readable(rows, logs, counts), ripe_before, progress)
    return ripe if since is None else (row for row in ripe if row.ts >= since)


@dataclass(slots=True)
class _Counts:
    read: int = 0
    rejected: int = 0
    first_reason: str = ""


def _read(log: Log, ladder: Ladder, since: datetime | None, counts: _Counts) -> Iterator[Interaction]:
    for row in map(usable, traffic(SOURCES.load(log.source)(log.location, options_of(log, ladder, since)))):
        if isinstance(row, str):
            counts.rejected += 1
            counts.first_reason = counts.first_reason or row
        else:
            counts.read += 1
            yield row


def options_of(log: Log, ladder: Ladder, since: datetime | None = None) -> SourceOptions:
    """Return how a log is read to learn about the tiers of a ladder; `since` spares sources what is older."""
    # A table of outcomes names models, not tiers: those of the ladder.
    models = {tier.name: tier.model for tier in ladder}
    return SourceOptions(ladder=ladder, tiers=models, objects=log.objects, since=since)


def traffic(rows: Iterator[Interaction | Reject]) -> Iterator[Interaction | Reject]:
    """Leave out runs of golden sets: the same few prompts every night are no sample that anything holds for."""
    return (row for row in rows if isinstance(row, Reject) or not row.is_golden)


def usable(row: Interaction | Reject) -> Interaction | str:
    """Return the interaction when it can be learned from, else why it cannot."""
    return row.reason if isinstance(row, Reject) else _fault(row) or row


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
    refuse_unreadable(logs, counts.read, counts.rejected, counts.first_reason)


def refuse_unreadable(logs: Sequence[Log], read: int, rejected: int, reason: str) -> None:
    """Stop before anybody wonders why so little is left to learn from.

    Args:
        logs: What was read.
        read: How many of their rows could be read.
        rejected: How many could not.
        reason: Why the first of those could not.

    Raises:
        DataError: When nothing was read, or more than 5 % of the rows could not be.
    """
    if rejected > MAX_REJECTS * (read + rejected):
        raise DataError(
            f"{rejected} of {read + rejected} rows of {', '.join(map(str, logs))} cannot be read "
            f"(first: {reason}); run `router-ml ingest` to see them all"
        )
    if read == 0:
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
