"""The engine is this machine unless the settings ask for a cluster."""

from __future__ import annotations

import os

import pytest

from router_ml_training.dask_engine import DaskGrow
from router_ml_training.engine import open_engine
from router_ml_training.executor import LocalExecutor
from router_ml_training.learners.boosting import grow_here
from router_ml_training.settings import TrainingSettings


def test_this_machine_does_the_work_by_itself() -> None:
    with open_engine(TrainingSettings()) as engine:
        assert isinstance(engine.executor, LocalExecutor)
        assert engine.grow is grow_here
        assert list(engine.executor.map(abs, [-1, 2])) == [1, 2]


@pytest.mark.slow
def test_without_an_address_the_cluster_is_made_of_processes_of_this_machine() -> None:
    with open_engine(TrainingSettings(engine="dask", num_threads=1)) as engine:
        assert isinstance(engine.grow, DaskGrow)
        assert os.getpid() not in list(engine.executor.map(pid_of, [0, 1]))


def pid_of(_: int) -> int:
    return os.getpid()
