"""The event store when things break: servers restart, processes are killed, disks fill. What was acknowledged stays."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from router_ml.errors import StoreError
from router_ml.schema import Feedback, Interaction
from router_ml.store import EventStore, open_store
from router_ml_serving.recorder import Recorder

T0 = datetime(2025, 11, 22, 10, tzinfo=UTC)


def interaction(n: int, **fields: Any) -> Interaction:
    return Interaction(id=f"i{n:06d}", ts=T0 + timedelta(seconds=n), **fields)


def thumb(n: int) -> Feedback:
    return Feedback(ts=T0 + timedelta(seconds=n), source="user", adequate=True, key=f"k{n}")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def recover(url: str, spill: Path) -> None:
    """Start a service's recorder, and stop it when all that was spilled is in the store."""

    async def main() -> None:
        with open_store(url) as store:
            recorder = Recorder(store, spill=spill, flush_s=0.01, retry_s=0.1)
            await recorder.start()
            await until(lambda: not list(spill.parent.glob(f"{spill.name}*")))
            await recorder.close()

    asyncio.run(main())


def stored(store: EventStore) -> tuple[dict[str, set[str | None]], list[str]]:
    """Return the keys of the feedback by interaction, and the ids of rows that cannot be read."""
    torn: list[str] = []
    found = {
        one.id: {item.key for item in one.feedback} for one in store.scan(on_reject=lambda id_, _: torn.append(id_))
    }
    return found, torn


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def said(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == f"{line}\n"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_database_server_that_restarts_loses_nothing(
    postgres_of_its_own: Any, tmp_path: Path, how: signal.Signals
) -> None:
    server = postgres_of_its_own
    url = server.database()
    spill = tmp_path / "spill.jsonl"
    acknowledged: list[int] = []

    async def traffic(recorder: Recorder, numbers: range) -> None:
        for n in numbers:
            recorder.record(interaction(n))
            if n % 10 == 0:
                await recorder.feedback(interaction(n).id, thumb(n))
                acknowledged.append(n)
            await asyncio.sleep(0.001)

    async def main(store: EventStore) -> None:
        recorder = Recorder(store, spill=spill, batch_size=20, flush_s=0.01, retry_s=0.1)
        await recorder.start()
        busy = asyncio.create_task(traffic(recorder, range(300)))
        await until(lambda: recorder.recorded > 100)
        await asyncio.to_thread(server.stop, how)
        await busy
        await traffic(recorder, range(300, 400))
        assert spill.exists()
        await asyncio.to_thread(server.start)
        await traffic(recorder, range(400, 500))
        await until(lambda: recorder.recorded + recorder.recovered >= 500 and not list(tmp_path.glob("spill*")))
        await recorder.close()
        assert recorder.failed == 0

    with open_store(url) as store:
        asyncio.run(main(store))
        found, torn = stored(store)
    assert torn == []
    assert sorted(found) == [interaction(n).id for n in range(500)]
    assert [n for n in acknowledged if f"k{n}" not in found[interaction(n).id]] == []
    assert len(acknowledged) == 50


def test_a_server_that_is_not_there_is_named_and_its_password_is_not(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open: .*check that the server runs") as caught:
        open_store(f"postgresql+psycopg://u:secret@/db?host={tmp_path}&connect_timeout=1")
    assert "secret" not in str(caught.value)


WRITES = """
    import asyncio, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from router_ml.schema import Feedback, Interaction
    from router_ml.store import open_store
    from router_ml_serving.recorder import Recorder

    async def main():
        ts = datetime(2025, 11, 22, 10, tzinfo=UTC)
        recorder = Recorder(open_store(sys.argv[1]), spill=Path(sys.argv[2]), batch_size=20, flush_s=0.005)
        await recorder.start()
        text = {"text": "word " * 2_000}
        for n in range(1_000_000):
            id_ = f"{sys.argv[3]}-{n}"
            recorder.record(Interaction(id=id_, ts=ts, tags=text))
            await recorder.feedback(id_, Feedback(ts=ts, source="user", adequate=True, key=id_))
            print(id_, flush=True)

    asyncio.run(main())
    """


def test_a_service_that_is_killed_while_it_writes_keeps_what_it_acknowledged(store_url: str, tmp_path: Path) -> None:
    spill = tmp_path / "spill.jsonl"
    acknowledged: list[str] = []
    for round_ in range(3):
        with process(WRITES, store_url, str(spill), f"r{round_}") as child:
            assert child.stdout is not None
            acknowledged += [child.stdout.readline().strip() for _ in range(20 + 17 * round_)]
            child.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in child.stdout if line.endswith("\n")]
    with open_store(store_url) as store:
        # What the feedback is about may have been lost with the process: such feedback waits for ever.
        store.append([Interaction(id=id_, ts=T0) for id_ in acknowledged])
        found, torn = stored(store)
    assert torn == []
    assert [id_ for id_ in acknowledged if id_ not in found[id_]] == []


def test_a_lock_whose_holder_is_killed_is_free_again(tmp_path: Path) -> None:
    path, spill = tmp_path / "events.db", tmp_path / "spill.jsonl"
    holds = """
        import sqlite3, sys, time
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("DELETE FROM interactions")
        print("locked", flush=True)
        time.sleep(60)
        """

    async def main(store: EventStore, child: subprocess.Popen[str]) -> None:
        recorder = Recorder(store, spill=spill, flush_s=0.01, retry_s=0.1)
        await recorder.start()
        recorder.record(interaction(1))
        assert await recorder.feedback("i000001", thumb(1))
        await until(lambda: recorder.spilled == 2)
        child.send_signal(signal.SIGKILL)
        await until(lambda: recorder.recovered == 2)
        await recorder.close()

    with open_store(f"sqlite:///{path}?timeout=0.05") as store:
        store.append([interaction(0)])
        with process(holds, str(path)) as child:
            said(child, "locked")
            asyncio.run(main(store, child))
        assert stored(store) == ({"i000000": set(), "i000001": {"k1"}}, [])


FILLS = """
    import asyncio, resource, signal, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from router_ml.errors import StoreError
    from router_ml.schema import Feedback, Interaction
    from router_ml.store import open_store
    from router_ml_serving.recorder import Recorder

    async def main():
        ts = datetime(2025, 11, 22, 10, tzinfo=UTC)
        spill = Path(sys.argv[2])
        recorder = Recorder(open_store(sys.argv[1]), spill=spill, batch_size=10, flush_s=0.005, retry_s=0.01)
        await recorder.start()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        text = {"text": "word " * 2_000}
        for n in range(400):
            recorder.record(Interaction(id=f"i{n}", ts=ts, tags=text))
            if n % 10 == 9:
                await recorder.flush()
                thumb = Feedback(ts=ts, source="user", adequate=True, key=f"i{n}", reason="x" * 20_000)
                try:
                    await recorder.feedback(f"i{n}", thumb)
                except StoreError:
                    print("refused", f"i{n}", flush=True)
                else:
                    print("acknowledged", f"i{n}", flush=True)
        await recorder.close()
        print("counted", recorder.recorded, recorder.spilled, recorder.recovered, recorder.failed, flush=True)

    asyncio.run(main())
    """


def test_on_a_full_disk_nothing_is_acknowledged_that_is_not_there_and_losses_are_counted(tmp_path: Path) -> None:
    url, spill = f"sqlite:///{tmp_path}/events.db", tmp_path / "spill.jsonl"
    with process(FILLS, url, str(spill)) as child:
        assert child.stdout is not None
        lines = [line.split() for line in child.stdout]
        assert child.wait(30) == 0
    acknowledged = [id_ for what, id_, *_ in lines if what == "acknowledged"]
    refused = [id_ for what, id_, *_ in lines if what == "refused"]
    recorded, _, _, failed = map(int, lines[-1][1:])
    assert acknowledged
    assert refused
    assert recorded > 0
    assert failed > 0
    recover(url, spill)  # the disk has room again
    with open_store(url) as store:
        assert store.count() == 400 - failed
        # What the feedback is about may be among the losses: then it waits for it.
        store.append([Interaction(id=id_, ts=T0) for id_ in (*acknowledged, *refused)])
        found, torn = stored(store)
    assert torn == []
    assert [id_ for id_ in acknowledged if found[id_] != {id_}] == []
    assert [id_ for id_ in refused if found[id_]] == []


def test_what_is_deleted_while_others_write_is_gone_when_that_is_done(store_url: str) -> None:
    with open_store(store_url.replace("timeout=0.5", "timeout=20")) as store, ThreadPoolExecutor(4) as pool:
        deleted = []

        def writes(who: int) -> None:
            for n in range(150):
                store.append([interaction(1_000 * who + n, tenant="acme"), interaction(100_000 + 1_000 * who + n)])
                store.amend(interaction(1_000 * who + n).id, thumb(n))

        writers = [pool.submit(writes, who) for who in range(3)]
        while store.count() < 60:
            time.sleep(0.005)
        deleted.append(store.delete(tenant="acme"))
        for writer in writers:
            writer.result()
        found = list(store.scan())
        assert deleted[0] > 0
        assert [one.id for one in found if one.tenant == "acme"] == []
        assert len(found) == 450
        # No feedback is left that nobody asks for any more: that which arrived first is marked as late.
        assert store.info().feedback == 0


def test_a_service_does_not_start_on_the_store_of_a_newer_release(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/events.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "events.db")) as file, file:
        file.execute("UPDATE meta SET value = '99'")
    environ = {**os.environ, "ROUTER_ML_STORE__URL": f"sqlite:///{tmp_path}/events.db", "ROUTER_ML_SERVING__PORT": "0"}
    command = [sys.executable, "-m", "router_ml.cli", "serve"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == StoreError.exit_code
    assert "a newer release wrote it (schema 99" in done.stderr
    assert "Traceback" not in done.stderr
