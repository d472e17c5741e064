"""`[training] engine = "dask"`: the parts of a log are read by a cluster's workers, and trees are grown by all of them.

Only who does the work differs: the pipeline, the models and the bundle are the same. Trees grown by several workers
are not those of one process, bit for bit: their bins come from each worker's share of the rows.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from router_ml.errors import RouterError
from router_ml.registry import require
from router_ml_training.learners.boosting import PATIENCE, BoostingRows, Growth

__all__ = ["DaskExecutor", "DaskGrow", "connected"]

T = TypeVar("T")
R = TypeVar("R")

_WHY = 'for [training] engine = "dask"'
_LOCAL_S = "3s"
# A worker that went away is replaced, or its share is done by the others; three times is no accident any more.
_TRIES = 3
_PAUSE_S = 2.0
_WORKERS_S = 60.0
# Minutes after which LightGBM gives up on a worker that went silent; its own default is two hours; whole minutes only.
_SILENT_MIN = 1
# How often to look whether all workers are still there.
_LOOK_S = 0.5
# Tasks in flight per worker: enough to keep it busy, few enough to hold a bounded number of results.
_AHEAD = 2


@contextlib.contextmanager
def connected(scheduler: str | None, *, workers: int, patience_s: float = 20.0) -> Iterator[Any]:
    """Yield a client of a Dask cluster: of the one at an address, else of one of this machine's own.

    Args:
        scheduler: Address such as `tcp://10.0.0.5:8786`; None starts processes here.
        workers: How many processes to start.
        patience_s: How long to wait for the scheduler at an address.

    Raises:
        MissingExtra: When dask is not installed.
        RouterError: When nothing answers at the address, or it has no worker.
    """
    distributed = require("distributed", extra="dask", why=_WHY)
    if scheduler is None:
        # On one machine a worker that does not answer at once is gone.
        settings = require("dask", extra="dask", why=_WHY).config
        with (
            settings.set({"distributed.comm.timeouts.connect": _LOCAL_S}),
            _own_cluster(distributed, workers) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            # LightGBM tells what ports it binds on stdout, which workers here share with the command's result.
            client.register_plugin(_quiet_workers(distributed))
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=patience_s, set_as_default=False)
    except (OSError, ValueError) as error:
        message = f"no Dask scheduler answers at {scheduler}: start it, or check [training] dask_scheduler"
        raise RouterError(message) from error
    with client:
        _wait(client)
        yield client


def _quiet_workers(distributed: Any) -> Any:
    class QuietStdout(distributed.WorkerPlugin):  # type: ignore[misc]  # the library is loaded where it is used
        """Sends what a worker prints nowhere; its log goes to stderr, its failures are raised."""

        def setup(self, worker: Any) -> None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)

    return QuietStdout()


def _own_cluster(distributed: Any, workers: int) -> Any:
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        # Any port: on its usual one the cluster of another run may listen already, which it would warn of.
        dashboard_address="127.0.0.1:0",
    )


class DaskExecutor:
    """Maps tasks over a cluster's workers; see `Executor`.

    Args:
        client: A `distributed.Client`; it stays open.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def map(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield the result for every item, in order; a bounded number of them is under way at once.

        Raises:
            RouterError: When workers keep going away. What a task raises comes through as it is.
        """
        lost = require("distributed", extra="dask", why=_WHY).KilledWorker
        waiting: deque[Any] = deque()
        rest = iter(items)
        try:
            while True:
                ahead = _AHEAD * max(len(self._client.scheduler_info()["workers"]), 1)
                for item in islice(rest, max(ahead - len(waiting), 0)):
                    # Not pure: a task may look at the outside world, so equal arguments do not mean equal results.
                    waiting.append(self._client.submit(task, item, pure=False))
                if not waiting:
                    return
                found: R = waiting.popleft().result()
                yield found
        except lost as error:
            raise _gone(error) from error
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Do nothing: whoever opened the client closes it."""


class DaskGrow:
    """Grows trees with LightGBM's data-parallel learner, the rows shared among all workers; see `Grow`.

    Args:
        client: A `distributed.Client`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(
        self, parameters: Mapping[str, Any], rows: BoostingRows, n_trees: int, held_out: BoostingRows | None = None
    ) -> Growth:
        """Grow all trees; with held-out rows, find afterwards with how many they did best.

        Raises:
            RouterError: When workers keep going away.
        """
        booster = self._patiently(parameters, rows, n_trees)
        if held_out is None:
            return Growth(booster, n_trees)
        return Growth(booster, _best(booster, held_out, n_trees))

    def _patiently(self, parameters: Mapping[str, Any], rows: BoostingRows, n_trees: int) -> Any:
        lightgbm = require("lightgbm", extra="training", why=_WHY)
        distributed = require("distributed", extra="dask", why=_WHY)
        lost = (distributed.KilledWorker, CancelledError, OSError, TimeoutError)
        failures = (lightgbm.basic.LightGBMError, *lost)
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S * attempt)
            _wait(self._client)
            try:
                began_with, held = self._workers(), set(self._client.futures)
                with ThreadPoolExecutor(1) as aside:
                    growing = aside.submit(self._grown, lightgbm, parameters, rows, n_trees)
                    return self._watched(growing, began_with, held)
            except failures as error:
                # A worker that goes away takes the sockets of the others with it: they all start again.
                last = error
        raise _gone(last) from last

    def _watched(self, growing: Future[Any], began_with: set[str], held: set[Any]) -> Any:
        """Return what is grown; when a worker goes away, end it for the others, which would wait for it in vain."""
        while not wait([growing], timeout=_LOOK_S).done:
            if began_with - self._workers():
                self._give_up(held)
                began_with = self._workers()
        return growing.result()

    def _workers(self) -> set[str]:
        return set(self._client.scheduler_info(n_workers=-1)["workers"])

    def _give_up(self, held: set[Any]) -> None:
        """Cancel what was asked of the cluster since growing began: LightGBM pins its tasks to workers by name."""
        future = require("distributed", extra="dask", why=_WHY).Future
        self._client.cancel([future(key, self._client) for key in set(self._client.futures) - held], force=True)
        with contextlib.suppress(Exception):  # workers that nobody can restart give up by themselves, in a minute
            self._client.restart_workers(sorted(self._workers()), timeout=_WORKERS_S, raise_for_error=False)

    def _grown(self, lightgbm: Any, parameters: Mapping[str, Any], rows: BoostingRows, n_trees: int) -> Any:
        asked = {name: value for name, value in parameters.items() if name != "num_threads"}
        model = lightgbm.DaskLGBMRegressor(client=self._client, n_estimators=n_trees, time_out=_SILENT_MIN, **asked)
        shares = max(len(self._client.scheduler_info()["workers"]), 1)
        dense, target, weight, start = (
            self._spread(values, shares) for values in (rows.dense, rows.target, rows.weight, rows.start)
        )
        with self._client.as_current(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # It announces on stdout that it looks for ports, and warns of its own default and of how we hand over rows.
            warnings.filterwarnings("ignore", message="Parameter n_jobs will be ignored")
            warnings.filterwarnings("ignore", message="Sending large graph")
            model.fit(dense, target, sample_weight=weight, init_score=start)
        return model.booster_

    def _spread(self, values: np.ndarray[Any, Any], shares: int) -> Any:
        array = require("dask.array", extra="dask", why=_WHY)
        chunk = -(-len(values) // shares)
        # Dealt out one by one: rows come by time, and every worker finds bins for some columns from its own rows alone.
        dealt = values[np.argsort(np.arange(len(values)) % shares, kind="stable")]
        return array.from_array(dealt, chunks=(chunk, *values.shape[1:]))


def _best(booster: Any, held_out: BoostingRows, n_trees: int) -> int:
    """Return the number of trees where growing in one process would have stopped: LightGBM stops no Dask training."""
    score = held_out.start.astype(np.float64)
    best, lowest = 1, np.inf
    for tree in range(n_trees):
        score = score + booster.predict(held_out.dense, raw_score=True, start_iteration=tree, num_iteration=1)
        loss = np.average(np.logaddexp(0.0, score) - held_out.target * score, weights=held_out.weight)
        if loss < lowest:
            best, lowest = tree + 1, loss
        elif tree + 1 - best >= PATIENCE:
            break
    return best


def _wait(client: Any) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError as error:
        message = f"the Dask cluster has had no worker for {_WORKERS_S:g} s: start workers, and run it again"
        raise RouterError(message) from error


def _gone(error: BaseException) -> RouterError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RouterError(
        f"workers of the Dask cluster went away {_TRIES} times in a row ({reason}): look at their logs, often memory "
        "was short; what is finished is kept, so run the command again"
    )
