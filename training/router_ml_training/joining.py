"""A bundle and some outcomes of a tier it does not know -> a graph with that tier, its policy, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle, PolicySpec
from router_ml.errors import DataError
from router_ml.ladder import Ladder
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.bootstrap import mean_figure
from router_ml_training.evaluation.compare import standard_error
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.frontier import expected_cost
from router_ml_training.onboarding import (
    MAX_TOKENS,
    Answers,
    CrossFitted,
    Lengths,
    NewTierHead,
    cross_fit,
    fit_head,
    fit_lengths,
)
from router_ml_training.repricing import Solved, at_prices, resolved, score_columns
from router_ml_training.scored import Scored
from router_ml_training.tier_graph import GRAPH_FILE, check_tier, with_tier

__all__ = ["Joined", "Verdict", "compare_choices", "join_tier", "judged_rows"]

F64: TypeAlias = NDArray[np.float64]

# Fewer outcomes than this tell hardly more than the tier's mean, and not even that well.
MIN_ROWS = 50
# As many as the parity of the new column is checked on.
_PARITY_ROWS = 1000
# Standard errors by which a policy may look worse before it is refused; as in `gate`.
_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Joined:
    """A ladder with one more tier.

    `graph` passed its parity check with a largest difference of `parity`; `quality` (with its interval) is the new
    tier's on its `n_rows` judged requests; `scored` are all rows with what the new graph says of them, where it was
    fitted on them what a head that had not seen them says.
    """

    name: str
    ladder: Ladder
    graph: bytes
    head: NewTierHead
    lengths: Lengths
    fitted: CrossFitted
    neighbour: str
    length_of: str
    quality: Figure
    n_rows: int
    parity: float
    solved: Solved
    scored: Scored


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the ladder with the new tier may go into service, and why."""

    passed: bool
    reason: str
    n_rows: int


def join_tier(bundle: Bundle, name: str, ladder: Ladder, dataset: Dataset, *, seed: int) -> Joined:
    """Fit a head for a new tier, add it to the graph, and solve the policy of the longer ladder.

    Args:
        bundle: The tiers that are known; their heads stay as they are.
        name: The new tier.
        ladder: All tiers at the prices of today, the new one included.
        dataset: Rows over the ladder's tiers; those with an outcome of the new tier teach its head.
        seed: For the folds and the bootstrap.

    Raises:
        DataError: When the new tier has fewer than 50 outcomes, or all of them are the same.
        ParityError: When the graph is not the fitted head, or another tier's column changed.
    """
    at = ladder.index(name)
    known = [ladder.index(tier) for tier in bundle.ladder.names]
    rows = judged_rows(dataset, name)
    adequacy, tokens = score_columns(bundle, dataset)
    answers = Answers(
        adequacy[rows],
        dataset.free_quality[rows][:, known],
        dataset.dense[rows],
        dataset.quality[rows, at],
        dataset.group[rows],
    )
    fitted = cross_fit(answers, seed=seed)
    head = fit_head(answers, learned=fitted.learned)
    lengths = fit_lengths(dataset.output_tokens[rows, at], tokens[rows], fitted.neighbour)
    before = (bundle.path / GRAPH_FILE).read_bytes()
    graph = with_tier(before, name, head, lengths, ladder.names)
    sample = dataset.features(np.arange(min(len(dataset), _PARITY_ROWS)))
    parity = check_tier(before, graph, name, head, lengths, sample)
    everyone = np.empty(dataset.quality.shape)
    everyone[:, known], everyone[:, at] = adequacy, head.probability(adequacy, dataset.dense)
    everyone[rows, at] = fitted.probability
    expected = np.empty(dataset.quality.shape)
    expected[:, known] = tokens
    expected[:, at] = np.minimum(tokens[:, lengths.of] * lengths.ratio, MAX_TOKENS)
    priced = at_prices(dataset, ladder)
    scored = Scored(priced, everyone, expected_cost(priced, expected, ladder))
    rng = np.random.default_rng(seed)
    return Joined(
        name=name,
        ladder=ladder,
        graph=graph,
        head=head,
        lengths=lengths,
        fitted=fitted,
        neighbour=bundle.ladder.names[fitted.neighbour],
        length_of=bundle.ladder.names[lengths.of],
        quality=mean_figure(answers.target, rng=rng, groups=answers.group),
        n_rows=len(rows),
        parity=parity,
        solved=resolved(scored, ladder, bundle.policy),
        scored=scored,
    )


