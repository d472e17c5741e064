"""Champion against challenger on rows that neither was trained on: promote only what is not worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle
from router_ml.ladder import Ladder
from router_ml_training.candidates import log_loss
from router_ml_training.evaluation.compare import standard_error
from router_ml_training.evaluation.curves import choose
from router_ml_training.scored import Scored, score_with_bundle

__all__ = ["GateReport", "compare"]

F64: TypeAlias = NDArray[np.float64]

# With fewer judged rows than this nobody can tell the two apart, and the champion stays.
MIN_ROWS = 50
# With less evidence than this the two are taken for equal, and the one with newer data goes in. At one standard error
# a third of all equal challengers were refused.
_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Difference:
    """Challenger minus champion on the same rows: mean and standard error; positive means the challenger is worse."""

    mean: float
    standard_error: float

    @property
    def worse(self) -> bool:
        """Whether the challenger is worse by more than noise."""
        return self.mean > max(_ERRORS * self.standard_error, 1e-9)


@dataclass(frozen=True, slots=True)
class GateReport:
    """Whether the challenger may be promoted, and why.

    `loss` compares log losses of what is known of requests easy and hard alike, `regret` what the two policies' choices
    were worth (quality lost plus the price of the money spent) on rows whose every outcome is known or, short of those,
    as the challenger sees it.
    """

    passed: bool
    reason: str
    champion: str | None
    n_rows: int
    loss: Difference | None = None
    regret: Difference | None = None


def compare(challenger: Scored, champion: Bundle | None, ladder: Ladder, *, shadow_price: float) -> GateReport:
    """Compare on the held-out time slice.

    Args:
        challenger: Rows later than anything the challenger was trained on, with its scores.
        champion: The bundle in service; None when there is none yet.
        ladder: Tiers and prices both are judged by.
        shadow_price: Quality per USD that weighs money against quality.
    """
    test = challenger.dataset
    if champion is None:
        return GateReport(True, "there is no champion yet", None, len(test))
    version = champion.version
    if champion.ladder.names != ladder.names:
        return GateReport(
            True, f"the champion routes between {', '.join(champion.ladder.names)}, not this ladder", version, 0
        )
    quality = test.free_quality
    known = np.flatnonzero(~np.isnan(quality).all(axis=1))
    if len(known) < MIN_ROWS:
        reason = f"only {len(known)} held-out rows have a known outcome, {MIN_ROWS} are needed to tell the two apart"
        return GateReport(False, f"{reason}: collect more feedback", version, len(known))
    theirs = score_with_bundle(test, champion, ladder)
    loss = _difference(
        log_loss(challenger.adequacy[known], quality[known]) - log_loss(theirs.adequacy[known], quality[known]),
        test.group[known],
    )
    regret = _regret(challenger, theirs, shadow_price)
    faults = []
    if loss.worse:
        faults.append(f"its log loss is {loss.mean:.4f} higher (standard error {loss.standard_error:.4f})")
    if regret.worse:
        faults.append(f"its choices are worth {regret.mean:.4f} less (standard error {regret.standard_error:.4f})")
    if faults:
        reason = f"worse than {version} on {len(known)} held-out rows: {' and '.join(faults)}"
        return GateReport(False, reason, version, len(known), loss, regret)
    reason = f"not worse than {version} on {len(known)} held-out rows (log loss {loss.mean:+.4f})"
    return GateReport(True, reason, version, len(known), loss, regret)


def _regret(mine: Scored, theirs: Scored, price: float) -> Difference:
    outcomes, rows = mine.outcomes()
    value = outcomes.quality - price * outcomes.cost
    everyone = np.arange(len(rows))
    ours, other = (value[everyone, choose(side.adequacy[rows], side.cost_usd[rows], price)] for side in (mine, theirs))
    return _difference(other - ours, mine.dataset.group[rows])


def _difference(values: F64, group: NDArray[np.int64]) -> Difference:
    # Requests of one session succeed and fail together: they count as one.
    error = standard_error(values, group) if len(np.unique(group)) > 1 else float("inf")
    return Difference(float(values.mean()), error)
