"""`golden.json` of a shelf: what came of the last runs of golden sets, and whether a tier got worse than it was.

The alarm is exact and asks nothing of the items. For each item, the runs before and this one are exchangeable as long
as nothing has changed: given that it passed s times in m runs, this one included, it passes now with probability s / m.
The chance of no more passes than were seen is that of a sum of such independent draws. With one run before it is
McNemar's test.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router_ml.durable import replace_file
from router_ml.errors import DataError, RouterError

__all__ = [
    "ALPHA",
    "GOLDEN",
    "GoldenHistory",
    "GoldenRun",
    "TierRun",
    "chance_of_so_few",
    "fall_of",
    "locked",
    "read_history",
]

GOLDEN = "golden.json"
# A tier that has not changed is said to have got worse in one of a thousand runs.
ALPHA = 0.001
_RUNS_KEPT = 30
_Usd = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TierRun(_Record):
    """What one tier did in one run: item digest to passed, None where that is not known; latencies in milliseconds.

    `chance` is that of so few passes had nothing changed, `fell` whether that is below the alarm's level; both are set
    when the run is over.
    """

    model: str
    passed: dict[str, bool | None] = Field(default_factory=dict)
    cost_usd: _Usd = 0.0
    latency_ms: list[float] = Field(default_factory=list)
    chance: float | None = None
    fell: bool = False

    @property
    def known(self) -> int:
        """Number of items whose result is known."""
        return sum(one is not None for one in self.passed.values())

    @property
    def pass_rate(self) -> float | None:
        """Share of the known items that passed; None when none is known."""
        return None if self.known == 0 else sum(one is True for one in self.passed.values()) / self.known


class GoldenRun(_Record):
    """One run: its slot, the digest of its set, the model that judged, and what each tier did."""

    slot: str
    set: str
    judge: str | None = None
    started: datetime
    tiers: dict[str, TierRun]
    judge_usd: _Usd = 0.0
    left_out: int = 0

    @property
    def spent_usd(self) -> float:
        """What the run has cost."""
        return self.judge_usd + sum(tier.cost_usd for tier in self.tiers.values())


class GoldenHistory(_Record):
    """The last runs, oldest first."""

    format: Literal[1] = 1
    runs: tuple[GoldenRun, ...] = ()

    def begun(self, run: GoldenRun) -> GoldenRun:
        """Return the run of the same slot, set, judge, tiers and models as it was left, else this one."""
        return next((one for one in self.runs if _is_same(one, run)), run)

    def with_run(self, run: GoldenRun) -> GoldenHistory:
        """Return a history with this run in place of itself as it was, or at its end; old runs are forgotten."""
        others = [one for one in self.runs if not _is_same(one, run)]
        return GoldenHistory(runs=(*others[-(_RUNS_KEPT - 1) :], run))

    def write(self, models_dir: Path) -> None:
        """Write the history, in one step.

        Raises:
            RouterError: When it cannot be written.
        """
        path = models_dir / GOLDEN
        try:
            replace_file(path, self.model_dump_json(indent=1).encode() + b"\n")
        except OSError as error:
            raise RouterError(
                f"{path}: cannot be written ({error.strerror}); check the folder and its rights"
            ) from error


def read_history(models_dir: Path) -> GoldenHistory:
    """Read what earlier runs found; nothing when there were none.

    Raises:
        DataError: When the file cannot be read as such.
    """
    path = models_dir / GOLDEN
    try:
        return GoldenHistory.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return GoldenHistory()
    except (ValidationError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else "not written by `router-ml golden`"
        raise DataError(f"{path}: {why}; move it away, and the alarm starts anew") from error


@contextmanager
def locked(models_dir: Path) -> Iterator[None]:
    """Hold the only right to run a golden set for this shelf, until the end of the block or of the process.

    Raises:
        RouterError: When another run is at work, or the folder cannot be written.
    """
    path = models_dir / "golden.lock"
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise RouterError(f"{path}: cannot be written ({error.strerror}); check the folder and its rights") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RouterError("another run of a golden set is at work here; wait for it") from error
        yield


def fall_of(history: GoldenHistory, run: GoldenRun, tier: str) -> float | None:
    """Return the chance of so few passes of a tier, had nothing changed since its earlier runs; None: there are none.

    Runs count in which the tier had the same model and the same model judged, whatever the set was: item by item.
    """
    others = [one for one in history.runs if not _is_same(one, run) and one.judge == run.judge]
    now, before = run.tiers[tier], [one.tiers.get(tier) for one in others]
    earlier = [one.passed for one in before if one is not None and one.model == now.model]
    counts = []
    for item, passed in now.passed.items():
        known = [seen for one in earlier if (seen := one.get(item)) is not None]
        if passed is not None and known:
            counts.append((sum(known) + passed, len(known) + 1, passed))
    if not counts:
        return None
    return chance_of_so_few([s / m for s, m, _ in counts], sum(passed for _, _, passed in counts))


def chance_of_so_few(chances: Sequence[float], n: int) -> float:
    """Return the probability that at most `n` of independent events happen.

    Args:
        chances: The probability of each.
        n: How many were seen.
    """
    so_many = np.zeros(len(chances) + 1)
    so_many[0] = 1.0
    for chance in chances:
        so_many[1:] = so_many[1:] * (1.0 - chance) + so_many[:-1] * chance
        so_many[0] *= 1.0 - chance
    return min(float(so_many[: n + 1].sum()), 1.0)


def _is_same(one: GoldenRun, other: GoldenRun) -> bool:
    models = [{name: tier.model for name, tier in run.tiers.items()} for run in (one, other)]
    return (one.slot, one.set, one.judge) == (other.slot, other.set, other.judge) and models[0] == models[1]
