"""Where independent pieces of work run: in this process, or in several of this machine."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from router_ml.errors import RouterError

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

__all__ = ["Executor", "LocalExecutor"]

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Runs a function on many items, somewhere."""

    def map(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield the result of every item, in their order; the first exception is raised where its result would be.

        Args:
            task: A function of a module, for it is pickled; it may run in another process, or on another machine.
            items: What it is called with, one at a time; pickled too, as are the results.
        """
        ...

    def close(self) -> None:
        """Release processes and connections; the executor is not used afterwards."""
        ...


class LocalExecutor:
    """Runs work on this machine: in this process, or in `processes` others that are started when they are needed.

    Args:
        processes: How many work at a time; with 1, no process is started.
    """

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def map(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield the result of every item, in their order; see `Executor`.

        Raises:
            RouterError: When a process died; an exception of the task is raised as it is.
        """
        if self._processes == 1 or len(items) <= 1:
            yield from map(task, items)
            return
        from concurrent.futures.process import BrokenProcessPool

        waiting = iter(items)
        running: deque[Future[R]] = deque()
        try:
            # A few ahead of who takes the results: all of them at once may not fit into memory.
            running.extend(self._started().submit(task, item) for item in islice(waiting, 2 * self._processes))
            while running:
                yield running.popleft().result()
                running.extend(self._started().submit(task, item) for item in islice(waiting, 1))
        except BrokenProcessPool as error:
            self.close()
            raise RouterError(
                "a worker process of this run died, most likely because memory ran out: use fewer processes, or run "
                "again on a machine with more memory; what was finished is kept"
            ) from error
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        """End the processes; what they are doing is finished, what waits is not begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context

            # A fork would copy locks that threads of LightGBM, polars or a database driver hold, and wait for ever.
            self._pool = ProcessPoolExecutor(
                self._processes, mp_context=get_context("spawn"), initializer=_end_with_the_run
            )
        return self._pool


def _end_with_the_run() -> None:
    # Workers hold both ends of the queue that brings them work: they would never hear that the run is dead, and stay.
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    from multiprocessing import parent_process

    run = parent_process()
    if run is not None:
        run.join()
        os._exit(1)
