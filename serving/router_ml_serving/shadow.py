"""Calls beside the answer that was shown: audits and shadows, bounded, never waited for, recorded by themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from router_ml.schema import Attempt
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.exchange import Exchange

__all__ = ["BackgroundCalls", "run_beside"]

log = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class BackgroundCalls:
    """Runs work that nobody waits for, a bounded number of pieces at once.

    Args:
        limit: Pieces that may run at once. What comes beyond is dropped: whether it is depends on the load alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Work, *, on_error: Callable[[], None] = lambda: None) -> bool:
        """Start a piece of work on the running event loop, and return at once.

        Args:
            work: Makes the coroutine; not called when there is no room.
            on_error: Called when the work failed; the failure is logged, without what it was about.

        Returns:
            False when it was dropped.
        """
        if self._closed or len(self._tasks) >= self._limit:
            return False
        task = asyncio.get_running_loop().create_task(work(), name="background")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, on_error))
        return True

    async def close(self) -> None:
        """Cancel what still runs, and wait until it has recorded its bill; nothing can be started any more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None], on_error: Callable[[], None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Not the message: it may quote the prompt.
            log.error("background_failed", extra={"cause": type(error).__name__})
            on_error()


async def run_beside(exchange: Exchange, tiers: tuple[str, ...], record: Callable[[list[Attempt]], None]) -> None:
    """Call tiers for the record alone, all at once; one that fails unexpectedly does not stop the others.

    Args:
        exchange: The request, answered already.
        tiers: Who is asked.
        record: Called once with the attempts in the order of `tiers`, cancelled and failed ones included.

    Raises:
        BaseException: The first unexpected failure, when all calls are over and recorded.
    """
    trails: list[list[AttemptResult]] = [[] for _ in tiers]
    calls = (exchange.beside(name, trail) for name, trail in zip(tiers, trails, strict=True))
    failures: list[BaseException] = []
    try:
        for name, trail, result in zip(
            tiers, trails, await asyncio.gather(*calls, return_exceptions=True), strict=True
        ):
            if result is None:
                continue
            failures.append(result)
            if not trail:
                trail.append(AttemptResult(Attempt(tier=name, error=type(result).__name__)))
    finally:
        record([result.attempt for trail in trails for result in trail])
    if failures:
        raise failures[0]
