"""The recorder: nothing waits for it, nothing acknowledged is lost, whatever happens to the store."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from router_ml.errors import StoreError
from router_ml.schema import Feedback, Interaction
from router_ml.store import EventStore, StoreRow, open_store, row_of
from router_ml.store.sql import SqlStore, open_sql_store
from router_ml_serving.recorder import Recorder
from router_ml_serving.spill import Spill
from tests.serving.recorders import HangingStore, away, ids, run, until

T0 = datetime(2026, 11, 22, 10, tzinfo=UTC)
THUMB = Feedback(ts=T0, source="user", adequate=True, key="k")


def interaction(n: int) -> Interaction:
    return Interaction(id=f"i{n:06d}", ts=T0 + timedelta(seconds=n))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with open_sql_store(f"sqlite:///{tmp_path}/events.db?timeout=0.05") as opened:
        yield opened


def test_records_reach_the_store_in_the_background(store: EventStore, tmp_path: Path) -> None:
    async def body(recorder: Recorder) -> None:
        for n in range(120):
            recorder.record(interaction(n))
        assert recorder.pending == 120
        await until(lambda: recorder.recorded == 120)
        assert recorder.pending == 0

    recorder = run(store, tmp_path / "spill.jsonl", body)
    assert ids(store) == [f"i{n:06d}" for n in range(120)]
    assert (recorder.spilled, recorder.failed) == (0, 0)
    assert not (tmp_path / "spill.jsonl").exists()


def test_a_record_may_be_built_later_in_another_thread(store: EventStore, tmp_path: Path) -> None:
    threads: list[str] = []

    def build() -> Interaction:
        threads.append(threading.current_thread().name)
        return interaction(1)

    async def body(recorder: Recorder) -> None:
        recorder.record(build)
        assert threads == []

    run(store, tmp_path / "spill.jsonl", body)
    assert ids(store) == ["i000001"]
    assert threads[0].startswith("recorder-store")


def test_a_record_that_cannot_be_built_is_counted_and_takes_no_other_along(
    store: EventStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Interaction:
        return Interaction.model_validate({"id": "x", "ts": "secret prompt"})

    async def body(recorder: Recorder) -> None:
        for item in (interaction(1), broken, interaction(2)):
            recorder.record(item)

    recorder = run(store, tmp_path / "spill.jsonl", body)
    assert ids(store) == ["i000001", "i000002"]
    assert (recorder.recorded, recorder.failed) == (2, 1)
    assert "ValidationError" in caplog.records[0].cause  # type: ignore[attr-defined]
    assert "secret prompt" not in caplog.text


def test_an_unwritable_record_is_counted_and_takes_no_other_along(store: EventStore, tmp_path: Path) -> None:
    async def body(recorder: Recorder) -> None:
        recorder.record(interaction(1))
        recorder.record(interaction(2).model_copy(update={"tags": {"x": "\ud800"}}))

    recorder = run(store, tmp_path / "spill.jsonl", body)
    assert ids(store) == ["i000001"]
    assert (recorder.recorded, recorder.failed) == (1, 1)


def test_a_row_is_recorded_as_its_interaction_is(store: EventStore, tmp_path: Path) -> None:
    async def body(recorder: Recorder) -> None:
        recorder.record(row_of(interaction(1)))
        recorder.record(lambda: row_of(interaction(2)))
        recorder.record(interaction(3))

    run(store, tmp_path / "spill.jsonl", body)
    assert list(store.scan()) == [interaction(1), interaction(2), interaction(3)]


def test_closing_writes_what_is_queued(store: EventStore, tmp_path: Path) -> None:
    async def body(recorder: Recorder) -> None:
        for n in range(500):
            recorder.record(interaction(n))

    recorder = run(store, tmp_path / "spill.jsonl", body)
    assert recorder.recorded == store.count() == 500


def test_feedback_is_durable_and_counted_once(store: EventStore, tmp_path: Path) -> None:
    async def body(recorder: Recorder) -> None:
        assert await recorder.feedback("i000001", THUMB)
        assert not await recorder.feedback("i000001", THUMB)
        recorder.record(interaction(1))

    run(store, tmp_path / "spill.jsonl", body)
    [found] = store.scan()
    assert found.feedback == (THUMB,)


def test_while_the_store_is_away_all_goes_to_the_spill_file_and_comes_back(store: EventStore, tmp_path: Path) -> None:
    now = [0.0]

    async def body(recorder: Recorder) -> None:
        with away(tmp_path):
            for n in range(7):
                recorder.record(interaction(n))
            await recorder.flush()
            assert await recorder.feedback("i000003", THUMB)
            assert (recorder.recorded, recorder.spilled, recorder.pending) == (0, 8, 0)
            assert len((tmp_path / "spill.jsonl").read_text().splitlines()) == 8
        recorder.record(interaction(7))
        await recorder.flush()
        assert store.count() == 0  # left alone until retry_s is over
        now[0] = 5.0
        await until(lambda: recorder.recovered == 9)

    recorder = run(
        store,
        tmp_path / "spill.jsonl",
        body,
        batch_size=3,
        flush_s=0.01,
        retry_s=5.0,
        clock=lambda: now[0],
    )
    assert ids(store) == [f"i{n:06d}" for n in range(8)]
    assert [len(found.feedback) for found in store.scan()] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert recorder.failed == 0
    assert [path.name for path in tmp_path.iterdir() if "spill" in path.name] == []


def test_what_an_earlier_process_spilled_is_stored_at_the_start(store: EventStore, tmp_path: Path) -> None:
    async def spills(recorder: Recorder) -> None:
        with away(tmp_path):
            recorder.record(interaction(1))
            await recorder.feedback("i000001", THUMB)
            await recorder.close()

    run(store, tmp_path / "spill.jsonl", spills)
    assert store.count() == 0

    async def recovers(recorder: Recorder) -> None:
        await until(lambda: recorder.recovered == 2)

    run(store, tmp_path / "spill.jsonl", recovers, flush_s=0.01)
    [found] = store.scan()
    assert found.feedback == (THUMB,)


def test_unreadable_spilled_lines_are_set_aside_and_counted(store: EventStore, tmp_path: Path) -> None:
    lines = [interaction(1).to_json(), '{"decision_id":"x","feedback":{}}', "{half a li"]
    (tmp_path / "spill.jsonl").write_text("\n".join(lines))

    async def body(recorder: Recorder) -> None:
        await until(lambda: recorder.recovered == 1)

    recorder = run(store, tmp_path / "spill.jsonl", body, flush_s=0.01)
    assert recorder.failed == 2
    assert (tmp_path / "spill.jsonl.rejected").read_text().splitlines() == lines[1:]
    assert ids(store) == ["i000001"]


def test_a_full_queue_goes_to_the_spill_file_while_the_store_hangs(store: EventStore, tmp_path: Path) -> None:
    hanging = HangingStore()

    async def body(recorder: Recorder) -> None:
        recorder.record(interaction(0))
        await until(lambda: recorder._in_flight == 1)
        slowest = 0.0
        for n in range(1, 36):
            started = time.perf_counter()
            recorder.record(interaction(n))
            slowest = max(slowest, time.perf_counter() - started)
            await asyncio.sleep(0.005)
        assert slowest < 0.2
        await until(lambda: recorder.spilled == 30)
        assert recorder.pending == 6
        hanging.let_go.set()

    recorder = run(hanging, tmp_path / "spill.jsonl", body, queue_size=10, batch_size=10, flush_s=0.01)  # type: ignore[arg-type]
    assert (recorder.spilled, recorder.failed, recorder.pending) == (36, 0, 0)
    lines = (tmp_path / "spill.jsonl").read_text().splitlines()
    assert sorted(Interaction.model_validate_json(line).id for line in lines) == [f"i{n:06d}" for n in range(36)]


def test_long_prompts_do_not_fill_the_memory_while_the_store_hangs(store: EventStore, tmp_path: Path) -> None:
    hanging = HangingStore()
    long = row_of(interaction(0))._replace(body="x" * 2**20)

    async def body(recorder: Recorder) -> None:
        recorder.record(interaction(0))
        await until(lambda: recorder._in_flight == 1)
        for n in range(70):
            recorder.record(long._replace(id=f"long{n}"))
        assert len(recorder._queue) == 70 - 64
        await until(lambda: recorder.spilled == 64)
        hanging.let_go.set()

    run(hanging, tmp_path / "spill.jsonl", body, batch_size=1, flush_s=0.01)  # type: ignore[arg-type]


def test_closing_does_not_wait_for_a_store_that_hangs(tmp_path: Path) -> None:
    hanging = HangingStore()

    async def main() -> Recorder:
        recorder = Recorder(hanging, spill=tmp_path / "spill.jsonl", batch_size=2)  # type: ignore[arg-type]
        await recorder.start()
        for n in range(6):
            recorder.record(interaction(n))
        await recorder.close(deadline_s=0.1)
        assert (recorder.pending, recorder.spilled) == (2, 4)
        hanging.let_go.set()
        await until(lambda: recorder.spilled == 6)  # its thread spilled the batch it was busy with
        return recorder

    recorder = asyncio.run(main())
    assert (recorder.pending, recorder.failed) == (0, 0)
    assert len((tmp_path / "spill.jsonl").read_text().splitlines()) == 6


def test_without_store_and_disk_losses_are_counted_and_feedback_is_not_acknowledged(
    store: EventStore, tmp_path: Path
) -> None:
    folder = tmp_path / "spill"

    async def body(recorder: Recorder) -> None:
        folder.rmdir()
        with away(tmp_path):
            recorder.record(interaction(1))
            with pytest.raises(StoreError, match=r"neither the event store nor the spill file"):
                await recorder.feedback("i000001", THUMB)
            await recorder.flush()

    recorder = run(store, folder / "spill.jsonl", body)
    assert (recorder.failed, recorder.pending) == (1, 0)


def test_a_closed_recorder_takes_nothing_and_says_so(store: EventStore, tmp_path: Path) -> None:
    async def body(recorder: Recorder) -> None:
        await recorder.close()
        recorder.record(interaction(1))
        recorder.record(interaction(2))
        assert recorder.failed == 2
        with pytest.raises(StoreError, match="closed"):
            await recorder.feedback("i000001", THUMB)

    run(store, tmp_path / "spill.jsonl", body)


def test_a_spill_folder_that_cannot_be_made_stops_the_start(store: EventStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot make its folder: .*; set serving\.spill"):
        Recorder(store, spill=tmp_path / "file" / "spill.jsonl")


CHILD = """
    import asyncio, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from router_ml.schema import Feedback, Interaction
    from router_ml.store import open_store
    from router_ml_serving.recorder import Recorder

    async def main():
        ts = datetime(2026, 11, 22, 10, tzinfo=UTC)
        recorder = Recorder(open_store(sys.argv[1]), spill=Path(sys.argv[2]))
        await recorder.start()
        recorder.record(Interaction(id="i000001", ts=ts))
        await recorder.flush()
        print("ready", flush=True)
        sys.stdin.readline()
        await recorder.feedback("i000001", Feedback(ts=ts, source="user", adequate=True, key="k"))
        print("acknowledged", flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
    """


@pytest.mark.parametrize("store_is_away", [False, True])
def test_acknowledged_feedback_survives_a_kill(tmp_path: Path, *, store_is_away: bool) -> None:
    url = f"sqlite:///{tmp_path}/events.db?timeout=0.05"
    spill = tmp_path / "spill.jsonl"
    command = [sys.executable, "-c", textwrap.dedent(CHILD), url, str(spill)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with away(tmp_path) if store_is_away else closing(open_store(url)):
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "acknowledged\n"
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert spill.exists() is store_is_away

    async def restarts(recorder: Recorder) -> None:
        await until(lambda: not spill.exists() and not list(tmp_path.glob("spill*")))

    with open_store(url) as store:
        run(store, spill, restarts, flush_s=0.01)
        [found] = store.scan()
        assert found.feedback == (THUMB,)


def test_what_was_spilled_comes_back_while_interactions_keep_coming(store: SqlStore, tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill.jsonl")
    spill.append([interaction(n).to_json() for n in range(5)])
    append_rows = store.append_rows

    def slowly(rows: Sequence[StoreRow]) -> None:
        time.sleep(0.02)
        append_rows(rows)

    store.append_rows = slowly  # type: ignore[method-assign]

    async def body(recorder: Recorder) -> None:
        n = 5
        # Whenever one batch is written, the next one waits already.
        while recorder.recovered < 5 and n < 2_000:
            n += 1
            recorder.record(interaction(n))
            await asyncio.sleep(0.002)
        assert recorder.recovered == 5

    run(store, tmp_path / "spill.jsonl", body, flush_s=0.01)


def test_feedback_that_nobody_waits_for_is_stored_and_told(store: EventStore, tmp_path: Path) -> None:
    told: list[bool] = []

    async def body(recorder: Recorder) -> None:
        recorder.record(interaction(1))
        recorder.feedback_later("i000001", THUMB, told.append)
        recorder.feedback_later("i000001", THUMB, told.append)
        assert (told, recorder.pending) == ([], 3)

    recorder = run(store, tmp_path / "spill.jsonl", body)
    assert (told, recorder.recorded, recorder.failed) == ([True, False], 1, 0)
    assert [found.feedback for found in store.scan()] == [(THUMB,)]


def test_feedback_that_nobody_waits_for_is_spilled_with_the_rest_and_lost_with_a_count(
    store: EventStore, tmp_path: Path
) -> None:
    told: list[bool] = []

    async def fill(recorder: Recorder) -> None:
        for n in range(3):
            recorder.feedback_later(f"i{n:06d}", THUMB, told.append)
        await until(lambda: recorder.spilled == 2)
        await recorder.close()
        recorder.feedback_later("i000009", THUMB, told.append)

    recorder = run(store, tmp_path / "spill.jsonl", fill, started=False, queue_size=2)
    assert (told, recorder.failed) == ([True, True, True], 1)

    async def recover(recorder: Recorder) -> None:
        await until(lambda: recorder.recovered == 2)

    run(store, tmp_path / "spill.jsonl", recover, flush_s=0.01)
    assert store.info().feedback == 3
