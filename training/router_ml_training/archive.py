"""Past days of the event store -> one Parquet object per day, in a folder or on object storage.

`<to>/day=2026-11-22/part-0.parquet` has the interactions of that day (UTC) by (ts, id), each with the feedback it had
by then. A day is written whole: readers see the old object or the new one. What an archived day has and the store has
no more stays in it, so that a day never loses a row, whatever was deleted from the store or arrives late.
"""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from router_ml.errors import DataError, RecordError, UsageError
from router_ml.schema import Interaction
from router_ml.store import EventStore
from router_ml_training.archive_lock import Renew
from router_ml_training.archive_places import PART, Place
from router_ml_training.frames import from_frame, write_parquet
from router_ml_training.learning import Progress

__all__ = ["ArchiveReport", "ArchivedDay", "Forgotten", "archive", "forget"]

# What runs beside a request is stored a little later, perhaps on the next day, and is deleted with it.
_BESIDE = timedelta(hours=1)
# An interaction, and what ran beside it.
_SUFFIXES = ("", "-audit", "-shadow")
_IDS_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class ArchivedDay:
    """One day: where it is, the rows it has now, and whether its object was written (False: it was the same)."""

    day: str
    location: str
    rows: int
    written: bool


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What an archive run did; `unreadable` rows of the store are in no archive, and are never deleted."""

    days: tuple[ArchivedDay, ...]
    deleted: int
    unreadable: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON can hold them."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the report for a person."""
        lines = [
            f"{one.day}  {one.rows} interactions  {'written' if one.written else 'unchanged'}  {one.location}"
            for one in self.days
        ]
        lines = lines or ["no day is over yet; nothing was archived"]
        lines += [f"deleted {self.deleted} interactions from the event store"] if self.deleted else []
        lines += [f"{self.unreadable} rows of the event store cannot be read and stay there"] if self.unreadable else []
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The days that were written anew, and how many interactions they have no more."""

    days: tuple[ArchivedDay, ...]
    forgotten: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON can hold them."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the report for a person."""
        lines = [f"{one.day}  {one.rows} interactions are left  {one.location}" for one in self.days]
        return "\n".join([*lines, f"{self.forgotten} interactions are gone from the archive"])


def archive(
    store: EventStore,
    place: Place,
    *,
    before: datetime,
    since: datetime | None = None,
    delete: bool = False,
    progress: Progress = lambda _: None,
) -> ArchiveReport:
    """Archive every day that was over before a time; deleting comes last, after every day was read back.

    Args:
        store: Whose interactions.
        place: Where to.
        before: Days that end by then.
        since: Days from that day on; None: all.
        delete: Delete from the store what the archive has, but for its last hour and what got feedback meanwhile.
        progress: Told what is being done.

    Raises:
        StoreError: When the store cannot be read.
        ObjectStoreError: When the storage cannot be read or written; days before that are archived, none is deleted.
        DataError: When an archived day cannot be read, or does not have the rows it was written with.
        UsageError: When the folder cannot be written.
        RouterError: When another archive run is at work there.
    """
    end = datetime.combine(before.astimezone(UTC).date(), time(), UTC)
    begin = None if since is None else datetime.combine(since.astimezone(UTC).date(), time(), UTC)
    unreadable: list[str] = []
    rows = store.scan(begin, on_reject=lambda key, _reason: unreadable.append(key))
    over = itertools.takewhile(lambda item: item.ts < end, rows)
    days, deleted = [], 0
    with place.held() as renew:
        for day, items in itertools.groupby(over, key=lambda item: item.ts.astimezone(UTC).date()):
            progress(f"archiving {day}")
            renew()
            days.append(_archive_day(day, items, place, renew))
        for archived in days if delete else ():
            progress(f"deleting {archived.day}")
            renew()
            deleted += _delete_day(archived, store, place, until=end - _BESIDE)
    return ArchiveReport(tuple(days), deleted, len(set(unreadable)))


