"""Work in this process or in others: results in order, errors as they were raised, processes that end."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from router_ml.errors import DataError, RouterError
from router_ml_training.executor import LocalExecutor


def doubled(x: int) -> int:
    time.sleep(0.01 * (x == 0))  # the first is the last to be done
    return 2 * x


def refuses_three(x: int) -> int:
    if x == 3:
        raise DataError("three: cannot be read")
    return x


def here(_: int) -> int:
    return os.getpid()


def ends(x: int) -> int:
    if x == 1:
        os._exit(9)
    return x


def test_one_process_is_this_one() -> None:
    executor = LocalExecutor()
    assert set(executor.map(here, [1, 2, 3])) == {os.getpid()}
    assert list(executor.map(doubled, [])) == []
    with pytest.raises(DataError, match=r"^three: cannot be read$"):
        list(executor.map(refuses_three, [1, 3]))
    executor.close()


@pytest.mark.slow
def test_several_processes_give_results_in_order_and_errors_as_they_are() -> None:
    with LocalExecutor(2) as executor:
        assert list(executor.map(doubled, list(range(20)))) == [2 * x for x in range(20)]
        results = executor.map(refuses_three, [1, 2, 3, 4])
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(DataError, match=r"^three: cannot be read$"):
            next(results)
        assert os.getpid() not in set(executor.map(here, [1, 2]))
        assert list(executor.map(here, [1])) == [os.getpid()]  # not worth a process
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_worker_that_dies_is_one_clear_error_and_the_next_work_is_done() -> None:
    with LocalExecutor(2) as executor:
        with pytest.raises(RouterError, match="a worker process of this run died"):
            list(executor.map(ends, [0, 1, 2, 3]))
        assert list(executor.map(doubled, [1, 2])) == [2, 4]


RUN = """
import multiprocessing, time
from router_ml_training.executor import LocalExecutor

if __name__ == "__main__":
    with LocalExecutor(2) as executor:
        list(executor.map(abs, [1, 2, 3]))
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.slow
def test_the_workers_of_a_run_that_is_killed_end_with_it(tmp_path: Path) -> None:
    program = tmp_path / "run.py"
    program.write_text(RUN)
    with subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stdout is not None
        workers = [int(pid) for pid in run.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(is_running, workers))
        run.kill()
    until = time.monotonic() + 30.0
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
