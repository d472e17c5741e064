"""Which rows of a log can certify, and with what probability each outcome came to be known."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.manifest import PolicySpec
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.bounds import units_needed
from router_ml_training.evaluation.certificate_partial import PartialLog, Reveals
from router_ml_training.evaluation.outcomes import Ints, Outcomes
from router_ml_training.scored import Scored

__all__ = ["believed", "can_certify", "known_outcomes", "labels_settled", "partial_log"]

Mask: TypeAlias = NDArray[np.bool_]

# Fewer audits than this cannot correct a prediction.
_MIN_AUDITS = 30
# Chains say less than audits: so many times more of them are needed.
_MANY = 5
# Calls that failed say nothing and may be left out; more silence than this may have a reason.
_MOSTLY = 0.98
# Standard errors by which the observed share of audits may differ from the one that was logged.
_ERRORS = 4.0
# Draws rarer than this would weigh a single request too much.
_RAREST = 0.01


def can_certify(dataset: Dataset, allowed_loss: float, confidence: float) -> bool:
    """Return whether rows could prove anything, whatever their outcomes are; these are not looked at."""
    known, needed = int(believed(dataset).sum()), units_needed(allowed_loss, confidence, test="betting")
    return known >= needed or (known >= _MIN_AUDITS and len(dataset) >= _MANY * needed)


def believed(dataset: Dataset) -> Mask:
    """Return the rows, (n,), on which every tier's outcome is known, whatever it was, from sources that are believed.

    A source that people or checks have contradicted is evidence to learn from; a certificate would take it for truth.
    """
    return np.asarray(dataset.complete & np.isnan(dataset.soft).all(axis=1), np.bool_)


def labels_settled(dataset: Dataset, rows: Ints) -> float | None:
    """Return which share of the outcomes that are known on those rows people or checks gave; None where none is known.

    The rest are the word of users, judges or rules that nobody has compared with them.
    """
    known = ~np.isnan(_trusted(dataset).quality[rows])
    return float(dataset.settled[rows][known].mean()) if known.any() else None


def known_outcomes(scored: Scored, best: int, rows: Ints | None = None) -> Outcomes:
    """Return what every tier did on the rows where all of them are known, whatever it was; costs are real ones.

    Args:
        scored: Rows with their scores; expected costs stand in where the log knows none.
        best: Column of the reference tier, chosen on other data.
        rows: Some of these rows; None: all of them.
    """
    rows = np.flatnonzero(believed(scored.dataset)) if rows is None else rows
    cost = scored.dataset.cost_usd[rows]
    return Outcomes(scored.dataset.quality[rows], np.where(np.isnan(cost), scored.cost_usd[rows], cost), best=best)


def partial_log(scored: Scored, policy: PolicySpec) -> tuple[PartialLog, Ints] | str:
    """Return a log of few audits among chains or draws as a certificate can use all of it, and the rows it is about.

    A request that was audited beside its answer is one row, the audit. The audit share is the one that was logged, less
    audits that failed; where none was logged, or the log was sampled otherwise, it is the observed one: audits are
    drawn whatever the request is, so each row is one with that chance.

    Args:
        scored: The log, scored by models that have not seen it.
        policy: Names the reference tier. Plans depend on answers, so a policy of plans needs the cheapest tier's answer
            to every request.

    Returns:
        Why fully known rows are the better evidence, empty where they are all there is: too few audits, first tiers
        drawn with unknown or tiny probabilities, or answers that are judged for a reason.
    """
    data = _trusted(scored.dataset)
    audited, live, share = _requests(data)
    if live.sum() <= audited.sum():
        return ""
    if audited.sum() < _MIN_AUDITS:
        return f"{audited.sum()} of the requests are audited, and at least {_MIN_AUDITS} must be"
    chain = bool(data.escalated[live].any())
    usable, bar = _chain(data, live) if chain else (_drawn(data, live), 1.0)
    if usable.sum() < _MOSTLY * live.sum():
        return f"{live.sum() - usable.sum()} of {live.sum()} live requests {_LACKING[chain]}"
    first = np.where(np.isnan(data.propensity), 0.0, data.propensity)
    if chain:
        starts = first[usable, 0]
        if float(np.ptp(starts)) > 1e-9 or starts[0] <= _RAREST:
            return "the chance of beginning with the cheapest tier differs from request to request, or is tiny"
        first[audited, 0] = starts[0]
    elif float(first[usable].min()) < _RAREST:
        return f"some tier is tried first with a probability below {_RAREST:g}"
    if policy.plans is not None and not (chain and len(data.tiers) == 2 and _answers_known(scored, usable, first)):
        return "the policy judges answers, and it is not known what it would have thought of all of them"
    rows = np.flatnonzero(audited | usable)
    reveals: Reveals = "chain" if chain else "draw"
    log = PartialLog(
        quality=data.quality[rows],
        predicted=scored.adequacy[rows],
        audited=audited[rows],
        audit_share=float(audited[rows].mean()) if share is None else share,
        first=first[rows],
        tried=np.where(audited, -1, data.action)[rows],
        reveals=reveals,
        best=data.tiers.index(policy.best_tier),
        bar=bar,
    )
    return log, rows


# What live rows lack that a certificate cannot use, by whether they are chains.
_LACKING = {
    True: "do not show a whole chain: an answer was not judged by those who are believed, the next call failed, or "
    "the chain stopped by another judge than theirs",
    False: "have a first answer that nobody judged who is believed",
}


def _trusted(data: Dataset) -> Dataset:
    """Return the rows without outcomes from sources that were found to err."""
    return replace(data, quality=np.where(np.isnan(data.soft), data.quality, np.nan))


def _requests(data: Dataset) -> tuple[Mask, Mask, float | None]:
    """Return audited requests, other live ones, and the probability of an audit, None where the log does not tell it.

    An audit beside an answer stands for its request, and only where that answer is in the log: beside others, nothing
    was drawn. Where it failed, the answer stands for the request.
    """
    audited = data.complete
    live = (data.action >= 0) & ~audited & ~np.isnan(data.propensity).any(axis=1)
    told = data.beside != 0
    in_log = np.isin(data.beside, data.key[live])
    audited = audited & (~told | in_log)
    drawn = told & in_log
    live &= ~np.isin(data.key, data.beside[audited & told])
    shares, n = data.share[drawn], int(audited.sum() + live.sum())
    if not audited.any() or not told[audited].all() or np.isnan(shares).any() or float(np.ptp(shares)) > 1e-9:
        return audited, live, None
    # Audits that failed, or that nobody judged, are taken to be a random part of them.
    share, observed = float(shares[0]) * float(audited.sum() / drawn.sum()), float(audited.sum()) / n
    error = float(np.sqrt(share * (1.0 - share) / n))
    return audited, live, share if abs(observed - share) <= _ERRORS * error else None


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


def _chain(data: Dataset, live: Mask) -> tuple[Mask, float]:
    """Return live rows that show a whole chain from where they began, and the quality at which chains stop.

    A chain that stopped at an answer no better than one that others went on from is not whole: the next call failed, or
    somebody else than those whose word is known now judged it.
    """
    k = len(data.tiers)
    here = [live & ((data.action == 0) if t == 0 else data.escalated[:, t]) for t in range(k - 1)]
    goes_on = [here[t] & data.escalated[:, t + 1] for t in range(k - 1)]
    refused = max(float(np.nanmax(data.quality[goes_on[t], t], initial=0.0)) for t in range(k - 1))
    stopped, good = [1.0], live & ((data.action != 0) | ~np.isnan(data.quality[:, 0]))
    for t in range(k - 1):
        stops = here[t] & ~goes_on[t] & ~np.isnan(data.quality[:, t])
        whole = data.quality[:, t] > refused
        stopped.append(float(data.quality[stops & whole, t].min(initial=1.0)))
        good &= ~(stops & ~whole) & ~(goes_on[t] & np.isnan(data.quality[:, t : t + 2]).any(axis=1))
        good &= ~(here[t] & np.isnan(data.quality[:, t]))
    return good, min(stopped)
