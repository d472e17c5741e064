"""Several replicas of the service at one PostgreSQL: together they lose nothing and store nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from router_ml.store import open_store

pytestmark = pytest.mark.e2e

# A replica records what is its own and what all of them bring (as when a spill file is read twice), over three days.
# It says how far it is, and ends when it is told to and has nothing left to bring.
REPLICA = """
    import asyncio, sys
    from datetime import UTC, datetime, timedelta
    from pathlib import Path
    from router_ml.schema import Feedback, Interaction
    from router_ml.store import open_store
    from router_ml_serving.recorder import Recorder

    url, spill, who, n = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

    def left(spill):
        return spill.parent.glob(f"{spill.name}*")

    async def main():
        now = datetime(2026, 11, 22, 10, tzinfo=UTC)
        recorder = Recorder(open_store(url), spill=spill, batch_size=20, flush_s=0.01, retry_s=0.1)
        await recorder.start()
        for k in range(n):
            ts = now + timedelta(days=k % 3, seconds=k)
            recorder.record(Interaction(id=f"{who}-{k}", ts=ts, tenant=who))
            recorder.record(Interaction(id=f"all-{k}", ts=ts))
            if k % 10 == 0:
                thumb = Feedback(ts=ts, source="user", adequate=True, key=f"{who}-{k}")
                assert await recorder.feedback(f"all-{k}", thumb)
            if k % 100 == 50:
                print(k, flush=True)
            await asyncio.sleep(0.002)
        async with asyncio.timeout(60):
            while recorder.pending or recorder.recorded + recorder.recovered < 2 * n or any(left(spill)):
                await asyncio.sleep(0.02)
        await recorder.close()
        print("failed", recorder.failed, "spilled", recorder.spilled, flush=True)

    asyncio.run(main())
    """


def replica(url: str, folder: Path, who: str, n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(REPLICA), url, str(folder / f"{who}.jsonl"), who, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(child: subprocess.Popen[str], start: str) -> str:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(f"ended before it said {start}")


def check(url: str, names: str, n: int) -> None:
    with open_store(url) as store:
        found = [(one.id, {item.key for item in one.feedback}) for one in store.scan()]
        feedback = store.info().feedback
    expected = sorted(f"{who}-{k}" for who in (*names, "all") for k in range(n))
    assert sorted(id_ for id_, _ in found) == expected
    keys = {id_: said for id_, said in found if said}
    assert keys == {f"all-{k}": {f"{who}-{k}" for who in names} for k in range(0, n, 10)}
    assert feedback == len(names) * len(keys)


def test_replicas_that_write_at_once_lose_nothing_and_store_nothing_twice(postgres: Any, tmp_path: Path) -> None:
    url, n = postgres.database(), 300
    with ExitStack() as stack:
        children = [stack.enter_context(replica(url, tmp_path, who, n)) for who in "abcd"]
        said = [wait_for(child, "failed").split() for child in children]
    assert [one[:2] for one in said] == [["failed", "0"]] * 4
    check(url, "abcd", n)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_replicas_whose_database_goes_away_spill_and_catch_up(
    postgres_of_its_own: Any, tmp_path: Path, how: signal.Signals
) -> None:
    server, n = postgres_of_its_own, 500
    url = server.database()
    with ExitStack() as stack:
        children = [stack.enter_context(replica(url, tmp_path, who, n)) for who in "ab"]
        for child in children:
            wait_for(child, "50")
        server.stop(how)
        give_up = time.monotonic() + 30
        while not all((tmp_path / f"{who}.jsonl").exists() for who in "ab"):
            assert time.monotonic() < give_up
            time.sleep(0.02)
        server.start()
        said = [wait_for(child, "failed").split() for child in children]
    assert [one[1] for one in said] == ["0", "0"]
    assert all(int(one[3]) > 0 for one in said)
    check(url, "ab", n)
