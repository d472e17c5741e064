"""A minute of everything at once: no answer that nobody expected, nothing lost, nothing that grows."""

import asyncio
import json
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.mixed_load import Load

SECONDS, CONCURRENCY, WARM_S = 60, 64, 15
MAX_GROWTH = 0.05


class Watch(threading.Thread):
    """Samples the resident memory and the open descriptors of a process, twice a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.folder = Path(f"/proc/{pid}")
        self.started_s = time.monotonic()
        self.samples = []
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.5):
            pages = int((self.folder / "statm").read_text().split()[1])
            open_ = sum(1 for _ in (self.folder / "fd").iterdir())
            self.samples.append((time.monotonic() - self.started_s, pages * 4096 / 1e6, open_))

    def about(self, at_s, column):
        """Return the median of a column around a moment."""
        near = sorted(sample[column] for sample in self.samples if abs(sample[0] - at_s) <= 2.5)
        return near[len(near) // 2]


def stored(service):
    with closing(sqlite3.connect(service.home / "events.db")) as file:
        ids = {row[0] for row in file.execute("SELECT id FROM interactions")}
        feedback = set(file.execute("SELECT decision_id, key FROM feedback"))
    return ids, feedback


def until_written(service):
    deadline = time.monotonic() + 30
    while service.metric("router_ml_recorder_pending") or list(service.home.glob("spill*")):
        assert time.monotonic() < deadline, "the recorder is not done"
        time.sleep(0.2)


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and descriptors are read from /proc")
@pytest.mark.timeout(240)
def test_a_minute_of_mixed_load_surprises_nobody_loses_nothing_and_grows_nothing(start_service, tmp_path, capsys):
    service = start_service(
        sessions=500, memory_classes=200, idle_s=2.0, total_s=10.0, log_level="error", exploration=SHARES
    )
    assert service.process.stop() == 0
    service.process.command[1:3] = [str(Path(__file__).with_name("watched_service.py"))]
    service.process.env["WITNESS"] = str(tmp_path / "witness")
    service.process.start()
    before = service.metric("router_ml_recorder_recorded")
    watch, load = Watch(service.process.process.pid), Load(service.url)
    watch.start()
    asyncio.run(load.run(SECONDS, CONCURRENCY))
    watch.over.set()
    until_written(service)
    time.sleep(2.5)  # for the witness to see it at rest
    tasks = [int(line.split()[0]) for line in (tmp_path / "witness").read_text().splitlines()]
    early_mb, late_mb = watch.about(WARM_S, 1), watch.about(SECONDS - 2.5, 1)
    figures = {
        "requests": sum(load.counts.values()), "answered": len(load.answered), "feedback": len(load.acknowledged),
        "recorded": service.metric("router_ml_recorder_recorded") - before, "mb": [early_mb, late_mb],
        "growth": late_mb / early_mb - 1, "descriptors": [watch.about(WARM_S, 2), watch.about(SECONDS - 2.5, 2)],
        "tasks at rest": tasks[-1], "tasks": [tasks[WARM_S - 1], tasks[SECONDS - 3]], "kinds": dict(load.counts),
    }  # fmt: skip
    with capsys.disabled():
        sys.stdout.write(f"\nsoak: {json.dumps(figures)}\n")
    ids, feedback = stored(service)
    assert load.surprises == []
    assert [one for one in load.answered if one not in ids] == []
    assert [one for one in load.acknowledged if one not in feedback] == []
    assert service.metric("router_ml_recorder_failed") == 0
    assert late_mb / early_mb - 1 < MAX_GROWTH
    assert watch.about(SECONDS - 2.5, 2) <= watch.about(WARM_S, 2) + 20
    assert tasks[-1] < 20, "tasks are left over"
    assert service.process.stop() == 0
    assert "Traceback" not in service.process.log.read_text()


SHARES = {"up": 0.05, "audit": 0.02, "shadow": 0.02}
