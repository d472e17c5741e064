"""A corpus: what one pass over all interactions would give, from parts that are read once."""

from __future__ import annotations

import ast
import resource
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from router_ml.errors import DataError, StoreError
from router_ml.features import featurize, to_stored
from router_ml.schema import Feedback, Interaction
from router_ml.store import open_store
from router_ml_training import answers as answers_module
from router_ml_training.corpus import Corpus, building, read_corpus, reading, units
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.executor import LocalExecutor
from router_ml_training.reading import Log, read_dataset

ARRAYS = (
    "dense",
    "input_tokens",
    "quality",
    "escalated",
    "cost_usd",
    "output_tokens",
    "group",
    "ts",
    "action",
    "propensity",
    "soft",
    "settled",
    "key",
    "beside",
    "share",
)


class Counting(LocalExecutor):
    """Runs in this process and notes which units were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def map(self, task: Any, items: Sequence[Any]) -> Iterator[Any]:
        self.read += [item.unit.name for item in items]
        return super().map(task, items)


def same(found: Dataset, expected: Dataset) -> None:
    """Every array, bit for bit."""
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for one, other in ((found.text, expected.text), (found.answers.text, expected.answers.text)):
        assert one.shape == other.shape
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
    for name in ("row", "tier", "dense", "unread"):
        np.testing.assert_array_equal(getattr(found.answers, name), getattr(expected.answers, name), err_msg=name)
    facts = ("tiers", "digest", "simulated", "dated")
    assert [getattr(found, name) for name in facts] == [getattr(expected, name) for name in facts]


def everything(corpus: Corpus) -> Dataset:
    return corpus.gather(np.arange(corpus.n_rows))


@pytest.fixture
def items(world: Any, answered: Any) -> list[Interaction]:
    """300 interactions of four days, some as chains of two policies, some without text, with all kinds of verdicts."""
    rng = np.random.default_rng(0)
    drawn = answered(world.log(150), rng) + [
        item.model_copy(update={"id": f"c{item.id}", "policy_version": "p2", "ts": item.ts + timedelta(days=2)})
        for item in answered(world.log(150, 1, policy="chain"), rng)
    ]
    for i in range(0, 300, 3):
        said = Feedback(ts=drawn[i].ts, source=("user", "judge", "retry", "rule", "human")[i % 5], adequate=i % 2 == 0)
        drawn[i] = drawn[i].model_copy(update={"feedback": (said,), "ts": drawn[i].ts + timedelta(hours=i % 40)})
    for i in range(0, 300, 7):
        request = drawn[i].request.model_copy(update={"messages": ()})
        drawn[i] = drawn[i].model_copy(
            update={"features": to_stored(featurize(drawn[i].to_request())), "request": request}
        )
    return sorted(drawn, key=lambda item: (item.ts, item.id))


@pytest.fixture
def url(tmp_path: Path, items: list[Interaction]) -> str:
    url = f"sqlite:///{tmp_path}/events.db"
    with open_store(url) as store:
        store.append(items)
    return url


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units.units_of, "__defaults__", (40,))
    monkeypatch.setattr(building, "ROWS", 40)


@pytest.fixture
def read(world: Any, cache: Path) -> Any:
    """Read a store or a file; returns the corpus, and the units that had to be read."""

    def corpus_of(*locations: str, **options: Any) -> tuple[Corpus, list[str]]:
        executor = Counting()
        logs = [Log(one, "store" if "://" in one else "native") for one in locations]
        return read_corpus(logs, world.ladder, cache, executor=executor, **options), executor.read

    return corpus_of


def test_a_corpus_is_the_dataset_of_all_its_interactions(
    read: Any, url: str, items: list[Interaction], world: Any, small_parts: None
) -> None:
    corpus, units_read = read(url)
    assert len(units_read) > 8
    expected = build_dataset(items, world.ladder.names)
    assert (corpus.n_rows, corpus.digest, corpus.tiers) == (300, expected.digest, expected.tiers)
    same(everything(corpus), expected)
    index = np.array([299, 3, 3, 150, 7, 0])
    same(corpus.gather(index), expected.rows(index))
    facts = corpus.facts()
    assert (facts.text.nnz, facts.text.shape, len(facts.answers)) == (0, expected.text.shape, 0)
    np.testing.assert_array_equal(facts.quality, expected.quality)
    assert len(corpus.gather(np.zeros(0, np.int64))) == 0


def test_what_was_read_is_not_read_again(read: Any, url: str, small_parts: None) -> None:
    first, _ = read(url)
    second, units_read = read(url)
    assert units_read == []
    same(everything(second), everything(first))


def test_new_rows_at_the_end_of_a_day_leave_its_other_parts_alone(
    read: Any, url: str, items: list[Interaction], world: Any, small_parts: None
) -> None:
    read(url)
    late = items[-1].ts
    new = [items[-1].model_copy(update={"id": f"n{i}", "ts": late + timedelta(seconds=i + 1)}) for i in range(50)]
    with open_store(url) as store:
        store.append(new)
    corpus, units_read = read(url)
    assert {name[:10] for name in units_read} == {f"{late:%Y-%m-%d}"}
    assert len(units_read) <= 3
    same(everything(corpus), build_dataset([*items, *new], world.ladder.names))


def test_late_feedback_and_deletion_on_an_old_day_touch_that_part_only(
    read: Any, url: str, items: list[Interaction], world: Any, cache: Path, small_parts: None
) -> None:
    read(url)
    kept = {path.name for path in cache.rglob("*.part")}
    said = Feedback(ts=items[-1].ts, source="human", tier="small", adequate=False)
    with open_store(url) as store:
        store.amend(items[5].id, said)
    judged = [
        item if i != 5 else item.model_copy(update={"feedback": (*item.feedback, said)}) for i, item in enumerate(items)
    ]
    corpus, units_read = read(url)
    assert len(units_read) == 1
    same(everything(corpus), build_dataset(judged, world.ladder.names))
    with open_store(url) as store:
        store.delete(ids=[items[-1].id])
    corpus, units_read = read(url)
    assert len(units_read) == 1
    same(everything(corpus), build_dataset(judged[:-1], world.ladder.names))
    assert {path.name for path in cache.rglob("*.part")} == kept


def test_parts_of_days_that_are_gone_are_deleted_even_if_nobody_asks_for_those_days(
    read: Any, url: str, items: list[Interaction], cache: Path
) -> None:
    read(url)
    first_day = f"{items[0].ts:%Y-%m-%d}"
    assert any(path.name.startswith(first_day) for path in cache.rglob("*.part"))
    with open_store(url) as store:
        store.delete(before=items[0].ts + timedelta(days=1))
    read(url, since=items[-1].ts - timedelta(days=1))
    assert not any(path.name.startswith(first_day) for path in cache.rglob("*.part"))
    assert len(list(cache.rglob("*.part"))) > 1


@pytest.mark.parametrize(
    "harm", [lambda data: data[:-1], lambda data: data[:-9] + b"x" + data[-8:], lambda _: b"", lambda _: b"\0" * 99]
)
def test_a_damaged_part_is_made_again(read: Any, url: str, cache: Path, harm: Any) -> None:
    first, _ = read(url)
    expected = everything(first)
    path = sorted(cache.rglob("*.part"))[0]
    path.write_bytes(harm(path.read_bytes()))
    corpus, units_read = read(url)
    assert units_read == [path.name[:15]]
    same(everything(corpus), expected)


def test_since_and_ripe_before_leave_rows_out(read: Any, url: str, items: list[Interaction], world: Any) -> None:
    since, before = items[100].ts, items[250].ts
    corpus, units_read = read(url, since=since, ripe_before=before)
    between = [item for item in items if since <= item.ts <= before]
    same(everything(corpus), build_dataset(between, world.ladder.names))
    assert all(name[:10] >= f"{since:%Y-%m-%d}" for name in units_read)
    with pytest.raises(DataError, match="the log holds no interaction"):
        read(url, ripe_before=items[0].ts - timedelta(days=1))


def test_runs_of_a_golden_set_are_left_out(read: Any, url: str, items: list[Interaction]) -> None:
    expected = read(url)[0].digest
    golden = {"mode": "audit", "tags": {"golden": {"set": "s"}}}
    with open_store(url) as store:
        store.append([item.model_copy(update={"id": f"golden-{item.id}", **golden}) for item in items[:5]])
    assert read(url)[0].digest == expected


def test_an_id_counts_once_in_several_logs(
    read: Any, url: str, items: list[Interaction], world: Any, tmp_path: Path
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f"{item.to_json()}\n" for item in (*items[50:70], items[60])))
    logs = [Log(str(path)), Log(url, "store")]
    corpus, _ = read(str(path), url)
    ids = {item.id for item in items[50:70]}
    expected = [*items[50:70], *(item for item in items if item.id not in ids)]
    same(everything(corpus), build_dataset(expected, world.ladder.names))
    assert corpus.digest == read_dataset(logs, world.ladder).digest


def test_a_file_is_read_again_when_it_has_changed(
    read: Any, items: list[Interaction], tmp_path: Path, small_parts: None
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    for name, part in (("a.jsonl", items[:150]), ("b.jsonl", items[150:])):
        (folder / name).write_text("".join(f"{item.to_json()}\n" for item in part))
    assert len(read(str(folder))[1]) == 2
    with (folder / "b.jsonl").open("a") as file:
        file.write(f"{items[0].model_copy(update={'id': 'new'}).to_json()}\n")
    corpus, units_read = read(str(folder))
    assert (corpus.n_rows, len(units_read)) == (301, 1)
    assert read(str(folder))[1] == []


def test_a_parquet_file_that_is_damaged_is_named_and_nothing_is_learned(
    read: Any, items: list[Interaction], tmp_path: Path
) -> None:
    from router_ml_training.frames import write_parquet

    folder = tmp_path / "logs"
    folder.mkdir()
    write_parquet(folder / "a.parquet", items[:150])
    write_parquet(folder / "b.parquet", items[150:])
    whole = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"b\.parquet: cannot be read as Parquet"):
        read(str(folder))
    (folder / "b.parquet").write_bytes(whole)
    corpus, units_read = read(str(folder))
    assert (corpus.n_rows, len(units_read)) == (300, 1)


def test_an_outcome_table_is_kept_too(world: Any, cache: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt_id": str(i), "prompt": f"p {i}", "model": model, "quality": float(i % 2), "cost_usd": 0.1}
        for i in range(8)
        for model in ("mini", "maxi", "other")
    ]
    table = pl.DataFrame(rows).with_columns(input_tokens=pl.lit(5), output_tokens=pl.lit(7))
    table.write_parquet(tmp_path / "outcomes.parquet")
    log = Log(str(tmp_path / "outcomes.parquet"), "outcomes")
    for expected in (1, 0):
        executor = Counting()
        corpus = read_corpus([log], world.ladder, cache, executor=executor)
        same(everything(corpus), read_dataset([log], world.ladder))
        assert len(executor.read) == expected
    with pytest.raises(DataError, match=r"none\.csv"):
        read_corpus([Log(str(tmp_path / "none.csv"), "outcomes")], world.ladder, cache, executor=LocalExecutor())


def test_rows_that_cannot_be_read_are_weighed_also_when_they_come_from_the_cache(
    read: Any, items: list[Interaction], tmp_path: Path
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f"{item.to_json()}\n" for item in items) + "{broken\n" * 30)
    for _ in range(2):
        with pytest.raises(DataError, match=r"30 of 330 rows of .*log\.jsonl cannot be read \(first: not valid JSON"):
            read(str(path))
    path.write_text("".join(f"{item.to_json()}\n" for item in items) + "{broken\n" * 3)
    assert read(str(path))[0].n_rows == 300


def test_a_row_from_the_future_is_one_that_cannot_be_read(read: Any, url: str, items: list[Interaction]) -> None:
    ahead = items[0].model_copy(update={"id": "ahead", "ts": datetime(2090, 1, 1, tzinfo=UTC)})
    with open_store(url) as store:
        store.append([ahead])
    now = items[-1].ts
    assert read(url, now=now)[0].n_rows == 300
    assert read(url, now=datetime(2091, 1, 1, tzinfo=UTC))[0].n_rows == 301
    with pytest.raises(DataError, match=r"of 301 rows .*first: ts: lies more than a day in the future"):
        read(url, now=items[0].ts)


def test_answers_are_those_of_one_pass_however_many_there_are(
    read: Any, url: str, items: list[Interaction], world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (answers_module, reading):
        monkeypatch.setattr(module, "MAX_ANSWERS", 20)
    for function in (answers_module.common_ceiling, answers_module.AnswerCollector.__init__):
        defaults = tuple(20 if value == 40_000 else value for value in function.__defaults__)
        monkeypatch.setattr(function, "__defaults__", defaults)
    expected = build_dataset(items, world.ladder.names)
    assert 0 < len(expected.answers) <= 20
    same(everything(read(url)[0]), expected)


def test_more_answers_are_looked_at_when_few_rows_have_any(
    read: Any, url: str, items: list[Interaction], world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_ANSWERS", 2)  # as if hardly any row had an answer
    corpus, units_read = read(url)
    same(everything(corpus), build_dataset(items, world.ladder.names))
    assert len(units_read) == 2 * len(set(units_read))
    assert read(url)[1] == []


def test_another_ladder_has_parts_of_its_own_making(read: Any, url: str, world: Any, cache: Path) -> None:
    read(url)
    other = type(world.ladder).of([tier.model_copy(update={"model": f"other-{tier.name}"}) for tier in world.ladder])
    executor = Counting()
    read_corpus([Log(url, "store")], other, cache, executor=executor)
    assert len(executor.read) >= 4


def test_two_processes_give_the_same_corpus_as_one(world: Any, url: str, items: list[Interaction], cache: Path) -> None:
    with LocalExecutor(2) as executor:
        corpus = read_corpus([Log(url, "store")], world.ladder, cache, executor=executor)
    same(everything(corpus), build_dataset(items, world.ladder.names))


def test_a_log_of_more_files_than_a_process_may_open_at_first_is_read(
    items: list[Interaction], world: Any, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    for n, item in enumerate(items[:120]):
        (tmp_path / "logs" / f"{n:03d}.jsonl").write_text(item.to_json() + "\n")
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 50, most))
    try:
        corpus = read_corpus([Log(str(tmp_path / "logs"))], world.ladder, cache, executor=LocalExecutor())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    same(everything(corpus), build_dataset(items[:120], world.ladder.names))


def test_all_code_that_decides_what_is_in_a_part_counts_for_its_key() -> None:
    # What is imported there for types, errors and the way to it, and does not touch a row.
    no_matter = {"dataset", "learning", "executor", "sources", "corpus.units"}
    imported = {
        node.module
        for name in building._CODE
        for node in ast.walk(ast.parse(Path(str(import_module(name).__file__)).read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("router_ml_training.")
    }
    assert imported - set(building._CODE) == {f"router_ml_training.{name}" for name in no_matter} & imported


def test_what_is_not_there_and_what_cannot_be_written_is_said(world: Any, url: str, tmp_path: Path, read: Any) -> None:
    with pytest.raises(DataError, match="no such event store"):
        read(f"sqlite:///{tmp_path}/none.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cache of the logs cannot be made"):
        read_corpus([Log(url, "store")], world.ladder, tmp_path / "file" / "x", executor=LocalExecutor())
    (tmp_path / "bad.db").write_text("no database at all, but a text of some length" * 50)
    with pytest.raises(StoreError):
        read(f"sqlite:///{tmp_path}/bad.db")


def test_progress_is_told_with_every_unit(read: Any, url: str, small_parts: None) -> None:
    told: list[str] = []
    read(url, progress=told.append)
    assert told[-1] == "reading: 300 interactions"
