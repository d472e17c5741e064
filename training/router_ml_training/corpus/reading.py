"""Logs -> a corpus: units that have not changed come from the cache, the others are read, by several processes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import DataError
from router_ml.ladder import Ladder
from router_ml_training.answers import EVERY_PLACE, MAX_ANSWERS
from router_ml_training.blocks import RowBlock
from router_ml_training.corpus.building import Build, build, parts_of
from router_ml_training.corpus.gathering import Corpus, Stretch, corpus_of
from router_ml_training.corpus.parts import Part, Tally, allow_parts, key_of
from router_ml_training.corpus.units import ROWS, Unit, folder_of, units_of
from router_ml_training.executor import Executor
from router_ml_training.learning import Progress
from router_ml_training.reading import Log, refuse_unreadable
from router_ml_training.sources.store import open_log

__all__ = ["read_corpus"]

# The parts of one unit by file name, in order.
Parts: TypeAlias = dict[str, Part]

# Clocks differ by seconds, time zones by hours; what is later than that has a wrong date.
_AHEAD = timedelta(days=1)
# How many times the answers that are kept are looked at ahead: not every row has one that teaches anything.
_SPARE = 4
_AHEAD_REASON = "ts: lies more than a day in the future"


def read_corpus(
    logs: Sequence[Log],
    ladder: Ladder,
    cache: Path,
    *,
    since: datetime | None = None,
    ripe_before: datetime | None = None,
    now: datetime | None = None,
    executor: Executor,
    progress: Progress = lambda _: None,
) -> Corpus:
    """Read logs into a corpus; what was read before, and is still the same, is taken from the cache.

    Args:
        logs: Where to read; an id that was met before is left out.
        ladder: The tiers to learn about.
        cache: Folder of the parts; made when it is not there. It may be deleted at any time between two runs.
        since: Older interactions are left out; None takes all.
        ripe_before: Later interactions still wait for their feedback and are left out; None takes all.
        now: Interactions from more than a day later count as rows that cannot be read; None believes every date.
        executor: Reads and featurises, a unit at a time.
        progress: Told how far it is.

    Raises:
        DataError: When nothing can be read, more than 5 % of the rows cannot, or the cache cannot be written.
        StoreError: When a store cannot be read.
    """
    wanted, others = _tasks(logs, ladder, cache, since)
    parts, built = _read(wanted, executor, progress)
    while True:
        stretches, tally = _counted(parts, since, ripe_before, now)
        refuse_unreadable(logs, tally.read, tally.rejected, tally.reason)
        corpus = corpus_of(stretches, ladder.names)
        # Fewer answers than expected teach anything: those of more rows have to be looked at.
        short = [i for i, found in enumerate(parts) if _lowest(found) < corpus.ceiling]
        if not short:
            break
        _build([replace(wanted[i], ceiling=corpus.ceiling) for i in short], executor, progress)
        for i in short:
            parts[i] = _loaded(wanted[i])
        built |= set(short)
    for i in _changed(wanted, built):
        parts[i] = {}  # used now, and read again by the next run
    kept = {task.folder / name for task, found in zip(wanted, parts, strict=True) for name in found}
    folders = {task.folder for task in (*wanted, *others)}
    _prune(folders, kept, {task.key for task in others}, None if now is None else now - _AHEAD)
    return corpus


def _tasks(logs: Sequence[Log], ladder: Ladder, cache: Path, since: datetime | None) -> tuple[list[Build], list[Build]]:
    """Return the units that are to be read, in the order of the logs, and those whose rows are all too old."""
    wanted, others = list[Build](), list[Build]()
    for log in logs:
        folder = cache / folder_of(log)
        for unit in units_of(log):
            (wanted if _is_wanted(unit, since) else others).append(Build(unit, ladder, folder, EVERY_PLACE))
    return wanted, others


def _is_wanted(unit: Unit, since: datetime | None) -> bool:
    return since is None or unit.day is None or unit.day >= since.astimezone(UTC).date().isoformat()


def _read(tasks: Sequence[Build], executor: Executor, progress: Progress) -> tuple[list[Parts], set[int]]:
    """Return the parts of every unit, and which units were read for that."""
    allow_parts(sum(1 + task.unit.rows // ROWS for task in tasks))
    found = [None if task.unit.fingerprint is None else parts_of(task) for task in tasks]
    ceiling = _enough(sum(task.unit.rows for task in tasks))
    _build(
        [replace(task, ceiling=ceiling) for task, parts in zip(tasks, found, strict=True) if parts is None],
        executor,
        progress,
    )
    built = {i for i, parts in enumerate(found) if parts is None}
    return [_loaded(task) if parts is None else parts for task, parts in zip(tasks, found, strict=True)], built


def _changed(tasks: Sequence[Build], built: Collection[int]) -> list[int]:
    """Return the slices of stores that were not the same any more when they had been read.

    A row that came too late for the fingerprint may have been read with the others. Once it was deleted, the
    fingerprint would be right again, and the part would bring it back.
    """
    of_store = [i for i in built if tasks[i].unit.bounds is not None]
    changed = []
    for location in {tasks[i].unit.log.location for i in of_store}:
        with open_log(location) as store:
            for i in of_store:
                unit = tasks[i].unit
                if unit.log.location == location:
                    found = store.slices(ROWS, unit.bounds)
                    changed += [i] if [one.fingerprint for one in found] != [unit.fingerprint] else []
    return changed


def _enough(n_rows: int) -> int:
    """Return a ceiling with some more rows below it than there are answers to be kept."""
    ceiling = EVERY_PLACE
    while n_rows > _SPARE * MAX_ANSWERS:
        ceiling, n_rows = ceiling // 2, n_rows // 2
    return ceiling


def _build(tasks: Sequence[Build], executor: Executor, progress: Progress) -> None:
    try:
        for folder in {task.folder for task in tasks}:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{error.filename}: the cache of the logs cannot be made ({error.strerror})") from error
    n_rows = 0
    for n in executor.map(build, tasks):
        n_rows += n
        progress(f"reading: {n_rows:,} interactions")


def _loaded(task: Build) -> Parts:
    parts = parts_of(task)
    if parts is None:
        raise DataError(
            f"{task.folder}: what was just written there for {task.unit.log} is gone or damaged: is another run, or "
            "somebody else, deleting it? Run again"
        )
    return parts


def _lowest(parts: Parts) -> int:
    return min(part.block.material.ceiling for part in parts.values())


def _counted(
    parts: Sequence[Parts], since: datetime | None, ripe_before: datetime | None, now: datetime | None
) -> tuple[list[Stretch], Tally]:
    """Return the rows that count, and how many could be read of all."""
    read = rejected = 0
    reason = ""
    blocks, kept = [], []
    for part in (part for found in parts for part in found.values()):
        ahead = _later(part.block, None if now is None else now + _AHEAD)
        n_ahead = int(ahead.sum())
        read += part.tally.read - n_ahead
        rejected += part.tally.rejected + n_ahead
        reason = reason or part.tally.reason or (_AHEAD_REASON if n_ahead else "")
        is_old = part.block.ts < (-np.inf if since is None else since.timestamp())
        blocks.append(part.block)
        kept.append(np.flatnonzero(~(ahead | is_old | _later(part.block, ripe_before))))
    return _once(blocks, kept), Tally(read, rejected, reason)


def _later(block: RowBlock, edge: datetime | None) -> NDArray[np.bool_]:
    return np.asarray(block.ts > (np.inf if edge is None else edge.timestamp()), np.bool_)


def _once(blocks: Sequence[RowBlock], kept: Sequence[NDArray[np.int64]]) -> list[Stretch]:
    """Return the rows of the blocks without those whose id an earlier one has."""
    keys = np.concatenate(
        [block.key[rows] for block, rows in zip(blocks, kept, strict=True)] or [np.zeros(0, np.int64)]
    )
    is_first = np.zeros(len(keys), np.bool_)
    is_first[np.unique(keys, return_index=True)[1]] = True
    edges = np.cumsum([len(rows) for rows in kept])
    firsts = np.split(is_first, edges[:-1])
    return [Stretch(block, rows[first]) for block, rows, first in zip(blocks, kept, firsts, strict=True)]


def _prune(
    folders: Collection[Path], kept: Collection[Path], unread: Collection[str], abandoned: datetime | None
) -> None:
    # Rows that were deleted from the log have no place here either, nor in days that were not asked for.
    for folder in folders:
        for path in folder.glob("*.part"):
            if path not in kept and key_of(path) not in unread:
                path.unlink(missing_ok=True)
        for path in folder.glob(".*.tmp"):
            # Of a run that was killed; another one may be writing right now.
            with suppress(OSError):
                if abandoned is not None and path.stat().st_mtime < abandoned.timestamp():
                    path.unlink()
