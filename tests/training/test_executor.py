"""Work in this process or in others: results in order, errors as they were raised, processes that end."""

from __future__ import annotations

import multiprocessing
import os
import time

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
