"""Attempts and feedback -> what is known about each tier's adequacy for one request.

Untried is unknown. An infrastructure error is no evidence. A rule that finds nothing wrong proves nothing. A verifier's
verdict is the router's own opinion, and who asks again only seems to be dissatisfied: both are kept as opinions and are
never an outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.schema import DECIDED_TIER, Feedback, Interaction, Verdict, VerdictSource
from router_ml_training.reliability import HINTS, NOISY_SOURCES, SILENT

__all__ = ["Evidence", "evidence_of", "thin_retries", "thin_rule_refusals"]

F64: TypeAlias = NDArray[np.float64]

# Who is believed when sources disagree: a higher rank overrules a lower one, later words overrule earlier ones.
_RANK: dict[VerdictSource, int] = {"rule": 0, "user": 1, "judge": 2, "check": 3, "human": 3}
_SETTLES = _RANK["check"]
# These only ever refuse: what they let pass is merely not obviously bad.
_ONE_SIDED: frozenset[VerdictSource] = frozenset({"rule", "retry"})
_RETRY = NOISY_SOURCES.index("retry")
# From here on a graded opinion counts as "good", as everywhere an outcome is taken for a yes or a no.
_GOOD = 0.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one interaction says, per tier of the ladder (K tiers).

    `quality` (K,) in [0, 1], NaN where unknown. `escalated` (K,) is true where the tier ran *because* a cheaper one
    was judged inadequate, so that its outcome is known only for requests that are hard for the cheaper one.
    `answered` (K,) are the tiers that answered, `rule_only` (K,) those whose failure a rule alone has found, `settled`
    (K,) those whose outcome comes from a person or a check. `opinions` (K, 5) int8 is what each of the other sources
    said, 1 good, 0 bad, -1 nothing. `cost_usd` and `output_tokens` (K,) are NaN for tiers that did not answer.
    """

    quality: F64
    escalated: NDArray[np.bool_]
    answered: NDArray[np.bool_]
    rule_only: NDArray[np.bool_]
    cost_usd: F64
    output_tokens: F64
    settled: NDArray[np.bool_]
    opinions: NDArray[np.int8]


def evidence_of(interaction: Interaction, tiers: Sequence[str]) -> Evidence:
    """Reduce one interaction to evidence about the tiers named, cheapest first; other tiers are left out."""
    evidence = _nothing_known(len(tiers))
    position = {name: i for i, name in enumerate(tiers)}
    refused = False
    last = _last_answer(interaction)
    feedback = sorted(interaction.feedback, key=_when)
    for attempt in interaction.attempts:
        i = position.get(attempt.tier)
        if attempt.error is not None or i is None:
            continue
        later = [item for item in feedback if (item.tier or last) == attempt.tier]
        rank = _judge(evidence, i, (*attempt.verdicts, *later))
        evidence.answered[i] = True
        evidence.rule_only[i] = rank == _RANK["rule"]
        evidence.escalated[i] = refused and interaction.mode == "live"
        evidence.cost_usd[i] = np.nan if attempt.cost_usd is None else attempt.cost_usd
        evidence.output_tokens[i] = np.nan if attempt.output_tokens is None else attempt.output_tokens
        refused = refused or any(verdict.adequate is False for verdict in attempt.verdicts)
    if not interaction.attempts:
        _from_feedback_alone(evidence, feedback, position, last)
    return evidence


def _from_feedback_alone(
    evidence: Evidence, feedback: Sequence[Feedback], position: Mapping[str, int], decided: str | None
) -> None:
    # The caller asked for the decision only and fetched the answer itself; what it says afterwards still counts.
    for name, i in position.items():
        _judge(evidence, i, [item for item in feedback if (item.tier or decided) == name])


def _when(feedback: Feedback) -> datetime:
    # Logs of other writers need not be in order; a time without a zone is in UTC, as everywhere in the log.
    return feedback.ts if feedback.ts.tzinfo else feedback.ts.replace(tzinfo=UTC)


def _last_answer(interaction: Interaction) -> str | None:
    # The answer the user saw: feedback that names no tier is about this one.
    answered = (attempt.tier for attempt in reversed(interaction.attempts) if attempt.error is None)
    decided = interaction.tags.get(DECIDED_TIER)
    return next(answered, decided if isinstance(decided, str) else None)


