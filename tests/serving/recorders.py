"""What the tests of the recorder share: a recorder at work, and a store that another process holds."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from router_ml.errors import StoreError
from router_ml.store import EventStore, StoreRow
from router_ml_serving.recorder import Recorder

__all__ = ["HangingStore", "away", "ids", "run", "until"]


@contextmanager
def away(tmp_path: Path) -> Iterator[None]:
    """Hold the write lock of the store's file, as another process would."""
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def ids(store: EventStore) -> list[str]:
    """Return the ids of what is stored, in order."""
    return [found.id for found in store.scan()]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that happens in the background."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def run(
    store: EventStore,
    spill: Path,
    body: Callable[[Recorder], Awaitable[None]],
    *,
    started: bool = True,
    **options: Any,
) -> Recorder:
    """Return a recorder after its life: started, given to `body`, and closed whatever happens there."""

    async def main() -> Recorder:
        recorder = Recorder(store, spill=spill, **options)
        if started:
            await recorder.start()
        try:
            await body(recorder)
        finally:
            await recorder.close()
        return recorder

    return asyncio.run(main())


class HangingStore:
    """A store whose writes hang until they are let go, and then fail."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def append_rows(self, rows: Sequence[StoreRow]) -> None:
        assert self.let_go.wait(20)
        raise StoreError("gone")

    append = amend = scan = delete = info = count = close = __enter__ = __exit__ = None
