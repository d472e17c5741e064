"""Slices of a store: every row in one of them, and a fingerprint that any change of their rows changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from router_ml.schema import Feedback, Interaction
from router_ml.store import EventStore, open_store
from router_ml.store.slices import cuts_of
from router_ml.store.sql import SqlStore

START = datetime(2026, 1, 1, 23, 0, tzinfo=UTC)


def item(i: int, ts: datetime | None = None) -> Interaction:
    return Interaction(id=f"i{i:03d}", ts=ts or START + timedelta(minutes=10 * i))


@pytest.fixture
def store(store_url: str):
    with open_store(store_url) as store:
        store.append([item(i) for i in range(30)])
        yield store


def prints(store: EventStore) -> list[str]:
    return [one.fingerprint for one in store.slices(10)]


def changed(before: list[str], after: list[str]) -> list[int]:
    return [i for i, (one, other) in enumerate(zip(before, after, strict=False)) if one != other]


def test_slices_are_of_one_day_bounded_and_together_everything(store: EventStore) -> None:
    slices = store.slices(10)
    assert [(one.day, one.number, one.n) for one in slices] == [
        ("2026-01-01", 0, 6),
        ("2026-01-02", 0, 10),
        ("2026-01-02", 1, 10),
        ("2026-01-02", 2, 4),
    ]
    rows = [row.id for one in slices for page in store.pages(bounds=one.bounds, size=3) for row in page]
    assert rows == [f"i{i:03d}" for i in range(30)]
    assert store.slices(10) == slices


def test_rows_of_one_moment_are_cut_by_their_id(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/same.db") as store:
        store.append([item(i, START) for i in range(25)])
        slices = store.slices(10)
        assert [one.n for one in slices] == [10, 10, 5]
        rows = [row.id for one in slices for page in store.pages(bounds=one.bounds) for row in page]
        assert rows == [f"i{i:03d}" for i in range(25)]


def test_what_is_appended_to_a_day_leaves_its_earlier_slices_alone(store: EventStore) -> None:
    before = prints(store)
    store.append([item(30), item(31)])
    assert changed(before, prints(store)) == [3]


def test_a_late_row_a_deletion_and_feedback_change_their_slice(store: EventStore) -> None:
    before = prints(store)
    store.amend("i008", Feedback(ts=START, source="user", adequate=True))
    told = prints(store)
    assert changed(before, told) == [1]
    store.amend("i008", Feedback(ts=START, source="user", adequate=False))
    assert changed(told, prints(store)) == [1]
    before = prints(store)
    store.delete(ids=["i029"])
    deleted = prints(store)
    assert changed(before, deleted) == [3]
    # The next row may get the number in the table that the deleted one had.
    store.append([item(99, item(29).ts)])
    assert changed(deleted, prints(store)) == [3]
    assert prints(store)[3] != before[3]
    store.append([item(98, START - timedelta(minutes=1))])
    assert changed(before, prints(store))[0] == 0


def test_pages_give_bodies_with_their_feedback_oldest_first_from_a_time_on(store: EventStore) -> None:
    for minute in (3, 1, 2):
        store.amend("i020", Feedback(ts=START + timedelta(minutes=minute), source="user", adequate=True))
    pages = list(store.pages(item(19).ts, size=4))
    assert [len(page) for page in pages] == [4, 4, 3]
    assert [row.id for page in pages for row in page] == [f"i{i:03d}" for i in range(19, 30)]
    said = [Feedback.model_validate_json(one).ts.minute for one in pages[0][1].feedback]
    assert said == [1, 2, 3]
    assert pages[0][0].feedback == ()
    assert list(store.pages(item(200).ts)) == []


def test_an_empty_store_has_no_slices(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/empty.db") as store:
        assert store.slices(10) == []
        assert list(store.pages()) == []


@pytest.mark.parametrize("size", [1, 7, 10, 30, 31])
def test_cuts_are_everything_in_order_and_each_within_its_size(store: EventStore, size: int) -> None:
    cuts = store.cuts(size)
    pieces = [[row.id for page in store.pages(bounds=one, size=4) for row in page] for one in cuts]
    assert [id_ for piece in pieces for id_ in piece] == [f"i{i:03d}" for i in range(30)]
    assert all(0 < len(piece) <= size for piece in pieces)


def test_cuts_begin_at_a_time_and_may_lie_within_one_moment(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/same.db") as store:
        assert store.cuts(10) == []
        store.append([item(i, START) for i in range(25)])
        store.append([item(30)])
        stamps = [[place[1] for place in one] for one in store.cuts(10)]
        assert stamps == [["i000", "i009"], ["i010", "i019"], ["i020", "i030"]]
        assert [one[0][1] for one in store.cuts(10, START + timedelta(seconds=1))] == ["i030"]
        assert store.cuts(10, item(31).ts) == []


def test_what_is_appended_while_the_store_is_cut_makes_no_piece_of_every_few_rows(store: EventStore) -> None:
    assert isinstance(store, SqlStore)
    n = 0
    with store._engine.connect() as connection:
        for n, _ in enumerate(islice(cuts_of(connection, 10, ""), 20), start=1):
            store.append([item(30 + n)])
    # PostgreSQL sees what others commit, and cuts at midnight.
    assert n in (3, 4)


def test_what_is_within_the_bounds_of_a_slice_has_its_fingerprint_until_it_changes(store: EventStore) -> None:
    slices = store.slices(10)
    assert [store.slices(10, one.bounds)[0].fingerprint for one in slices] == [one.fingerprint for one in slices]
    _, second, *_ = slices
    late = item(99, START + timedelta(minutes=75))
    store.append([late])
    assert store.slices(10, second.bounds)[0].fingerprint != second.fingerprint
    store.delete(ids=[late.id])
    assert store.slices(10, second.bounds)[0].fingerprint == second.fingerprint
    store.amend("i007", Feedback(ts=START, source="user", adequate=True))
    assert store.slices(10, second.bounds)[0].fingerprint != second.fingerprint
    store.delete(ids=[f"i{i:03d}" for i in range(30)])
    assert store.slices(10, second.bounds) == []
