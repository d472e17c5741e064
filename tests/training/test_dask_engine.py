"""On a cluster of two workers the same work is done, and survives the death of one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from router_ml.errors import RouterError
from router_ml_training.dask_engine import DaskExecutor, DaskGrow, connected
from router_ml_training.learners.boosting import BoostingRows, grow_here

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

PARAMETERS = {
    "objective": "cross_entropy",
    "num_leaves": 15,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "verbosity": -1,
    "seed": 0,
    "num_threads": 1,
    "boost_from_average": False,
}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with connected(None, workers=2) as found:
        yield found


def rows_of(n: int, seed: int) -> BoostingRows:
    """Return rows whose log odds are a bend of the first column, plus the third."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(n, 6)).astype(np.float32)
    odds = 2.0 * np.abs(dense[:, 0]) - 1.5 + dense[:, 2]
    target = (rng.random(n) < 1.0 / (1.0 + np.exp(-odds))).astype(np.float64)
    return BoostingRows(dense, target, np.ones(n), np.zeros(n))


def loss_of(booster: Any, rows: BoostingRows, n_trees: int) -> float:
    score = booster.predict(rows.dense, raw_score=True, num_iteration=n_trees)
    return float(np.mean(np.logaddexp(0.0, score) - rows.target * score))


def squared(value: int) -> tuple[int, int]:
    return value * value, os.getpid()


def slowly(value: int) -> int:
    time.sleep(0.3)
    return value


def refused(value: int) -> int:
    raise ValueError(f"row {value} cannot be read")


def test_results_come_in_order_and_from_several_workers(client: Any) -> None:
    found = list(DaskExecutor(client).map(squared, range(40)))
    assert [value for value, _ in found] == [value * value for value in range(40)]
    assert len({pid for _, pid in found} - {os.getpid()}) == 2


def test_what_a_task_raises_comes_through(client: Any) -> None:
    with pytest.raises(ValueError, match="row 3 cannot be read"):
        list(DaskExecutor(client).map(refused, [3]))


def test_a_worker_that_is_killed_while_it_maps_costs_no_result(client: Any) -> None:
    results = DaskExecutor(client).map(slowly, range(12))
    first = next(results)
    os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)
    assert [first, *results] == list(range(12))


def test_trees_grown_by_a_cluster_predict_as_well_as_those_of_one_process(client: Any) -> None:
    rows, unseen = rows_of(6000, 0), rows_of(4000, 1)
    together = DaskGrow(client)(PARAMETERS, rows, 60, rows_of(2000, 2))
    alone = grow_here(PARAMETERS, rows, 60, rows_of(2000, 2))
    losses = [loss_of(one.booster, unseen, one.n_best) for one in (together, alone)]
    untaught = float(np.log(2.0))
    assert losses[1] < untaught - 0.05
    assert abs(losses[0] - losses[1]) < 0.1 * (untaught - losses[1])


def test_one_worker_grows_the_trees_of_one_process_and_as_many() -> None:
    rows, held_out = rows_of(3000, 7), rows_of(1000, 8)
    with connected(None, workers=1) as client:
        together = DaskGrow(client)(PARAMETERS, rows, 80, held_out)
    alone = grow_here(PARAMETERS, rows, 80, held_out)
    assert together.n_best == alone.n_best < 80
    assert loss_of(together.booster, held_out, alone.n_best) == loss_of(alone.booster, held_out, alone.n_best)


def test_many_rows_are_grown_on_without_a_warning(client: Any) -> None:
    rng = np.random.default_rng(6)
    dense = rng.normal(size=(60_000, 60)).astype(np.float32)
    rows = BoostingRows(dense, (dense[:, 0] > 0).astype(np.float64), np.ones(60_000), np.zeros(60_000))
    assert DaskGrow(client)(PARAMETERS, rows, 2).booster.num_trees() == 2


def test_two_clusters_on_one_machine_do_not_meet() -> None:
    with connected(None, workers=1) as one, connected(None, workers=1) as other:
        assert one.submit(os.getpid).result() != other.submit(os.getpid).result()


def test_the_best_number_of_trees_is_found_on_held_out_rows(client: Any) -> None:
    # Six columns and 300 rows: hundreds of trees can only overfit.
    rows, held_out = rows_of(300, 3), rows_of(3000, 4)
    found = DaskGrow(client)({**PARAMETERS, "learning_rate": 0.3}, rows, 200, held_out)
    assert 5 <= found.n_best < 100
    assert loss_of(found.booster, held_out, found.n_best) < loss_of(found.booster, held_out, 200)


def test_a_worker_that_is_killed_while_trees_grow_costs_no_tree(client: Any) -> None:
    client.wait_for_workers(2, timeout=30)
    doomed = min(client.run(os.getpid).values())
    killed_at: list[float] = []

    def kill() -> None:
        killed_at.append(time.monotonic())
        os.kill(doomed, signal.SIGKILL)

    killer = threading.Timer(1.0, kill)
    killer.start()
    found = DaskGrow(client)(PARAMETERS, rows_of(20_000, 5), 2500)
    ended_at = time.monotonic()
    killer.join()
    assert killed_at[0] < ended_at - 1.0
    assert found.booster.num_trees() == 2500


def test_an_address_where_nobody_answers_is_named() -> None:
    with (
        pytest.raises(RouterError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1.*dask_scheduler"),
        connected("tcp://127.0.0.1:1", workers=1, patience_s=1.0),
    ):
        pass
