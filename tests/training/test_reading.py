"""Logs -> one dataset: rows that cannot be read are counted, young ones wait, repeated ones count once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from router_ml.errors import DataError, UnknownName
from router_ml.features import featurize, to_stored
from router_ml.schema import Interaction
from router_ml.store import open_store
from router_ml_training.reading import Log, read_dataset, ripe_before


def write(path: Path, items: Sequence[Interaction], *, bad: Sequence[str] = ()) -> Log:
    path.write_text("".join(f"{line}\n" for line in (*bad, *(item.to_json() for item in items))))
    return Log(str(path))


def test_a_log_becomes_a_dataset_over_the_ladder(world: Any, tmp_path: Path) -> None:
    data = read_dataset([write(tmp_path / "log.jsonl", world.log(30))], world.ladder)
    assert len(data) == 30
    assert data.tiers == world.ladder.names
    assert data.digest == world.dataset(30).digest


def test_several_logs_are_read_and_an_id_counts_once(world: Any, tmp_path: Path) -> None:
    items = world.log(30)
    logs = [write(tmp_path / "a.jsonl", items[:20]), write(tmp_path / "b.jsonl", items[10:])]
    assert read_dataset(logs, world.ladder).digest == world.dataset(30).digest


def test_the_event_store_is_read_with_its_feedback(world: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with open_store(url) as store:
        store.append(world.log(25))
    assert len(read_dataset([Log(url, "store")], world.ladder)) == 25


def test_young_interactions_wait_for_their_feedback(world: Any, tmp_path: Path) -> None:
    items = world.log(30)
    log = write(tmp_path / "log.jsonl", items)
    before = ripe_before(items[19].ts + timedelta(seconds=3600), 3600.0)
    assert len(read_dataset([log], world.ladder, ripe_before=before)) == 20
    assert ripe_before(items[0].ts, 0.0) is None
    with pytest.raises(DataError, match="the log holds no interaction"):
        read_dataset([log], world.ladder, ripe_before=items[0].ts - timedelta(days=1))


def test_a_few_bad_rows_are_left_out(world: Any, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", world.log(40), bad=["{broken", '{"id": "x"}'])
    assert len(read_dataset([log], world.ladder)) == 40


def test_many_bad_rows_are_an_error_that_names_the_first_reason(world: Any, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", world.log(20), bad=["{broken"] * 3)
    with pytest.raises(DataError, match=r"3 of 23 rows of .*log\.jsonl cannot be read \(first: not valid JSON.*ingest"):
        read_dataset([log], world.ladder)


def test_a_log_of_unknown_tiers_says_so_and_not_that_it_is_empty(world: Any, tmp_path: Path) -> None:
    items = [
        Interaction.model_validate({**json.loads(item.to_json()), "candidates": ["smal"]}) for item in world.log(9)
    ]
    with pytest.raises(DataError, match=r"9 of 9 rows .*no tier is called 'smal' \(did you mean 'small'\?\)"):
        read_dataset([write(tmp_path / "log.jsonl", items)], world.ladder)


def test_bad_rows_are_weighed_against_all_rows_also_those_that_wait(world: Any, tmp_path: Path) -> None:
    items = world.log(100)
    log = write(tmp_path / "log.jsonl", items, bad=["{broken"] * 3)
    assert len(read_dataset([log], world.ladder, ripe_before=items[9].ts)) == 10


def without_text(item: Interaction, **changes: Any) -> Interaction:
    stored = to_stored(featurize(item.to_request())).model_copy(update=changes)
    request = item.request.model_copy(update={"messages": ()})
    return item.model_copy(update={"features": stored, "request": request})


def test_a_log_without_text_is_learned_from(world: Any, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", [without_text(item) for item in world.log(30)])
    assert read_dataset([log], world.ladder).digest == world.dataset(30).digest


def test_rows_without_text_from_another_release_are_lost_and_the_others_are_not(world: Any, tmp_path: Path) -> None:
    items = world.log(60)
    old = [without_text(item, schema_hash="0123") for item in items[:2]]
    assert len(read_dataset([write(tmp_path / "log.jsonl", [*old, *items[2:]])], world.ladder)) == 58
    every = [without_text(item, schema_hash="0123") for item in items]
    with pytest.raises(DataError, match=r"60 of 60 rows .*stored features have the schema 0123"):
        read_dataset([write(tmp_path / "old.jsonl", every)], world.ladder)


def test_an_outcome_table_is_read_for_the_models_of_the_ladder(world: Any, tmp_path: Path) -> None:
    rows = [
        {"prompt_id": str(i), "prompt": f"p {i}", "model": model, "quality": float(i % 2), "cost_usd": 0.1}
        for i in range(8)
        for model in ("mini", "maxi", "other")
    ]
    table = pl.DataFrame(rows).with_columns(input_tokens=pl.lit(5), output_tokens=pl.lit(7))
    table.write_parquet(tmp_path / "outcomes.parquet")
    data = read_dataset([Log(str(tmp_path / "outcomes.parquet"), "outcomes")], world.ladder)
    assert data.complete.all()
    assert not data.dated


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_log_is_refused(world: Any, tmp_path: Path, content: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="the log holds no interaction"):
        read_dataset([Log(str(path))], world.ladder)


def test_a_log_of_one_tier_and_one_without_outcomes_are_refused(world: Any, tmp_path: Path) -> None:
    items = world.log(20)
    one_tier = [item.model_copy(update={"attempts": item.attempts[:1]}) for item in items]
    with pytest.raises(DataError, match="no outcome is known for the tier large in 20 interactions"):
        read_dataset([write(tmp_path / "one.jsonl", one_tier)], world.ladder)
    silent = [item.model_copy(update={"attempts": ()}) for item in items]
    with pytest.raises(DataError, match="none of the 20 interactions says"):
        read_dataset([write(tmp_path / "none.jsonl", silent)], world.ladder)


def test_what_is_not_there_is_named(world: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        read_dataset([Log(str(tmp_path / "missing.jsonl"))], world.ladder)
    with pytest.raises(DataError, match="no such event store"):
        read_dataset([Log(str(tmp_path / "no.db"), "store")], world.ladder)
    with pytest.raises(UnknownName, match="no source is called 'natve'"):
        read_dataset([Log("x", "natve")], world.ladder)


def test_progress_is_told_every_thousand_rows(world: Any, tmp_path: Path) -> None:
    told: list[str] = []
    read_dataset([write(tmp_path / "log.jsonl", world.log(1001))], world.ladder, progress=told.append)
    assert told == ["reading: 1,000 interactions"]


def test_a_password_in_a_url_is_not_shown() -> None:
    assert str(Log("postgresql://me:secret@host/db", "store")) == "host/db"


def golden(item: Interaction, **fields: Any) -> Interaction:
    tags = {**item.tags, "golden": {"set": "s", "slot": "monday"}}
    return item.model_copy(update={"id": f"golden-{item.id}", "mode": "audit", "tags": tags, **fields})


def test_runs_of_a_golden_set_are_no_traffic_and_are_not_learned_from(world: Any, tmp_path: Path) -> None:
    items = world.log(30)
    log = write(tmp_path / "log.jsonl", [*items, *map(golden, items[:20])])
    assert read_dataset([log], world.ladder).digest == world.dataset(30).digest
    with pytest.raises(DataError, match="the log holds no interaction"):
        read_dataset([write(tmp_path / "golden.jsonl", [golden(item) for item in items])], world.ladder)


def test_no_client_can_make_its_requests_golden(world: Any, tmp_path: Path) -> None:
    items = world.log(3)
    # Tags come from clients, and an audit has those of its request; ids are the service's own.
    claimed = [golden(items[0], mode="live"), golden(items[1], id="01ABC-audit"), golden(items[2], tags={})]
    assert len(read_dataset([write(tmp_path / "log.jsonl", [*world.log(30)[3:], *claimed])], world.ladder)) == 30