def forget(
    place: Place,
    *,
    ids: Collection[str] = (),
    tenant: str | None = None,
    progress: Progress = lambda _: None,
) -> Forgotten:
    """Write every day of an archive anew without some interactions; days that have none of them are left as they are.

    Args:
        place: Where the archive is.
        ids: Interactions to leave out, with what ran beside them.
        tenant: Whose interactions to leave out.
        progress: Told what is being done.

    Raises:
        ObjectStoreError: When the storage cannot be read or written; days before that are done.
        DataError: When no day is there, or one cannot be read or does not have the rows it was written with.
        UsageError: When the folder cannot be written.
        RouterError: When another archive run is at work there.
    """
    meant = {f"{id_}{suffix}" for id_ in ids for suffix in _SUFFIXES}

    def stays(item: Interaction) -> bool:
        return item.id not in meant and (tenant is None or item.tenant != tenant)

    days, forgotten = [], 0
    if not place.days():  # a mistyped name must not pass for an archive that has forgotten
        raise DataError(f"{place.name('')}: no archived day is there; check --to")
    with place.held() as renew:
        for key in place.days():
            progress(f"reading {place.name(key)}")
            renew()
            gone = sum(not stays(item) for item in _archived(place, key))
            if gone:
                day = key.partition("/")[0].removeprefix("day=")
                days.append(_write_day(day, key, filter(stays, _archived(place, key)), place, renew))
                forgotten += gone
    return Forgotten(tuple(days), forgotten)


def _archive_day(day: date, items: Iterable[Interaction], place: Place, renew: Renew) -> ArchivedDay:
    key = _key(day)
    return _write_day(day.isoformat(), key, _merged(_archived(place, key), items), place, renew)


def _write_day(day: str, key: str, items: Iterable[Interaction], place: Place, renew: Renew) -> ArchivedDay:
    with tempfile.TemporaryDirectory(prefix="router-ml-archive-") as folder:
        file = Path(folder) / PART
        try:
            n_rows = write_parquet(file, items)
        except OSError as error:
            raise UsageError(f"{file}: cannot be written ({error.strerror}); TMPDIR names another folder") from error
        written = not place.same(key, file)
        if written:
            renew()  # a long day may have outlasted the lease: who has taken over is not to be overwritten
            place.put(key, file)
    if (found := place.rows(key)) != n_rows:
        raise DataError(f"{place.name(key)}: has {found} rows, {n_rows} were written; nothing was deleted")
    return ArchivedDay(day, place.name(key), n_rows, written)


def _archived(place: Place, key: str) -> Iterator[Interaction]:
    try:
        for frame in place.frames(key):
            yield from from_frame(frame)
    except RecordError as error:
        raise DataError(f"{place.name(key)}: {error}; move it away to archive the day anew") from error


def _merged(old: Iterable[Interaction], new: Iterable[Interaction]) -> Iterator[Interaction]:
    """Yield both by (ts, id); of two with one id the store's, which has the later feedback."""
    ranked = heapq.merge(((item, 1) for item in old), ((item, 0) for item in new), key=_rank)
    for _, same in itertools.groupby(ranked, key=lambda pair: (pair[0].ts, pair[0].id)):
        yield next(same)[0]


def _rank(pair: tuple[Interaction, int]) -> tuple[datetime, str, int]:
    item, age = pair
    return item.ts, item.id, age


def _delete_day(archived: ArchivedDay, store: EventStore, place: Place, *, until: datetime) -> int:
    day = date.fromisoformat(archived.day)
    begin = datetime.combine(day, time(), UTC)
    end = min(begin + timedelta(days=1), until)
    here = itertools.takewhile(lambda item: item.ts < end, store.scan(begin, on_reject=lambda _key, _reason: None))
    ids = _kept_whole(_archived(place, _key(day)), here)
    deleted = 0
    while some := list(itertools.islice(ids, _IDS_AT_ONCE)):
        deleted += store.delete(ids=some)
    return deleted


def _kept_whole(old: Iterable[Interaction], new: Iterable[Interaction]) -> Iterator[str]:
    """Yield the ids that the archive has with all of the store's feedback: some may have come since."""
    ranked = heapq.merge(((item, 1) for item in old), ((item, 0) for item in new), key=_rank)
    for (_, id_), same in itertools.groupby(ranked, key=lambda pair: (pair[0].ts, pair[0].id)):
        feedback = {age: item.feedback for item, age in same}
        if len(feedback) == 2 and feedback[0] == feedback[1]:
            yield id_


def _key(day: date) -> str:
    return f"day={day.isoformat()}/{PART}"
