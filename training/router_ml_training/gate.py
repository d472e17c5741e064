"""Champion against challenger on rows that neither was trained on: promote only what is not worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle
from router_ml.ladder import Ladder
from router_ml.manifest import PolicySpec
from router_ml_training.candidates import log_loss
from router_ml_training.evaluation.compare import standard_error
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
    were worth on rows whose every outcome is known; None where too few are. `spent` is what the challenger's choices
    cost more there, as a share of what always the best tier costs.
    """

    passed: bool
    reason: str
    champion: str | None
    n_rows: int
    loss: Difference | None = None
    regret: Difference | None = None
    spent: Difference | None = None


def compare(
    challenger: Scored,
    policy: PolicySpec,
    champion: Bundle | None,
    ladder: Ladder,
    *,
    quality: float,
) -> GateReport:
    """Compare on the held-out time slice, each side deciding as it would in service.

    Args:
        challenger: Rows later than anything the challenger was trained on, with its scores.
        policy: The challenger's policy.
        champion: The bundle in service; None when there is none yet.
        ladder: Tiers and prices both are judged by.
        quality: Share of the best tier's quality that both are asked to keep.
    """
    test = challenger.dataset
    if champion is None:
        return GateReport(True, "there is no champion yet", None, len(test))
    version = champion.version
    if champion.ladder.names != ladder.names:
        return GateReport(
            True, f"the champion routes between {', '.join(champion.ladder.names)}, not this ladder", version, 0
        )
    free = test.free_quality
    known = np.flatnonzero(~np.isnan(free).all(axis=1))
    if len(known) < MIN_ROWS:
        reason = f"only {len(known)} held-out rows have a known outcome, {MIN_ROWS} are needed to tell the two apart"
        return GateReport(False, f"{reason}: collect more feedback", version, len(known))
    theirs = score_with_bundle(test, champion, ladder)
    loss = _difference(
        log_loss(challenger.adequacy[known], free[known]) - log_loss(theirs.adequacy[known], free[known]),
        test.group[known],
    )
    regret, short, spent = _choices(challenger, policy, theirs, champion.policy, quality)
    faults = []
    if loss.worse:
        faults.append(f"its log loss is {loss.mean:.4f} higher (standard error {loss.standard_error:.4f})")
    if regret is not None and regret.worse:
        faults.append(f"its choices are worth {regret.mean:.4f} less (standard error {regret.standard_error:.4f})")
    if short is not None and short.worse:
        faults.append(f"its quality is {short.mean:.4f} below the {quality:.4g} asked for, and the champion's is not")
    if faults:
        reason = f"worse than {version} on {len(known)} held-out rows: {' and '.join(faults)}"
        return GateReport(False, reason, version, len(known), loss, regret, spent)
    alone = "" if regret is not None else "; too few rows have every outcome to compare choices"
    reason = f"not worse than {version} on {len(known)} held-out rows (log loss {loss.mean:+.4f}{alone})"
    return GateReport(True, reason, version, len(known), loss, regret, spent)


def _choices(
    mine: Scored, my_policy: PolicySpec, theirs: Scored, their_policy: PolicySpec, quality: float
) -> tuple[Difference | None, Difference | None, Difference | None]:
    """Compare what the two policies' choices were worth; None where the outcomes would be the challenger's opinion.

    Returns:
        What the challenger's choices are worth less (quality, less the challenger's price of the money spent); how far
        its quality is below the share asked for, only where the champion's is not below it too; what it spends more.
    """
    outcomes, rows = mine.outcomes()
    if not mine.dataset.complete[rows].all():
        return None, None, None
    group = mine.dataset.group[rows]
    price = my_policy.shadow_price(quality) if my_policy.price_unit == "usd" else 0.0
    ours, other = (side.taken(spec, quality).rows(rows) for side, spec in ((mine, my_policy), (theirs, their_policy)))
    mine_worth, their_worth = (one.quality(outcomes) - price * one.cost(outcomes) for one in (ours, other))
    regret = _difference(their_worth - mine_worth, group)
    wanted = quality * outcomes.quality[:, outcomes.best_tier]
    short, champion_short = (_difference(wanted - one.quality(outcomes), group) for one in (ours, other))
    bill = float(outcomes.cost[:, outcomes.best_tier].mean())
    more = (ours.cost(outcomes) - other.cost(outcomes)) / bill if bill > 0 else np.zeros(len(rows))
    return regret, None if champion_short.worse else short, _difference(more, group)


def _difference(values: F64, group: NDArray[np.int64]) -> Difference:
    # Requests of one session succeed and fail together: they count as one.
    error = standard_error(values, group) if len(np.unique(group)) > 1 else float("inf")
    return Difference(float(values.mean()), error)
