"""A policy's certificate from a log: what is tested on which rows, and what is measured beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.random import Generator

from router_ml.errors import DataError
from router_ml.manifest import PolicySpec
from router_ml_training.certification_evidence import known_outcomes, partial_log
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.baselines import always, oracle_sweep
from router_ml_training.evaluation.bootstrap import DRAWS
from router_ml_training.evaluation.bounds import TestName, check_shares, units_needed
from router_ml_training.evaluation.certificate import Candidate, Certificate, certify
from router_ml_training.evaluation.certificate_partial import KeptColumn, PartialLog, certify_partial
from router_ml_training.evaluation.certificate_record import Beside, Certification
from router_ml_training.evaluation.certificate_slices import SLICE_LOSS, SliceResult, certify_slices
from router_ml_training.evaluation.curves import curve_of
from router_ml_training.evaluation.metrics import cs
from router_ml_training.evaluation.outcomes import Floats, Ints, Outcomes
from router_ml_training.evaluation.strategies import measure, random_mix, vacuity
from router_ml_training.plans import Taken
from router_ml_training.scored import Scored
from router_ml_training.slices import slices_of

__all__ = ["Terms", "certify_policy", "uncertified"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What is to be proven, and how: shares of the best tier's quality that may be lost, confidence, test, draws.

    `slice_loss` may be lost within a slice of the traffic. `test` is for rows with every outcome; partial logs are
    always bet on, and only with `betting`.
    """

    allowed_loss: float = 0.03
    confidence: float = 0.95
    slice_loss: float = SLICE_LOSS
    test: TestName = "betting"
    draws: int = DRAWS


def certify_policy(
    scored: Scored, policy: PolicySpec, *, date: datetime, rng: Generator, terms: Terms | None = None
) -> Certification:
    """Certify the boldest point of a frozen policy's frontier that these rows prove; say why where they prove none.

    Rows on which every tier's outcome is known are tested as they are. Where they are a small audited share of a log
    whose other rows say something too, all rows are tested together (`certificate_partial`). Which of the two it is
    follows from the shape of the log, never from how good the policy looks.

    Args:
        scored: Rows that neither the models nor the policy were made from.
        policy: Its frontier is walked from safe to bold; its best tier is the reference.
        date: When this is.
        rng: Draws the order of the bets, and bootstrap samples.
        terms: What is to be proven; None: a loss of at most 3 % with 95 % confidence.

    Raises:
        UsageError: When a share is out of range.
    """
    terms = terms or Terms()
    check_shares(terms.allowed_loss, terms.confidence)
    check_shares(terms.slice_loss, terms.confidence)
    data = scored.dataset
    best = data.tiers.index(policy.best_tier)
    known = np.flatnonzero(data.complete)
    taken = [scored.taken(policy, point.quality) for point in policy.frontier]
    found, reason = None, None
    try:
        found = _certificate(_Case(scored, policy, taken, best, known), date, rng, terms)
    except DataError as error:
        reason = str(error)
    beside: Beside | None = None
    slices: tuple[SliceResult, ...] = ()
    if len(known) > 1:
        outcomes = known_outcomes(scored, best)
        chosen = None if found is None or found.index == 0 else taken[found.index - 1].rows(known)
        beside = _beside(outcomes, chosen, rng, terms)
        if found is not None and chosen is not None:
            slices = _slices(scored, known, found, chosen, outcomes, rng, terms)
    return Certification(found, reason, len(data), len(known), policy.best_tier, beside, slices, terms.slice_loss)


def uncertified(dataset: Dataset, policy: PolicySpec, terms: Terms) -> Certification:
    """Return the record of a log in which too little is known for any certificate.

    Args:
        dataset: The whole log.
        policy: Names the reference tier.
        terms: What was to be proven.
    """
    known = int(dataset.complete.sum())
    needed = units_needed(terms.allowed_loss, terms.confidence, test=terms.test)
    reason = (
        f"every tier's outcome is known for {known} of {len(dataset)} requests (escalated ones do not count, they are "
        f"the hard ones), and at least {needed} of those set aside must be: run and judge every tier on a random share "
        "of requests, and collect a longer log"
    )
    return Certification(None, reason, 0, known, policy.best_tier, slice_loss=terms.slice_loss)


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """What is tested: rows with their scores, the policy, what it does at each point, and the rows fully known."""

    scored: Scored
    policy: PolicySpec
    taken: Sequence[Taken]
    best: int
    known: Ints


