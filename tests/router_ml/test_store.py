"""What every event store promises, on real SQLite files and on a real PostgreSQL server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router_ml.errors import ConfigError, MissingExtra, RecordError, UnknownName
from router_ml.schema import Attempt, Feedback, Interaction, RequestBody
from router_ml.store import STORES, Deciding, EventStore, open_store
from router_ml.store import sql as sql_module

T0 = datetime(2026, 11, 22, 10, tzinfo=UTC)


def interaction(id_: str, *, seconds: float = 0.0, **fields: object) -> Interaction:
    return Interaction.model_validate({"id": id_, "ts": T0 + timedelta(seconds=seconds), **fields})


def thumb(*, seconds: float = 0.0, adequate: bool = True, key: str | None = None) -> Feedback:
    return Feedback(ts=T0 + timedelta(seconds=seconds), source="user", adequate=adequate, key=key)


@pytest.fixture
def url(store_url: str) -> str:
    return store_url


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    with open_store(url) as opened:
        yield opened


def test_what_is_appended_is_scanned_unchanged(store: EventStore) -> None:
    full = interaction(
        "01J",
        tenant="acme",
        use_case="email",
        policy_version="router-1",
        request=RequestBody(messages=({"role": "user", "content": "héllo \u0000 日本 🎉"},)),
        candidates=["small", "large"],
        propensity={"small": 0.9, "large": 0.1},
        attempts=[Attempt(tier="small", model="m", cost_usd=0.1, response="no")],
        tags={"trace": {"id": 7}},
    )
    store.append([full])
    assert list(store.scan()) == [full]


def test_the_same_id_is_kept_once_and_the_first_version_stays(store: EventStore) -> None:
    store.append([interaction("a", tenant="first"), interaction("a", tenant="same batch")])
    store.append([interaction("a", tenant="later"), interaction("b", seconds=1)])
    assert [(found.id, found.tenant) for found in store.scan()] == [("a", "first"), ("b", None)]
    assert store.count() == 2


def test_scan_is_ordered_by_time_then_by_the_bytes_of_the_id(store: EventStore) -> None:
    store.append([interaction("b"), interaction("late", seconds=5), interaction("a"), interaction("B")])
    store.append([interaction("early", seconds=-0.000001)])
    assert [found.id for found in store.scan()] == ["early", "B", "a", "b", "late"]


def test_order_holds_across_time_zones(store: EventStore) -> None:
    tokyo = timezone(timedelta(hours=9))
    store.append([interaction("utc", seconds=1), interaction("tokyo").model_copy(update={"ts": T0.astimezone(tokyo)})])
    assert [found.id for found in store.scan()] == ["tokyo", "utc"]


@pytest.mark.parametrize("page", [1, 2, 3, 7, 8])
def test_every_page_size_scans_every_row_once(store: EventStore, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(sql_module, "SCAN_PAGE", page)
    store.append([interaction(f"i{n}", seconds=n // 3) for n in range(7)])
    for n in range(7):
        store.amend(f"i{n}", thumb(seconds=n, key="k"))
    found = list(store.scan())
    assert [item.id for item in found] == [f"i{n}" for n in range(7)]
    assert [len(item.feedback) for item in found] == [1] * 7


def test_scan_filters_by_time_and_mode(store: EventStore) -> None:
    store.append([interaction("old"), interaction("new", seconds=10), interaction("audit", seconds=11, mode="audit")])
    assert [found.id for found in store.scan(T0 + timedelta(seconds=10))] == ["new", "audit"]
    assert [found.id for found in store.scan(datetime(2026, 11, 22, 10, 0, 5), mode="live")] == ["new"]


def test_an_abandoned_scan_blocks_no_writer(store: EventStore) -> None:
    store.append([interaction("a"), interaction("b")])
    scan = store.scan()
    assert next(scan).id == "a"
    store.append([interaction("c")])
    assert store.count() == 3


def test_feedback_is_merged_oldest_first(store: EventStore) -> None:
    early, late = thumb(seconds=1, key="1"), thumb(seconds=9, adequate=False, key="2")
    store.append([interaction("a", feedback=[thumb(seconds=5)])])
    assert store.amend("a", late)
    assert store.amend("a", early)
    [found] = store.scan()
    assert found.feedback == (early, thumb(seconds=5), late)


def test_feedback_with_a_known_key_counts_once_per_decision(store: EventStore) -> None:
    store.append([interaction("a"), interaction("b")])
    assert store.amend("a", thumb(key="k"))
    assert not store.amend("a", thumb(key="k", adequate=False, seconds=3))
    assert store.amend("b", thumb(key="k"))
    assert [found.feedback for found in store.scan()] == [(thumb(key="k"),), (thumb(key="k"),)]


def test_feedback_without_key_counts_once_per_content(store: EventStore) -> None:
    assert store.amend("a", thumb())
    assert not store.amend("a", thumb())
    assert store.amend("a", thumb(seconds=1))  # the same person again, later: a judgement of its own


def test_feedback_may_arrive_before_its_interaction(store: EventStore) -> None:
    assert store.amend("a", thumb(key="k"))
    assert list(store.scan()) == []
    store.append([interaction("a")])
    [found] = store.scan()
    assert found.feedback == (thumb(key="k"),)


def test_feedback_inside_the_interaction_is_not_doubled(store: EventStore) -> None:
    store.append([interaction("a", feedback=[thumb(key="k"), thumb(seconds=2)])])
    store.amend("a", thumb(key="k"))
    store.amend("a", thumb(seconds=2))
    [found] = store.scan()
    assert len(found.feedback) == 2


def test_feedback_without_time_zone_is_utc(store: EventStore) -> None:
    store.append([interaction("a")])
    store.amend("a", thumb().model_copy(update={"ts": T0.replace(tzinfo=None)}))
    [found] = store.scan()
    assert found.feedback[0].ts == T0


def test_an_empty_batch_and_an_empty_store_are_fine(store: EventStore) -> None:
    store.append([])
    assert store.count() == 0
    assert list(store.scan()) == []


def test_a_batch_with_an_unwritable_row_is_refused_as_a_whole(store: EventStore) -> None:
    with pytest.raises(RecordError, match="'bad' cannot be written as JSON"):
        store.append([interaction("good"), interaction("bad", tags={"x": "\ud800"})])
    assert store.count() == 0


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(decision_id=st.text(min_size=1), key=st.text())
def test_any_text_is_an_id_and_a_key(store: EventStore, decision_id: str, key: str) -> None:
    store.amend(decision_id, thumb(key=key))
    assert not store.amend(decision_id, thumb(key=key))
    store.append([interaction(decision_id)])
    store.append([interaction(decision_id)])
    found = [item for item in store.scan() if item.id == decision_id]
    assert len(found) == 1
    assert key in {item.key for item in found[0].feedback}


def test_what_one_connection_wrote_another_reads(url: str) -> None:
    with open_store(url) as first, open_store(url) as second:
        first.append([interaction("a")])
        second.amend("a", thumb(key="k"))
        assert [len(found.feedback) for found in first.scan()] == [1]


@pytest.mark.parametrize("bad", ["events.db", "", "sqlite://", "sqlite:///:memory:", "postgresql://u:secret@h:port/db"])
def test_what_is_no_store_url_is_refused_without_repeating_it(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"\[store\] url") as caught:
        open_store(bad)
    assert "secret" not in str(caught.value)


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"'mysql'.*known: postgresql, sqlite"):
        open_store("mysql://h/db")
    assert set(STORES) == {"sqlite", "postgresql"}


def test_an_unknown_driver_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"\[store\] url: .*sqlite\.absent"):
        open_store("sqlite+absent:///events.db")


def test_a_missing_driver_is_named_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"psycopg is needed .*pip install 'psycopg\[binary\]'") as caught:
        open_store("postgresql+psycopg://u:secret@localhost/db")
    assert "secret" not in str(caught.value)


def test_the_protocol_is_imported_without_a_database_library() -> None:
    code = "import sys, router_ml.store; assert 'sqlalchemy' not in sys.modules and 'sqlite3' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


BOTH = {"small": 0.9, "large": 0.1}


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ({"policy_version": "v7", "tenant": "acme", "propensity": BOTH}, Deciding("v7", "acme", None, True)),
        ({"propensity": BOTH, "tags": {"decided_tier": "small"}}, Deciding(None, None, "small", True)),
        ({"propensity": BOTH, "mode": "audit"}, Deciding(None, None, None, False)),
        ({"propensity": {"large": 1.0}}, Deciding(None, None, None, False)),
        (
            {"propensity": BOTH, "attempts": [{"tier": "small"}, {"tier": "large", "error": "cancelled"}]},
            Deciding(None, None, "small", True),
        ),
    ],
)
def test_it_knows_who_made_a_decision_and_what_was_shown(
    store: EventStore, said: dict[str, Any], known: Deciding
) -> None:
    store.append([interaction("a", **said)])
    assert store.deciding("a") == known
    assert store.deciding("nobody") is None
