"""Who competes this time: all learners, or only the one that won when little has changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.features import SCHEMA_HASH
from router_ml_training.retrain.state import LastCompetition
from router_ml_training.retrain.steps import hashed
from router_ml_training.settings import TrainingSettings

__all__ = ["competitors", "settings_key"]

F64: TypeAlias = NDArray[np.float64]

# A log that has grown by less is not worth fitting learners again that lost clearly on most of it.
_GROWTH = 0.1
_CONTROL = "constant"


def settings_key(
    settings: TrainingSettings, tiers: list[dict[str, Any]], libraries: Mapping[str, str], sources: Sequence[Any]
) -> str:
    """Return a hash of what a competition depends on besides its rows."""
    relevant = settings.model_dump(mode="json", exclude={"promote", "num_threads", "engine", "dask_scheduler"})
    return hashed([relevant, tiers, SCHEMA_HASH, dict(libraries), sources])


def competitors(
    last: LastCompetition | None, ts: F64, settings_hash: str, settings: TrainingSettings
) -> tuple[tuple[str, ...], str]:
    """Return the names of the learners to fit, and why these.

    Args:
        last: The last competition of all learners; None when there was none.
        ts: When each interaction of the log was, in seconds, (n,).
        settings_hash: The `settings_key` of this run.
        settings: `[training]`.
    """
    everyone = settings.learners
    if last is None:
        return everyone, "all learners compete: there was no competition before"
    when = f"{last.at:%Y-%m-%d}"
    if last.settings != settings_hash:
        return everyone, f"all learners compete: settings, tiers, logs or libraries have changed since {when}"
    if not last.passed:
        return everyone, f"all learners compete: '{last.winner}', which won on {when}, failed its gates"
    # A window that moves on keeps its size, and in the end none of its rows.
    n_rows, n_later = len(ts), int((ts > last.until).sum())
    n_new = max(n_later, n_rows - last.n_rows)
    n_gone = last.n_rows + n_later - n_rows
    if max(n_new, n_gone) >= _GROWTH * last.n_rows:
        later = f" ({n_new:,} new)" if n_rows <= last.n_rows else ""
        rows = f"{n_rows:,} rows{later}, {last.n_rows:,} at the last competition on {when}"
        return everyone, f"all learners compete: {rows}"
    kept = tuple(name for name in everyone if name in (last.winner, _CONTROL))
    if len(kept) == len(everyone):
        return everyone, "all learners compete: there is no more than the last winner and the constant"
    return kept, (
        f"'{last.winner}' was fitted again, beside the constant: it won the competition of {len(everyone)} learners on "
        f"{when} on {last.n_rows:,} rows, and the log has changed by less than a tenth since"
    )