def _certificate(case: _Case, date: datetime, rng: Generator, terms: Terms) -> Certificate:
    data = case.scored.dataset
    if not case.taken:
        raise DataError("the policy has no frontier: no price was found that keeps any share of the quality")
    partial = partial_log(case.scored, case.policy) if terms.test == "betting" else None
    if partial is not None:
        return _from_partial(case, *partial, date, rng, terms)
    needed = units_needed(terms.allowed_loss, terms.confidence, test=terms.test)
    if len(case.known) < needed:
        raise DataError(
            f"the outcome of every tier is known for {len(case.known)} of {len(data)} requests, and at least {needed} "
            f"are needed to certify a loss of {100 * terms.allowed_loss:g} % with {100 * terms.confidence:g} % "
            "confidence (escalated ones do not count, they are the hard ones): run and judge every tier on a random "
            "share of requests"
        )
    outcomes = known_outcomes(case.scored, case.best)
    candidates = [
        _candidate(point.quality, point.shadow_price, one.rows(case.known), outcomes)
        for point, one in zip(case.policy.frontier, case.taken, strict=True)
    ]
    return certify(
        outcomes,
        candidates,
        tiers=data.tiers,
        date=date,
        rng=rng,
        allowed_loss=terms.allowed_loss,
        confidence=terms.confidence,
        test=terms.test,
        groups=data.group[case.known],
        draws=terms.draws,
    )


def _from_partial(
    case: _Case, log: PartialLog, rows: Ints, date: datetime, rng: Generator, terms: Terms
) -> Certificate:
    data = case.scored.dataset
    usd = np.where(np.isnan(data.cost_usd), case.scored.cost_usd, data.cost_usd)[rows]
    candidates = [
        KeptColumn(point.quality, point.shadow_price, one.last[rows], _spent(one.rows(rows), usd))
        for point, one in zip(case.policy.frontier, case.taken, strict=True)
    ]
    return certify_partial(
        log,
        candidates,
        best_cost=usd[:, case.best],
        tiers=data.tiers,
        date=date,
        rng=rng,
        allowed_loss=terms.allowed_loss,
        confidence=terms.confidence,
        groups=data.group[rows],
        draws=terms.draws,
    )


def _candidate(quality: float, price: float, taken: Taken, outcomes: Outcomes) -> Candidate:
    return Candidate(quality, price, taken.quality(outcomes), taken.cost(outcomes))


def _spent(taken: Taken, usd: Floats) -> Floats:
    everyone = np.arange(len(usd))
    spent: Floats = usd[everyone, taken.first] + np.where(taken.escalated, usd[everyone, taken.last], 0.0)
    return spent


def _slices(
    scored: Scored,
    known: Ints,
    found: Certificate,
    chosen: Taken,
    outcomes: Outcomes,
    rng: Generator,
    terms: Terms,
) -> tuple[SliceResult, ...]:
    return certify_slices(
        outcomes,
        _candidate(found.point.quality, found.point.shadow_price or 0.0, chosen, outcomes),
        slices_of(scored.dataset.rows(known)),
        rng=rng,
        allowed_loss=terms.slice_loss,
        confidence=terms.confidence,
        groups=scored.dataset.group[known],
    )


def _beside(outcomes: Outcomes, chosen: Taken | None, rng: Generator, terms: Terms) -> Beside:
    quality, cost, best = outcomes.quality.mean(axis=0), outcomes.cost.mean(axis=0), outcomes.best_tier
    kept = 1.0 - terms.allowed_loss
    taken = chosen or Taken(always(best, outcomes), always(best, outcomes))
    router = measure(
        "router", quality=taken.quality(outcomes), cost=taken.cost(outcomes), column=taken.last, outcomes=outcomes
    )
    return Beside(
        gap=float(1.0 - quality[0] / quality[best]) if quality[best] > 0 else None,
        cost_ratio=float(cost[0] / cost[best]) if cost[best] > 0 else None,
        mix_kept=random_mix(outcomes, router.cost_usd).quality_kept.value,
        oracle_saving=cs(curve_of(oracle_sweep(outcomes, rng=rng), outcomes), kept).value,
        vacuous=vacuity(outcomes, router, kept) if chosen is not None else None,
    )
