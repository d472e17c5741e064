"""The only writer of the service: interactions and feedback go to the event store off the hot path.

`record` puts an interaction into a queue and returns; one thread builds, serialises and stores batches. While the
store is away, everything goes to a spill file and back into the store when it answers again. What is lost after all
(no store and no disk) is counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

from router_ml.errors import StoreError
from router_ml.schema import Feedback
from router_ml.store import Deciding, EventStore, StoreRow
from router_ml_serving.spill import Spill
from router_ml_serving.writer import Amendment, Recordable, Writer, Written

__all__ = ["Recorder"]

log = logging.getLogger(__name__)

PURGE_EVERY_S = 3600.0
# A few very long prompts fill the memory sooner than thousands of usual ones; what is not written out yet is taken for
# one of these.
_MOST_QUEUED_BYTES = 64 * 2**20
_USUAL_BYTES = 10_000
T = TypeVar("T")
P = ParamSpec("P")


class Recorder:
    """Writes interactions and feedback to the event store without making a request wait.

    All methods are called on the thread of the running event loop. Counters, since the start: `recorded`
    (interactions in the store), `spilled` (interactions and feedback in the spill file, to be recovered), `recovered`
    (from there into the store), `failed` (lost or unreadable, logged), `purged` (deleted because of their age), and
    `pending` (waiting now).

    Args:
        store: Where events go. The recorder does not close it.
        spill: File for what the store cannot take; its folder is made.
        queue_size: Interactions that may wait in memory; beyond that, or 64 MiB, they go to the spill file.
        batch_size: Interactions per transaction. A transaction costs as much as a dozen of them.
        flush_s: How long an interaction waits for its batch to fill.
        retry_s: How long a store that failed is left alone.
        retention: Interactions older than this are deleted, once an hour and first after one; None keeps them.
        clock: Monotonic seconds.
        now: The time of day, with its time zone.

    Raises:
        StoreError: When the folder of the spill file cannot be made.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        spill: Path,
        queue_size: int = 10_000,
        batch_size: int = 200,
        flush_s: float = 0.2,
        retry_s: float = 5.0,
        retention: timedelta | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.recorded = 0
        self.spilled = 0
        self.recovered = 0
        self.failed = 0
        self.purged = 0
        _make_folder(spill)
        self._writer = Writer(store, Spill(spill), chunk=batch_size, retry_s=retry_s, clock=clock)
        self._queue_size = queue_size
        self._batch_size = batch_size
        self._flush_s = flush_s
        self._retention = retention
        self._clock = clock
        self._now = now
        # The time of day when a purge was last thought of, and on the other clock. At the start it is often wrong, till
        # somebody sets it: nothing is purged by it before an hour has passed.
        self._looked = (now(), clock())
        self._purge_at = self._looked[1] + PURGE_EVERY_S
        self._queue: deque[Recordable] = deque()
        self._queued_bytes = 0
        self._in_flight = 0
        self._full = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._loop_task: asyncio.Task[None] | None = None
        self._overflow: asyncio.Task[None] | None = None
        self._closed = False
        self._losing = False
        # One thread per resource: a store that hangs does not keep the overflow from the disk.
        self._store_thread = ThreadPoolExecutor(1, thread_name_prefix="recorder-store")
        self._spill_thread = ThreadPoolExecutor(1, thread_name_prefix="recorder-spill")

    @property
    def pending(self) -> int:
        """Interactions that are in memory only."""
        return len(self._queue) + self._in_flight

    async def start(self) -> None:
        """Start writing in the background, first of all what an earlier process left in the spill file."""
        self._loop_task = asyncio.create_task(self._run(), name="recorder")

    def record(self, interaction: Recordable) -> None:
        """Queue one interaction; never waits.

        Args:
            interaction: The record, or a function that builds it, called later in another thread.
        """
        full = len(self._queue) >= self._queue_size or self._queued_bytes >= _MOST_QUEUED_BYTES
        if self._closed or (full and not self._make_room()):
            self._lose()
            return
        self._queue.append(interaction)
        self._queued_bytes += _size(interaction)
        if len(self._queue) >= self._batch_size:
            self._full.set()

    async def feedback(self, decision_id: str, feedback: Feedback) -> bool:
        """Keep feedback; it is on the disk when this returns.

        Args:
            decision_id: The `id` of the interaction, stored already or not.
            feedback: Counts once per `key`.

        Returns:
            Whether it was new; True also when the store was away and could not tell.

        Raises:
            StoreError: When neither the store nor the spill file took it.
        """
        if self._closed:
            raise StoreError("the recorder is closed; the service is stopping, send the feedback again later")
        new, written = await self._in_store_thread(self._writer.amend, decision_id, feedback)
        self._add(written)
        return new

    def feedback_later(self, decision_id: str, feedback: Feedback, told: Callable[[bool], None]) -> None:
        """Queue feedback that nobody waits for, as `record` does; what is lost counts as `failed`.

        Args:
            decision_id: The `id` of the interaction, stored already or not.
            feedback: Counts once per `key`.
            told: Called with whether it was new, in another thread.
        """
        self.record(Amendment(decision_id, feedback, told))

    async def deciding(self, decision_id: str) -> Deciding | None:
        """Return what is known of a decision; None when nothing is, or not yet."""
        return None if self._closed else await self._in_store_thread(self._writer.deciding, decision_id)

    async def flush(self) -> None:
        """Write what is queued now, and return when it is in the store or in the spill file."""
        async with self._flushing:
            # Not what comes meanwhile: under load that would never end, and nothing else would have its turn.
            left = len(self._queue)
            while left > 0 and self._queue:
                batch = [self._queue.popleft() for _ in range(min(self._batch_size, left, len(self._queue)))]
                left -= len(batch)
                self._queued_bytes -= sum(map(_size, batch))
                await self._write_out(self._store_thread, self._writer.write, batch)
        if self._overflow is not None:
            await asyncio.shield(self._overflow)

    async def close(self, *, deadline_s: float = 5.0) -> None:
        """Stop taking events and write what is queued; what the store does not take in time is spilled.

        Args:
            deadline_s: How long the store is waited for.
        """
        if self._closed:
            return
        self._closed = True
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        try:
            async with asyncio.timeout(deadline_s):
                await self._settle()
        except TimeoutError:
            log.warning("recorder_close_deadline", extra={"pending": self.pending})
        rest = list(self._queue)
        self._queue.clear()
        if rest:
            await self._write_out(self._spill_thread, self._writer.spill_batch, rest)
        # A batch the store is still busy with is finished or spilled by its thread: the interpreter waits for that.
        self._store_thread.shutdown(wait=False)
        self._spill_thread.shutdown(wait=False)

    async def _settle(self) -> None:
        await self.flush()
        # Behind whatever the thread still has to do.
        await self._in_store_thread(lambda: None)

    async def _run(self) -> None:
        while not self._closed:
            # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._flush_s):
                    await self._full.wait()
            self._full.clear()
            try:
                await self.flush()
                # One chunk at a time, so that feedback and new interactions come in between.
                recovered = await self._in_store_thread(self._writer.recover)
                purged = await self._purge()
            except Exception:  # outermost loop: whatever happens, the next batch is tried
                log.exception("recorder_failed")
                continue
            self._add(recovered)
            self._add(purged)
            if recovered.more or purged.more:
                self._full.set()

    async def _purge(self) -> Written:
        if self._retention is None or self._clock() < self._purge_at:
            return Written()
        now = self._now()
        if self._has_jumped(now):
            self._purge_at = self._clock() + PURGE_EVERY_S
            log.warning("clock_jumped", extra={"purge_again_s": PURGE_EVERY_S})
            return Written()
        purged = await self._in_store_thread(self._writer.purge, now - self._retention)
        if purged is None:
            return Written()
        if not purged.more:
            self._purge_at = self._clock() + PURGE_EVERY_S
        return purged

    def _has_jumped(self, now: datetime) -> bool:
        # A wrong clock must not delete the log: a time of day that is far from where it was is believed an hour later.
        before, self._looked = self._looked, (now, self._clock())
        return abs((now - before[0]).total_seconds() - (self._looked[1] - before[1])) > PURGE_EVERY_S

    def _lose(self) -> None:
        self.failed += 1
        if not self._losing:  # once per episode: there may be thousands
            self._losing = True
            cause = "closed" if self._closed else "queue and spill file too slow"
            log.error("interactions_lost", extra={"cause": cause, "failed": self.failed})

    def _make_room(self) -> bool:
        if self._overflow is not None and not self._overflow.done():
            return False
        self._losing = False
        batch = list(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        log.warning("recorder_queue_full", extra={"spilling": len(batch)})
        write = self._write_out(self._spill_thread, self._writer.spill_batch, batch)
        self._overflow = asyncio.get_running_loop().create_task(write, name="recorder-overflow")
        return True

    async def _write_out(
        self,
        thread: ThreadPoolExecutor,
        write: Callable[[Sequence[Recordable]], Written],
        batch: Sequence[Recordable],
    ) -> None:
        self._in_flight += len(batch)
        work = asyncio.get_running_loop().run_in_executor(thread, write, batch)
        work.add_done_callback(lambda done: self._written(done, len(batch)))
        # Unlike `await work`, giving up here (deadline of close) leaves the batch to its thread.
        await asyncio.wait((work,))

    def _written(self, done: asyncio.Future[Written], n: int) -> None:
        self._in_flight -= n
        error = done.exception()
        if error is None:
            self._add(done.result())
        else:
            self.failed += n
            log.error("interactions_lost", extra={"lost": n, "cause": type(error).__name__})

    async def _in_store_thread(self, work: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._store_thread, work, *args)

    def _add(self, written: Written) -> None:
        self.recorded += written.recorded
        self.spilled += written.spilled
        self.recovered += written.recovered
        self.failed += written.failed
        self.purged += written.purged


def _size(item: Recordable) -> int:
    return len(item.body) if isinstance(item, StoreRow) else _USUAL_BYTES


def _make_folder(spill: Path) -> None:
    try:
        spill.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"spill file {spill}: cannot make its folder: {error.strerror}; set serving.spill to another place"
        raise StoreError(message) from error
