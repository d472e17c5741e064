"""Writes to the event store, or to the spill file while the store is away; synchronous, in the recorder's threads."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Self

from router_ml.errors import StoreError
from router_ml.schema import Feedback, Interaction
from router_ml.store import Deciding, EventStore, StoreRow, row_of
from router_ml_serving.spill import Spill, feedback_line, read_chunk

__all__ = ["Amendment", "Recordable", "Writer", "Written"]

log = logging.getLogger(__name__)


class Amendment(NamedTuple):
    """Feedback that nobody waits for; `told` is called in the writing thread with whether it was new."""

    decision_id: str
    feedback: Feedback
    told: Callable[[bool], None]


# An interaction, its row, or a function that builds either: the hot path then writes no JSON.
_Row = Interaction | StoreRow | Callable[[], Interaction | StoreRow]
Recordable = _Row | Amendment
# Interactions that a purge deletes at a time: new ones come in between.
PURGE_PAGE = 200


@dataclass(frozen=True, slots=True)
class Written:
    """What became of some items; `more` says that there is more to recover, or to purge."""

    recorded: int = 0
    spilled: int = 0
    recovered: int = 0
    failed: int = 0
    purged: int = 0
    more: bool = False

    def __add__(self, other: Self) -> Written:
        return Written(
            self.recorded + other.recorded,
            self.spilled + other.spilled,
            self.recovered + other.recovered,
            self.failed + other.failed,
            self.purged + other.purged,
            self.more or other.more,
        )


class Writer:
    """One event store with one spill file to fall back to.

    `spill_batch` may be called from one thread while another one is in any other method; those need one thread.

    Args:
        store: Where events go.
        spill: Where they go while the store is away.
        chunk: Lines of the spill file that are recovered at a time.
        retry_s: How long a store that failed is left alone.
        clock: Monotonic seconds.
    """

    def __init__(
        self, store: EventStore, spill: Spill, *, chunk: int, retry_s: float, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._spill = spill
        self._chunk = chunk
        self._retry_s = retry_s
        self._clock = clock
        self._retry_at = float("-inf")
        self._part: tuple[Path, int] | None = None
        # True at first: an earlier process may have left something.
        self._left_to_recover = True

    def write(self, batch: Sequence[Recordable]) -> Written:
        """Store a batch, or spill it."""
        rows, amendments = _parted(batch)
        written = self._write_rows(*_build(rows))
        for one in amendments:
            written += self._amend_later(one)
        return written

    def spill_batch(self, batch: Sequence[Recordable]) -> Written:
        """Spill a batch without asking the store."""
        rows, amendments = _parted(batch)
        built, failed = _build(rows)
        lines = [row.body for row in built]
        lines += [feedback_line(one.decision_id, one.feedback) for one in amendments]
        written = self._spill_lines(lines, failed)
        for one in amendments if written.spilled else ():
            one.told(True)
        return written

    def deciding(self, decision_id: str) -> Deciding | None:
        """Return what is known of a decision; None when the store is away or does not know."""
        if self._is_away():
            return None
        try:
            return self._store.deciding(decision_id)
        except StoreError as error:
            self._leave_alone(error)
            return None

    def amend(self, decision_id: str, feedback: Feedback) -> tuple[bool, Written]:
        """Store or spill feedback; on the disk when this returns.

        Returns:
            Whether it was new (True when the store could not be asked), and what became of it.

        Raises:
            StoreError: When neither the store nor the spill file took it.
        """
        if not self._is_away():
            try:
                return self._store.amend(decision_id, feedback), Written()
            except StoreError as error:
                self._leave_alone(error)
        try:
            self._spill.append([feedback_line(decision_id, feedback)])
        except OSError as error:
            message = f"neither the event store nor the spill file {self._spill.path} takes feedback: {error.strerror}"
            raise StoreError(message) from error
        self._left_to_recover = True
        return True, Written(spilled=1)

    def recover(self) -> Written:
        """Move one chunk from the spill file into the store, if there is one and the store answers."""
        if not self._left_to_recover or self._is_away():
            return Written()
        # First, so that what another thread spills meanwhile is not forgotten.
        self._left_to_recover = False
        try:
            written = self._recover_chunk()
        except (StoreError, OSError) as error:
            self._leave_alone(error)
            self._left_to_recover = True
            return Written()
        self._left_to_recover |= written.more
        return written

    def purge(self, before: datetime) -> Written | None:
        """Delete one page of what is older than a time; `more` says that there is more. None: the store is away."""
        if self._is_away():
            return None
        try:
            purged = self._store.expire(before, limit=PURGE_PAGE)
        except StoreError as error:
            self._leave_alone(error)
            return None
        return Written(purged=purged, more=purged >= PURGE_PAGE)

    def _recover_chunk(self) -> Written:
        if self._part is None:
            path = self._spill.set_aside()
            if path is None:
                return Written()
            self._part = (path, 0)
        path, offset = self._part
        try:
            chunk = read_chunk(path, offset, self._chunk)
        except FileNotFoundError:  # another process recovered it
            self._part = None
            return Written(more=True)
        self._store.append(chunk.interactions)
        for decision_id, feedback in chunk.feedback:
            self._store.amend(decision_id, feedback)
        if chunk.unreadable:
            self._spill.reject(chunk.unreadable)
            log.error("spilled_lines_unreadable", extra={"lines": len(chunk.unreadable)})
        if chunk.end is None:
            path.unlink(missing_ok=True)
            self._part = None
        else:
            self._part = (path, chunk.end)
        recovered = len(chunk.interactions) + len(chunk.feedback)
        return Written(recovered=recovered, failed=len(chunk.unreadable), more=True)

    def _write_rows(self, built: Sequence[StoreRow], failed: int) -> Written:
        if not self._is_away():
            try:
                self._store.append_rows(built)
            except StoreError as error:
                self._leave_alone(error)
            else:
                return Written(recorded=len(built), failed=failed)
        return self._spill_lines([row.body for row in built], failed)

    def _amend_later(self, one: Amendment) -> Written:
        try:
            new, written = self.amend(one.decision_id, one.feedback)
        except StoreError as error:
            log.error("feedback_lost", extra={"cause": str(error)})  # noqa: TRY400  the cause says it all
            return Written(failed=1)
        one.told(new)
        return written

    def _spill_lines(self, lines: Sequence[str], failed: int) -> Written:
        if not lines:
            return Written(failed=failed)
        try:
            self._spill.append(lines)
        except OSError:
            log.exception("interactions_lost", extra={"lost": len(lines)})
            return Written(failed=failed + len(lines))
        self._left_to_recover = True
        return Written(spilled=len(lines), failed=failed)

    def _is_away(self) -> bool:
        return self._clock() < self._retry_at

    def _leave_alone(self, error: Exception) -> None:
        self._retry_at = self._clock() + self._retry_s
        log.warning("event_store_unavailable", extra={"cause": str(error), "retry_s": self._retry_s})


def _parted(batch: Sequence[Recordable]) -> tuple[list[_Row], list[Amendment]]:
    rows: list[_Row] = []
    amendments: list[Amendment] = []
    for item in batch:
        if isinstance(item, Amendment):
            amendments.append(item)
        else:
            rows.append(item)
    return rows, amendments


def _build(batch: Sequence[_Row]) -> tuple[list[StoreRow], int]:
    built = []
    for item in batch:
        try:
            found = item() if callable(item) else item
            built.append(row_of(found) if isinstance(found, Interaction) else found)
        except Exception as error:  # noqa: BLE001 - one record that cannot be built must not take its batch along
            _log_unbuildable(error)
    return built, len(batch) - len(built)


def _log_unbuildable(error: Exception) -> None:
    # Neither message nor traceback: a validation error quotes the prompt.
    where = traceback.extract_tb(error.__traceback__)[-1]
    log.error("interaction_lost", extra={"cause": f"{type(error).__name__} at {where.filename}:{where.lineno}"})