def thin_rule_refusals(
    quality: F64, answered: NDArray[np.bool_], rule_only: NDArray[np.bool_], stratum: NDArray[np.int64], draw: F64
) -> F64:
    """Make failures that only a rule has found as rare among the labels as successes are.

    A rule judges every answer, and only ever against it; people judge a few. Left alone, every failure a rule can see
    would be a label and most successes would not, and the tier would look far worse than it is. So of the answers of
    each stratum and tier that no rule refused, the share that somebody judged is taken, and only that share of the
    rule's refusals is kept. With every answer judged nothing changes; with none, refusals say nothing.

    Args:
        quality: Known outcomes (n, K), NaN where unknown.
        answered: Whether the tier answered (n, K).
        rule_only: Whether the outcome is known from a rule alone (n, K).
        stratum: Rows logged under one policy share a number (n,).
        draw: One number in [0, 1) per cell (n, K), the same for the same request in every run.

    Returns:
        The outcomes that are left, (n, K).
    """
    share = _judged_share(answered & ~rule_only, ~np.isnan(quality), stratum, where_none=1.0)
    return np.where(rule_only & (draw >= share), np.nan, quality)


def thin_retries(
    opinions: NDArray[np.int8],
    known: NDArray[np.bool_],
    answered: NDArray[np.bool_],
    stratum: NDArray[np.int64],
    draw: F64,
) -> NDArray[np.int8]:
    """Make retries as rare among the evidence as judgements of the other answers are.

    Who is content does not ask again, and silence is no evidence. If every retry were, a likelihood of nothing but
    complaints would push the tier down until all of its answers were bad, however weak each of them is.

    Args:
        opinions: As in `Evidence`, (n, K, 5).
        known: Whether somebody judged the answer who is believed (n, K).
        answered: Whether the tier answered (n, K).
        stratum: Rows logged under one policy share a number (n,).
        draw: One number in [0, 1) per cell (n, K), the same for the same request in every run.

    Returns:
        The opinions that are left, (n, K, 5).
    """
    retried = opinions[..., _RETRY] != SILENT
    share = _judged_share(answered & ~retried, known, stratum, where_none=0.0)
    kept = opinions.copy()
    kept[..., _RETRY][retried & (draw >= share)] = SILENT
    return kept


def _judged_share(
    others: NDArray[np.bool_], known: NDArray[np.bool_], stratum: NDArray[np.int64], *, where_none: float
) -> F64:
    """Return the share of `others` that are `known`, (n, K), alike within a stratum."""
    share = np.full(others.shape, where_none)
    for number in np.unique(stratum):
        rows = stratum == number
        n = others[rows].sum(axis=0)
        share[rows] = np.where(n > 0, (others & known)[rows].sum(axis=0) / np.maximum(n, 1), where_none)
    return share


def _nothing_known(n: int) -> Evidence:
    def unknown() -> F64:
        return np.full(n, np.nan)

    def no() -> NDArray[np.bool_]:
        return np.zeros(n, np.bool_)

    silence = np.full((n, len(NOISY_SOURCES)), SILENT, np.int8)
    return Evidence(unknown(), no(), no(), no(), unknown(), unknown(), no(), silence)


def _judge(evidence: Evidence, i: int, judgements: Sequence[Verdict | Feedback]) -> int:
    """Note what was said about tier i; return the rank of whose word is its outcome (-1: nobody's)."""
    rank = -1
    for judgement in judgements:
        value = _value(judgement)
        if value is None:
            continue
        if judgement.source in NOISY_SOURCES:
            evidence.opinions[i, NOISY_SOURCES.index(judgement.source)] = value >= _GOOD
        if judgement.source not in HINTS and _RANK[judgement.source] >= rank:
            evidence.quality[i], rank = value, _RANK[judgement.source]
    evidence.settled[i] = rank == _SETTLES
    return rank


def _value(judgement: Verdict | Feedback) -> float | None:
    if judgement.source in _ONE_SIDED and judgement.adequate is not False:
        return None
    if judgement.score is not None and judgement.source not in _ONE_SIDED:
        return judgement.score
    return None if judgement.adequate is None else float(judgement.adequate)
