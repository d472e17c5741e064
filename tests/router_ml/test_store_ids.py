"""An id is stored once, on every database: whoever brings it, when, with whatever time, beside whomever."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from router_ml.schema import Feedback, Interaction
from router_ml.store import EventStore, open_store

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    with open_store(store_url.replace("timeout=0.5", "timeout=20")) as opened:
        yield opened


def interaction(id_: str, *, days: float = 0.0, **fields: Any) -> Interaction:
    return Interaction(id=id_, ts=NOW + timedelta(days=days), **fields)


def test_an_id_that_comes_again_with_another_time_is_left_as_it_is(store: EventStore) -> None:
    store.append([interaction("a", tenant="first"), interaction("a", days=-1, tenant="same batch")])
    store.append([interaction("a", days=1), interaction("a", days=-40), interaction("b")])
    assert [(found.id, found.ts, found.tenant) for found in store.scan()] == [("a", NOW, "first"), ("b", NOW, None)]


def test_an_id_that_was_deleted_by_itself_is_free_for_nobody_and_its_neighbours_stay(store: EventStore) -> None:
    store.append([interaction("a"), interaction("b", days=-2), interaction("c", days=1)])
    assert store.delete(ids=["b", "c", "unheard-of"]) == 2
    store.append([interaction("b"), interaction("c", days=-3)])
    assert [found.id for found in store.scan()] == ["a"]
    assert store.deciding("b") is None
    assert store.deciding("a") is not None


def test_writers_who_bring_the_same_ids_in_any_order_at_once_store_each_once(store: EventStore) -> None:
    items = [interaction(f"i{n:03d}", days=-n / 10) for n in range(100)]

    def writes(seed: int) -> None:
        mixed = Random(seed).sample(items, len(items))
        for start in range(0, len(mixed), 25):
            store.append(mixed[start : start + 25])
            store.amend(mixed[start].id, Feedback(ts=NOW, source="user", key=mixed[start].id))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(writes, range(8)))
    found = list(store.scan())
    assert sorted(one.id for one in found) == [one.id for one in items]
    assert {len(one.feedback) for one in found} <= {0, 1}
