"""Who does the heavy work of a run: this machine, or a Dask cluster; the pipeline is the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from router_ml_training.executor import Executor, LocalExecutor
from router_ml_training.learners.boosting import Grow, grow_here
from router_ml_training.settings import TrainingSettings

__all__ = ["Engine", "open_engine"]


@dataclass(frozen=True, slots=True)
class Engine:
    """`executor` works on the parts of a log, `grow` boosts trees."""

    executor: Executor
    grow: Grow


@contextlib.contextmanager
def open_engine(settings: TrainingSettings) -> Iterator[Engine]:
    """Yield the engine that the settings ask for, and release its processes and connections afterwards.

    Args:
        settings: `[training]`.

    Raises:
        MissingExtra: When `engine = "dask"` and dask is not installed.
        RouterError: When the Dask cluster cannot be reached.
    """
    if settings.engine == "local":
        with LocalExecutor(settings.num_threads) as executor:
            yield Engine(executor, grow_here)
        return
    from router_ml_training.dask_engine import DaskExecutor, DaskGrow, connected

    with connected(settings.dask_scheduler, workers=settings.num_threads) as client:
        yield Engine(DaskExecutor(client), DaskGrow(client))
