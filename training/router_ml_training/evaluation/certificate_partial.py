"""Certificates from logs in which few requests were run on every tier: chains or draws, rectified by audits.

Certified is the mean of Z = (1 - allowed loss) best quality - quality of the policy. An audited request, drawn with a
known probability, shows Z. For the others a prediction stands in, and what is found wrong with it is added back,
weighted by one over the probability of finding it: every request gives an estimate of Z that is right on average,
however bad the prediction. A good one makes it narrow, and a chain often shows Z itself: where the cheap answer failed,
the dear one was run. Bets on these estimates are valid whenever one stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from router_ml.errors import DataError
from router_ml_training.evaluation.bootstrap import DRAWS
from router_ml_training.evaluation.bounds import betting_e_value, check_shares, least_share_kept
from router_ml_training.evaluation.certificate import Certificate, Step, Units, fixed_sequence, saving_figure
from router_ml_training.evaluation.outcomes import Floats, Ints

__all__ = ["KeptColumn", "PartialLog", "Reveals", "certify_partial", "rectified"]

Reveals: TypeAlias = Literal["chain", "draw"]
Mask: TypeAlias = NDArray[np.bool_]

# A prediction of the best tier's quality below this would make the worst case worse, and bets smaller.
_LEAST_BEST = 0.8
# The model's mean error is learned from audits already seen; this many rows without error are believed beforehand.
_PRIOR_ROWS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class PartialLog:
    """What is known about n requests on K tiers, and with what probability it came to be known.

    Args:
        quality: Known outcomes in [0, 1], NaN where unknown, (n, K).
        predicted: A model's expectation of them, fitted on other rows, (n, K).
        audited: Requests on which every tier was run and judged, drawn whatever they ask, (n,).
        audit_share: Probability of that draw; each request is one row, audited or not.
        first: Probability of each tier to be tried first where there is no audit, (n, K). With "draw", that of audited
            rows does not matter.
        tried: The tier tried first, (n,); anything in audited rows.
        reveals: What else shows outcomes: "chain", tiers are tried upwards from the cheapest until an answer reaches
            `bar`, and each answer is judged; "draw", the tier tried first is judged.
        best: Column of the reference tier, chosen on other data.
        bar: Quality from which a chain stops.

    Raises:
        DataError: When shapes differ, nothing was audited, or a number is no probability or no quality.
    """

    quality: Floats
    predicted: Floats
    audited: Mask
    audit_share: float
    first: Floats
    tried: Ints
    reveals: Reveals
    best: int
    bar: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no estimate can be made from."""
        n, k = self.quality.shape
        if self.predicted.shape != (n, k) or self.first.shape != (n, k):
            raise DataError(f"quality, predictions and propensities must have one shape, {(n, k)}")
        if self.audited.shape != (n,) or self.tried.shape != (n,):
            raise DataError(f"audits and tiers tried must have shape ({n},), like the requests")
        if not self.audited.any() or not 0.0 < self.audit_share <= 1.0:
            raise DataError("a certificate needs audits: run and judge every tier on a random share of requests")
        known = self.quality[~np.isnan(self.quality)]
        if known.size and (known.min() < 0.0 or known.max() > 1.0):
            raise DataError("a certificate needs quality in [0, 1]: without bounds nothing is certain about a mean")

    @property
    def n(self) -> int:
        """How many requests."""
        return len(self.quality)

    @property
    def arm(self) -> Ints:
        """How Z is estimated for each request, (n,): 0 in one way for all, or by an audit; 1 from a draw."""
        # With chains an estimate is right on average over audited and other requests together, not in either alone.
        return (~self.audited & (self.reveals == "draw")).astype(np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class KeptColumn:
    """A policy to test: its name on the frontier, whose answer it keeps (n,), and its expected USD per request (n,)."""

    quality: float
    shadow_price: float
    kept: Ints
    cost: Floats


def certify_partial(
    log: PartialLog,
    candidates: Sequence[KeptColumn],
    *,
    best_cost: Floats,
    tiers: Sequence[str],
    date: datetime,
    rng: Generator,
    allowed_loss: float = 0.03,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
    draws: int = DRAWS,
) -> Certificate:
    """Walk from always the best tier to the boldest candidate; stop at the first that is not proven to lose little.

    Loss and saving of the steps are estimates; costs of tiers that were not tried are expected ones.

    Args:
        log: What is known, and how it came to be.
        candidates: Policies from safe to bold, chosen on other data.
        best_cost: Expected USD of the best tier, (n,).
        tiers: Names of the K columns.
        date: When this is.
        rng: Draws the order of the bets and the bootstrap samples.
        allowed_loss: Share of the best tier's quality that may be lost.
        confidence: Probability with which no policy that loses more is certified.
        groups: Session or prompt of each request, (n,); None: every request is a unit.
        draws: Bootstrap draws for the interval of the saving.

    Raises:
        UsageError: When a share is out of range.

    Source: control variates after Angelopoulos et al., Prediction-powered inference, arXiv 2301.09633, with the bets of
    Waudby-Smith and Ramdas, arXiv 2010.09686.
    """
    check_shares(allowed_loss, confidence)
    units = Units.of(log.n, groups, rng)
    level, kept = 1.0 - confidence, 1.0 - allowed_loss
    # A unit with a row of a wide arm is as wide as that row.
    arm = (units.means(log.arm.astype(np.float64)) > 0.0).astype(np.intp)[units.order]
    estimates = [rectified(log, one.kept, allowed_loss=allowed_loss, order=_row_order(units)) for one in candidates]
    reference = float(units.means(rectified(log, None, allowed_loss=0.0, order=_row_order(units))[0]).mean())

    def bet(i: int) -> tuple[float, float | None]:
        values, largest = estimates[i]
        wealth = betting_e_value(
            units.means(values)[units.order], allowed_loss=allowed_loss, confidence=confidence, arm=arm, largest=largest
        )
        return 1.0 / wealth, wealth

    tested = fixed_sequence([lambda i=i: bet(i) for i in range(len(candidates))], level)  # type: ignore[misc]
    bill = float(best_cost.sum())
    steps = [Step(1.0, None, 0.0, 0.0, certified=True)]
    for one, (values, _), (certified, p, wealth) in zip(candidates, estimates, tested, strict=True):
        worth = kept * reference - float(units.means(values).mean())
        loss = 1.0 - worth / reference if reference > 0 else 0.0
        saving = 1.0 - float(one.cost.sum()) / bill if bill > 0 else 0.0
        steps.append(Step(one.quality, one.shadow_price, loss, saving, certified, p, wealth))
    index = max(i for i, step in enumerate(steps) if step.certified)
    spent = candidates[index - 1].cost if index else best_cost
    return Certificate(
        date=date,
        confidence=confidence,
        allowed_loss=allowed_loss,
        test="betting",
        n_rows=log.n,
        n_units=units.n,
        best_tier=tiers[log.best],
        steps=tuple(steps),
        index=index,
        saving=saving_figure(best_cost, spent, groups, rng, confidence, draws),
        least_kept=least_share_kept(_unavoidable(log), allowed_loss),
        evidence="chains and audits",
    )


def rectified(
    log: PartialLog, kept: Ints | None, *, allowed_loss: float, order: Ints | None = None
) -> tuple[Floats, tuple[float, ...]]:
    """Estimate Z = (1 - allowed loss) best quality - quality of the policy for each request, without bias.

    Args:
        log: What is known, and how it came to be.
        kept: Whose answer the policy keeps, (n,); None: estimate the best quality alone (allowed loss 0).
        allowed_loss: Share of the best tier's quality that may be lost.
        order: Rows in the order of the bets, (n,): the model's error is learned from rows earlier in it only.

    Returns:
        The estimates, (n,), and what none of each arm can exceed.
    """
    weights = np.zeros(log.quality.shape)
    weights[:, log.best] = 1.0 - allowed_loss
    if kept is not None:
        weights[np.arange(log.n), kept] -= 1.0
    # An outcome that should have been seen and was not is taken at its worst.
    truth = np.where(np.isnan(log.quality), weights > 0, log.quality)
    order = np.arange(log.n) if order is None else order
    if log.reveals == "chain":
        return _from_chains(log, weights, truth, order), (_largest_of_chains(log, 1.0 - allowed_loss),)
    return _from_draws(log, weights, truth, order)


def _from_draws(log: PartialLog, weights: Floats, truth: Floats, order: Ints) -> tuple[Floats, tuple[float, ...]]:
    # An audited row needs no weight: it is as good a sample of all requests as any other.
    live = ~log.audited
    drawn = live[:, None] & (log.tried[:, None] == np.arange(truth.shape[1]))
    chance = np.where(drawn, log.first, 1.0)
    guess = np.stack([_corrected(log, t, drawn[:, t], truth, order) for t in range(truth.shape[1])], axis=1)
    estimate = (weights * (guess + np.where(drawn, (truth - guess) / chance, 0.0))).sum(axis=1)
    found = np.where(live, estimate, (weights * truth).sum(axis=1))
    rarest = float(log.first[live].min()) if live.any() else 1.0
    wide = _LEAST_BEST + (1.0 - _LEAST_BEST) / rarest + (1.0 / rarest - 1.0)
    return found, (1.0, wide)


def _from_chains(log: PartialLog, weights: Floats, truth: Floats, order: Ints) -> Floats:
    k = truth.shape[1]
    started = log.audited | (log.tried == 0)
    enters = _enters(log)
    # Where the chain stops: at the first answer that reaches the bar, or at the last tier.
    good = np.nan_to_num(log.quality, nan=-1.0) >= log.bar
    stop = np.where(good.any(axis=1), good.argmax(axis=1), k - 1)
    before, after = np.empty(truth.shape), truth.copy()
    for t in range(k):
        before[:, t] = _corrected(log, t, log.audited, truth, order)
        for s in range(t):
            rows = started & (stop == s)
            after[rows, t] = _corrected(log, t, log.audited & rows, truth, order)[rows]
    prior, shown, full = ((weights * one).sum(axis=1) for one in (before, after, truth))
    unseen = np.where(log.audited, (full - shown) / log.audit_share, 0.0)
    found: Floats = prior + np.where(started, (shown - prior) / enters + unseen, 0.0)
    return found


def _enters(log: PartialLog) -> Floats:
    """Return the probability that the cheapest tier's answer is known, (n,)."""
    return log.audit_share + (1.0 - log.audit_share) * log.first[:, 0]


def _largest_of_chains(log: PartialLog, kept: float) -> float:
    """Return what no estimate from chains can exceed, whatever the outcomes: `kept` is 1 - allowed loss."""
    enters = float(_enters(log).min())
    shown = kept / enters
    hidden = max(kept - log.bar, 0.0) / enters + kept * (1.0 - _LEAST_BEST) / log.audit_share
    # Beyond where a chain stopped may lie another tier that the policy keeps.
    if log.quality.shape[1] > 2 or log.best == 0:
        return 1.0 / enters - 1.0 + shown + hidden + 1.0 / log.audit_share
    # Of two tiers, either both are shown, or the small one is good: what it gives is then lost for certain.
    return 1.0 / enters - 1.0 + max(shown, hidden, (1.0 - kept) / log.audit_share)


def _corrected(log: PartialLog, tier: int, seen: Mask, truth: Floats, order: Ints) -> Floats:
    """Return the predictions of one tier, moved by the model's mean error on rows seen earlier, (n,)."""
    error = np.where(seen, truth[:, tier] - log.predicted[:, tier], 0.0)[order]
    count = seen[order].astype(np.float64)
    moved = np.empty(log.n)
    moved[order] = (np.cumsum(error) - error) / (np.cumsum(count) - count + _PRIOR_ROWS)
    low = _LEAST_BEST if tier == log.best else 0.0
    found: Floats = np.clip(log.predicted[:, tier] + moved, low, 1.0)
    return found


def _row_order(units: Units) -> Ints:
    place = np.empty(units.n, dtype=np.intp)
    place[units.order] = np.arange(units.n)
    order: Ints = np.argsort(place[units.member], kind="stable")
    return order


def _unavoidable(log: PartialLog) -> float:
    """Share of the best tier's quality that is lost when every request goes to its best other tier, by the audits."""
    rows = log.audited & ~np.isnan(log.quality).any(axis=1)
    best = log.quality[rows, log.best]
    others = np.delete(log.quality[rows], log.best, axis=1).max(axis=1, initial=0.0)
    total = float(best.sum())
    return float(np.maximum(best - others, 0.0).sum()) / total if total > 0 else 0.0