def judged_rows(dataset: Dataset, name: str) -> NDArray[np.int64]:
    """Return the rows with an outcome of a tier that is not known only because a cheaper one had failed.

    Raises:
        DataError: When there are fewer than 50, or all are the same.
    """
    at = dataset.tiers.index(name)
    outcome = dataset.free_quality[:, at]
    rows = np.flatnonzero(~np.isnan(outcome))
    if len(rows) < MIN_ROWS:
        raise DataError(
            f"only {len(rows)} of {len(dataset)} interactions have an outcome of '{name}' (escalated ones do not "
            f"count: they are the hard ones); at least {MIN_ROWS} are needed, and 300 are better: run '{name}' on "
            "stored prompts drawn at random and judge its answers"
        )
    if np.ptp(outcome[rows]) == 0.0:
        said = "adequate" if outcome[rows[0]] >= 1.0 else "inadequate" if outcome[rows[0]] <= 0.0 else "the same"
        raise DataError(
            f"all {len(rows)} outcomes of '{name}' are {said}: there is nothing to learn about when it is good "
            "enough; check how they were judged, or draw more varied prompts"
        )
    return rows


def compare_choices(joined: Joined, old: PolicySpec, *, quality: float) -> Verdict:
    """Compare what the policies with and without the new tier choose, where every outcome is known.

    The longer ladder passes when its choices are not worth less (quality, less its own price of the money spent), and
    its quality is not below what the shorter one would give by more than it was allowed to be, each beyond noise.

    Args:
        joined: The longer ladder.
        old: The policy without the new tier.
        quality: Share of the best tier's quality that both are asked to keep.
    """
    scored, new = joined.scored, joined.solved.policy
    rows = np.flatnonzero(scored.dataset.complete)
    if len(rows) < MIN_ROWS:
        reason = (
            f"only {len(rows)} requests have the outcome of every tier, {MIN_ROWS} are needed to tell whether the "
            "longer ladder is worse"
        )
        return Verdict(False, reason, len(rows))
    known = np.array([joined.ladder.index(name) for name in old.ladder.names])
    scale = old.price_scale(Ladder(tuple(joined.ladder.tiers[at] for at in sorted(known))))
    alone = Scored(scored.dataset, scored.adequacy[:, known], scored.cost_usd[:, known], price_scale=scale)
    ours, theirs = _chosen(scored, new, rows, quality), known[_chosen(alone, old, rows, quality)]
    earned, group = scored.dataset.quality[rows], scored.dataset.group[rows]
    logged = scored.dataset.cost_usd[rows]
    usd = np.where(np.isnan(logged), scored.cost_usd[rows], logged)
    (ours_kept, ours_usd), (kept, spent) = (_of(earned, usd, picked) for picked in (ours, theirs))
    per_usd = new.operating(quality, attempts=1)[0] * new.price_scale(joined.ladder)
    price = 0.0 if new.price_unit == "relative" else per_usd
    lost, short = kept - ours_kept - price * (spent - ours_usd), kept - ours_kept
    wanted = quality * earned[:, known].mean(axis=0).max()
    faults = []
    if _worse(lost, group):
        faults.append(f"its choices are worth {lost.mean():.4f} less")
    if ours_kept.mean() < wanted and _worse(short, group):
        faults.append(f"its quality is {short.mean():.4f} lower, and below the {quality:g} asked for")
    ratio = float(ours_usd.mean()) / max(float(spent.mean()), 1e-12)
    said = (
        f"on {len(rows)} requests quality {kept.mean():.3f} becomes {ours_kept.mean():.3f} at {ratio:.2f} of the cost"
    )
    return Verdict(not faults, f"{' and '.join(faults) or 'not worse'}: {said}", len(rows))


def _chosen(scored: Scored, policy: PolicySpec, rows: NDArray[np.int64], quality: float) -> NDArray[np.intp]:
    # No answer is known here, so that policies of plans are compared by what they do where one attempt is allowed.
    return scored.taken(policy, quality).first[rows]


def _of(earned: F64, usd: F64, picked: NDArray[np.intp]) -> tuple[F64, F64]:
    everyone = np.arange(len(earned))
    return earned[everyone, picked], usd[everyone, picked]


def _worse(lost: F64, group: NDArray[np.int64]) -> bool:
    error = standard_error(lost, group) if len(np.unique(group)) > 1 else float("inf")
    return bool(lost.mean() > _ERRORS * error + 1e-9)
