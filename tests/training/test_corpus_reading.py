"""Rows that come and go while a store is read: used as they were seen, and never brought back by the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from router_ml.schema import Interaction
from router_ml.store import EventStore, open_store
from router_ml_training.corpus import Corpus, read_corpus
from router_ml_training.executor import LocalExecutor
from router_ml_training.reading import Log


class Late(LocalExecutor):
    """Appends a row when the slices of the store are known and none of them is read yet."""

    def __init__(self, store: EventStore, row: Interaction) -> None:
        super().__init__()
        self._store, self._row = store, row

    def map(self, task: Any, items: Sequence[Any]) -> Iterator[Any]:
        self._store.append([self._row])
        yield from super().map(task, items)


@pytest.fixture
def store(tmp_path: Path, world: Any) -> Iterator[EventStore]:
    with open_store(f"sqlite:///{tmp_path}/events.db") as store:
        store.append(world.log(60))
        yield store


def test_a_row_that_was_deleted_after_it_came_late_is_in_no_later_corpus(
    store: EventStore, world: Any, tmp_path: Path
) -> None:
    log, cache = Log(f"sqlite:///{tmp_path}/events.db", "store"), tmp_path / "cache"
    first = world.log(60)[30]
    late = first.model_copy(update={"id": "late", "ts": first.ts + timedelta(seconds=1)})

    def read(executor: LocalExecutor) -> Corpus:
        return read_corpus([log], world.ladder, cache, executor=executor)

    assert read(Late(store, late)).n_rows == 61
    assert store.delete(ids=["late"]) == 1
    assert read(LocalExecutor()).n_rows == 60
    # What did not change is kept.
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.part")}
    assert before
    assert read(LocalExecutor()).n_rows == 60
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.part")} == before
