"""Which rows of a log can certify, and with what probability each outcome came to be known."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.manifest import PolicySpec
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.bounds import units_needed
from router_ml_training.evaluation.certificate_partial import PartialLog, Reveals
from router_ml_training.evaluation.outcomes import Ints, Outcomes
from router_ml_training.scored import Scored

__all__ = ["can_certify", "known_outcomes", "partial_log"]

Mask: TypeAlias = NDArray[np.bool_]

# Fewer audits than this cannot correct a prediction.
_MIN_AUDITS = 30
# Chains say less than audits: so many times more of them are needed.
_MANY = 5
# Calls that failed say nothing and may be left out; more silence than this may have a reason.
_MOSTLY = 0.98
# Draws rarer than this would weigh a single request too much.
_RAREST = 0.01


def can_certify(dataset: Dataset, allowed_loss: float, confidence: float) -> bool:
    """Return whether rows could prove anything, whatever their outcomes are; these are not looked at."""
    known, needed = int(dataset.complete.sum()), units_needed(allowed_loss, confidence, test="betting")
    return known >= needed or (known >= _MIN_AUDITS and len(dataset) >= _MANY * needed)


def known_outcomes(scored: Scored, best: int) -> Outcomes:
    """Return what every tier did on the rows where all of them are known, whatever it was; costs are real ones.

    Args:
        scored: Rows with their scores; expected costs stand in where the log knows none.
        best: Column of the reference tier, chosen on other data.
    """
    rows = np.flatnonzero(scored.dataset.complete)
    cost = scored.dataset.cost_usd[rows]
    return Outcomes(scored.dataset.quality[rows], np.where(np.isnan(cost), scored.cost_usd[rows], cost), best=best)


def partial_log(scored: Scored, policy: PolicySpec) -> tuple[PartialLog, Ints] | None:
    """Return a log of few audits among chains or draws as a certificate can use all of it, and the rows it is about.

    The audit share is the observed one: audits are drawn whatever the request is, so each row is one with that chance.

    Args:
        scored: The log, scored by models that have not seen it.
        policy: Names the reference tier. Plans depend on answers, so a policy of plans needs the cheapest tier's answer
            to every request.

    Returns:
        None where fully known rows are all there is, or are the better evidence: too few audits, too few other rows,
        first tiers drawn with unknown or tiny probabilities, or answers that are judged for a reason.
    """
    data = scored.dataset
    audited = data.complete
    live = (data.action >= 0) & ~audited & ~np.isnan(data.propensity).any(axis=1)
    if audited.sum() < _MIN_AUDITS or live.sum() <= audited.sum():
        return None
    chain = bool(data.escalated[live].any())
    usable, bar = _chain(data, live) if chain else (_drawn(data, live), 1.0)
    if usable is None or usable.sum() < _MOSTLY * live.sum():
        return None
    first = np.where(np.isnan(data.propensity), 0.0, data.propensity)
    if chain:
        starts = first[usable, 0]
        if float(np.ptp(starts)) > 1e-9 or starts[0] <= _RAREST:
            return None
        first[audited, 0] = starts[0]
    elif float(first[usable].min()) < _RAREST:
        return None
    if policy.plans is not None and not (chain and len(data.tiers) == 2 and _answers_known(scored, usable, first)):
        return None
    rows = np.flatnonzero(audited | usable)
    reveals: Reveals = "chain" if chain else "draw"
    log = PartialLog(
        quality=data.quality[rows],
        predicted=scored.adequacy[rows],
        audited=audited[rows],
        audit_share=float(audited[rows].mean()),
        first=first[rows],
        tried=np.where(audited, -1, data.action)[rows],
        reveals=reveals,
        best=data.tiers.index(policy.best_tier),
        bar=bar,
    )
    return log, rows


def _answers_known(scored: Scored, usable: Mask, first: NDArray[np.float64]) -> bool:
    if scored.posterior is None or float(first[usable, 0].min()) < 1.0:
        return False
    rows = usable | scored.dataset.complete
    return not bool(np.isnan(scored.posterior[rows, 0]).any())


def _drawn(data: Dataset, live: Mask) -> Mask:
    """Return live rows whose first answer was judged."""
    rows = np.arange(len(data))
    judged: Mask = live & ~np.isnan(data.quality[rows, np.maximum(data.action, 0)])
    return judged


def _chain(data: Dataset, live: Mask) -> tuple[Mask | None, float]:
    """Return live rows that show a whole chain from where they began, and the quality at which chains stop.

    None where chains do not stop by the outcomes alone: they were judged by something else than what is known now.
    """
    k = len(data.tiers)
    stopped, refused, good = [1.0], [0.0], live.copy()
    for t in range(k - 1):
        here = live & (data.action == 0) if t == 0 else live & data.escalated[:, t]
        here = here & ~np.isnan(data.quality[:, t])
        goes_on = here & data.escalated[:, t + 1]
        stopped.append(float(data.quality[here & ~goes_on, t].min(initial=1.0)))
        refused.append(float(data.quality[goes_on, t].max(initial=0.0)))
        good &= ~(goes_on & np.isnan(data.quality[:, t + 1]))
    bar = min(stopped)
    if max(refused) >= bar:
        return None, bar
    good &= (data.action != 0) | ~np.isnan(data.quality[:, 0])
    return good, bar
