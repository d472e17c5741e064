"""What PostgreSQL does with the store's own statements: it opens the partitions in question, and their indexes.

Plans are asked for by the statements as they were sent, with days full enough that an index pays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from router_ml.schema import Feedback, Interaction
from router_ml.store.engine import connect, parse_url
from router_ml.store.partitions import make_partitions
from router_ml.store.sql import SqlStore

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
DAYS, PER_DAY = 8, 4_000
FILL = """
WITH made AS (
  SELECT 'd' || day || '-' || lpad(n::text, 6, '0') AS id, body, to_char(
    timestamp '2026-11-22' - day * interval '1 day' + n * interval '1 second', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
  ) AS ts FROM generate_series(0, {days} - 1) AS day, generate_series(1, {per_day}) AS n, (SELECT %s::text) AS b (body)
), known AS (INSERT INTO interaction_ids (id, ts) SELECT id, ts FROM made)
INSERT INTO interactions (id, ts, mode, body, tenant) SELECT id, ts, 'live', body, '' FROM made
"""


@pytest.fixture(scope="module")
def store(postgres: Any) -> Iterator[SqlStore]:
    url = postgres.database()
    with SqlStore(connect(parse_url(url)), url, clock=lambda: NOW) as opened:
        opened.upgrade()
        with opened._writer.begin() as connection:
            make_partitions(connection, [(NOW - timedelta(days=n)).date().isoformat() for n in range(DAYS)])
            body = Interaction(id="x", ts=NOW).to_json()
            connection.exec_driver_sql(FILL.format(days=DAYS, per_day=PER_DAY), (body,))
        with opened._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
        yield opened


@pytest.fixture
def plans(store: SqlStore) -> Callable[[Callable[[], Any]], list[list[dict[str, Any]]]]:
    """Return a function that does something and returns the nodes of the plan of every statement sent for it."""

    def plans_of(work: Callable[[], Any]) -> list[list[dict[str, Any]]]:
        sent: list[tuple[str, Any]] = []

        def note(_: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
            if statement.lstrip().startswith(("SELECT", "DELETE", "INSERT", "WITH")):
                sent.append((statement, parameters[0] if many else parameters))

        event.listen(store._engine, "before_cursor_execute", note)
        try:
            work()
        finally:
            event.remove(store._engine, "before_cursor_execute", note)
        with store._engine.connect() as connection:
            return [
                list(nodes(connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {what}", how).scalar_one()[0]["Plan"]))
                for what, how in sent
            ]

    return plans_of


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's node and all below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def partitions(plan: list[dict[str, Any]]) -> set[str]:
    """Return the days that a plan opens."""
    names = {str(node.get("Relation Name", "")) for node in plan}
    return {name.removeprefix("interactions_") for name in names if name.startswith("interactions_")}


def reads_all_of(plan: list[dict[str, Any]]) -> list[str]:
    """Return the tables that a plan reads from end to end."""
    small = ("deletions", "meta")
    return [node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan" if _table(node) not in small]


def _table(node: dict[str, Any]) -> str:
    return str(node["Relation Name"])


def test_every_page_of_a_scan_by_time_opens_one_partition_by_its_index(store: SqlStore, plans: Any) -> None:
    since = datetime(2026, 11, 21, tzinfo=UTC)
    found = plans(lambda: list(store.scan(since)))
    opened = [partitions(plan) for plan in found if partitions(plan)]
    assert {len(one) for one in opened} == {1}
    assert set().union(*opened) == {f"2026_11_{day}" for day in range(21, 26)} | {"default"}
    assert len(opened) >= 2 * PER_DAY / 500
    pages = [plan for plan in found if partitions(plan) & {"2026_11_21", "2026_11_22"}]
    assert [reads_all_of(plan) for plan in pages] == [[]] * len(pages)
    used = {node["Index Name"].partition("_ts_")[2] for plan in pages for node in plan if "Index Name" in node}
    assert used == {"id_idx"}


def test_who_reads_the_store_by_slices_opens_one_partition_for_each(store: SqlStore, plans: Any) -> None:
    [some] = [one for one in store.slices(1_000) if (one.day, one.number) == ("2026-11-18", 2)]
    found = plans(lambda: list(store.pages(bounds=some.bounds)))
    assert [partitions(plan) for plan in found if partitions(plan)] == [{"2026_11_18"}] * (len(found))
    everything = plans(lambda: list(store.pages(datetime(2026, 11, 20, tzinfo=UTC))))
    assert max(len(partitions(plan)) for plan in everything) <= 2


def test_cutting_the_store_opens_one_partition_at_a_time_by_its_index(store: SqlStore, plans: Any) -> None:
    found = [plan for plan in plans(lambda: store.cuts(1_000, datetime(2026, 11, 20, tzinfo=UTC))) if partitions(plan)]
    assert {len(partitions(plan)) for plan in found} == {1}
    full = [plan for plan in found if partitions(plan) & {"2026_11_20", "2026_11_21", "2026_11_22"}]
    assert len(full) > 3 * PER_DAY / 1_000
    assert [reads_all_of(plan) for plan in full] == [[]] * len(full)


def test_who_asks_for_an_id_opens_the_partition_that_it_is_in_by_its_index(store: SqlStore, plans: Any) -> None:
    assert store.deciding("d3-000007") is not None
    ids, body = plans(lambda: store.deciding("d3-000007"))
    assert [node["Index Name"] for node in ids] == ["interaction_ids_pkey"]
    assert partitions(body) == {"2026_11_19"}
    assert [node["Node Type"] for node in body] == ["Index Scan"]
    assert partitions(plans(lambda: store.deciding("nobody"))[-1]) == set()


def test_a_deletion_by_id_opens_the_partitions_of_its_ids_alone(store: SqlStore, plans: Any) -> None:
    found = plans(lambda: store.delete(ids=["d5-000001", "d6-000001"]))
    opened = [plan for plan in found if partitions(plan)]
    assert [partitions(plan) for plan in opened] == [{"2026_11_17", "2026_11_16"}]
    assert [reads_all_of(plan) for plan in opened] == [[]]


def test_feedback_asks_no_partition(store: SqlStore, plans: Any) -> None:
    said = Feedback(ts=NOW, source="user", adequate=True, key="k")
    found = plans(lambda: store.amend("d1-000009", said))
    assert found
    assert [partitions(plan) for plan in found] == [set()] * len(found)


def sizes(store: SqlStore) -> dict[str, int]:
    query = (
        "SELECT relname, pg_relation_size(oid) FROM pg_class "
        "WHERE relname LIKE 'interaction%%' AND relkind IN ('r', 'i')"
    )
    with store._engine.connect() as connection:
        return {row[0]: row[1] for row in connection.exec_driver_sql(query)}


def test_what_is_appended_touches_the_indexes_of_its_day_and_of_the_ids(store: SqlStore) -> None:
    before = sizes(store)
    store.append([Interaction(id=f"new-{n:06d}", ts=NOW + timedelta(seconds=n)) for n in range(3_000)])
    grown = {name for name, size in sizes(store).items() if size > before[name]}
    assert {"interactions_2026_11_22", "interactions_2026_11_22_ts_id_idx", "interaction_ids_pkey"} <= grown
    assert {name for name in grown if not name.startswith(("interactions_2026_11_22", "interaction_ids"))} == set()
