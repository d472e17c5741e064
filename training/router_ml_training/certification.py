"""A policy's certificate from a log: what is tested on which rows, and what is measured beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.random import Generator

from router_ml.errors import DataError
from router_ml.manifest import FrontierPoint, PolicySpec
from router_ml_training.certification_evidence import believed, known_outcomes, labels_settled, partial_log
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

# The share of rows on which an answer that a policy would judge may be unknown: calls fail, and texts get lost.
_UNJUDGED = 0.02


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
    n_rows = len(scored.dataset)
    if policy.plans is not None and scored.posterior is not None:
        # Which answers of a long log were looked at is chance, so the rest can be left out.
        scored = scored.rows(np.flatnonzero(scored.read))
    data = scored.dataset
    best = data.tiers.index(policy.best_tier)
    partial = partial_log(scored, policy) if terms.test == "betting" else ""
    known = tested = np.flatnonzero(believed(data))
    if not isinstance(partial, str):
        tested = partial[1]
        known = tested[partial[0].audited]
    points, taken, notes = _replayed(scored, policy, tested)
    found, reason = None, None
    try:
        found = _certificate(_Case(scored, points, taken, best, known), partial, date, rng, terms)
    except DataError as error:
        reason = "; ".join((str(error), *notes))
    beside: Beside | None = None
    slices: tuple[SliceResult, ...] = ()
    if len(known) > 1:
        outcomes = known_outcomes(scored, best, known)
        walked = [] if found is None else [one.rows(known) for one in taken[: found.index]]
        beside = _beside(outcomes, walked[-1] if walked else None, rng, terms)
        if walked:
            slices = _slices(scored, known, points, walked, outcomes, rng, terms)
    if isinstance(partial, str) and partial and found is not None:
        notes = (*notes, f"only audits were tested: {partial}")
    return Certification(
        found,
        reason,
        n_rows,
        len(known),
        policy.best_tier,
        beside,
        slices,
        terms.slice_loss,
        labels_settled(data, tested),
        notes,
    )


def uncertified(dataset: Dataset, policy: PolicySpec, terms: Terms) -> Certification:
    """Return the record of a log in which too little is known for any certificate.

    Args:
        dataset: The whole log.
        policy: Names the reference tier.
        terms: What was to be proven.
    """
    known = int(believed(dataset).sum())
    needed = units_needed(terms.allowed_loss, terms.confidence, test=terms.test)
    reason = (
        f"every tier's outcome is known for {known} of {len(dataset)} requests (escalated ones do not count, they are "
        f"the hard ones), and at least {needed} of those set aside must be: run and judge every tier on a random share "
        "of requests, and collect a longer log"
    )
    return Certification(None, reason, 0, known, policy.best_tier, slice_loss=terms.slice_loss)


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """What is tested: scored rows, points of the frontier, what each does on rows under test, and rows fully known."""

    scored: Scored
    points: Sequence[FrontierPoint]
    taken: Sequence[Taken]
    best: int
    known: Ints


def _certificate(
    case: _Case, partial: tuple[PartialLog, Ints] | str, date: datetime, rng: Generator, terms: Terms
) -> Certificate:
    data = case.scored.dataset
    if not case.taken:
        raise DataError("the policy has no frontier that could be tested: no price keeps any share of the quality")
    if not isinstance(partial, str):
        return _from_partial(case, *partial, date, rng, terms)
    needed = units_needed(terms.allowed_loss, terms.confidence, test=terms.test)
    if len(case.known) < needed:
        raise DataError(
            f"the outcome of every tier is known for {len(case.known)} of {len(data)} requests, and at least {needed} "
            f"are needed to certify a loss of {100 * terms.allowed_loss:g} % with {100 * terms.confidence:g} % "
            "confidence (escalated ones do not count, they are the hard ones): run and judge every tier on a random "
            f"share of requests{_doubted(data)}{f'; the others do not help: {partial}' if partial else ''}"
        )
    outcomes = known_outcomes(case.scored, case.best, case.known)
    candidates = [
        _candidate(point.quality, point.shadow_price, one.rows(case.known), outcomes)
        for point, one in zip(case.points, case.taken, strict=True)
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


def _replayed(
    scored: Scored, policy: PolicySpec, rows: Ints
) -> tuple[list[FrontierPoint], list[Taken], tuple[str, ...]]:
    """Return the points of the frontier that can be tested on some rows, what each does there, and what was left out.

    A point that judges answers is another policy where they are not known: what is served would not be what was tested.
    """
    points, taken, unknown = [], [], 0.0
    under_test, everywhere = scored.rows(rows), np.zeros(len(scored.dataset), np.intp)
    for point in policy.frontier:
        missing = 0.0
        if policy.plans is not None and policy.operating(point.quality)[1]:
            missing = float(under_test.unjudged(policy, point.quality).mean()) if len(rows) else 1.0
        if missing > _UNJUDGED:
            unknown = max(unknown, missing)
            continue
        points.append(point)
        done = under_test.taken(policy, point.quality)
        first, last = everywhere.copy(), everywhere.copy()
        first[rows], last[rows] = done.first, done.last
        taken.append(Taken(first, last))
    left = len(policy.frontier) - len(points)
    if not left:
        return points, taken, ()
    said = (
        f"{left} of {len(policy.frontier)} points of the frontier were left out: they judge answers, and on "
        f"{100 * unknown:.0f} % of the rows under test these are not in the log; log responses to test them"
    )
    return points, taken, (said,)


def _doubted(data: Dataset) -> str:
    doubted = int(data.complete.sum() - believed(data).sum())
    if not doubted:
        return ""
    return f"; {doubted} more rest on judges or users whom people or checks have contradicted, and prove nothing"


def _from_partial(
    case: _Case, log: PartialLog, rows: Ints, date: datetime, rng: Generator, terms: Terms
) -> Certificate:
    data = case.scored.dataset
    usd = np.where(np.isnan(data.cost_usd), case.scored.cost_usd, data.cost_usd)[rows]
    candidates = [
        KeptColumn(point.quality, point.shadow_price, one.last[rows], _spent(one.rows(rows), usd))
        for point, one in zip(case.points, case.taken, strict=True)
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
    points: Sequence[FrontierPoint],
    walked: Sequence[Taken],
    outcomes: Outcomes,
    rng: Generator,
    terms: Terms,
) -> tuple[SliceResult, ...]:
    return certify_slices(
        outcomes,
        [
            _candidate(point.quality, point.shadow_price, one, outcomes)
            for point, one in zip(points, walked, strict=False)
        ],
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
