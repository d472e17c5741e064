"""One fold of a cascade protocol: heads before the call, a verifier after it, expected costs; train rows held out.

Everything that a policy is tuned on is said by models that had not seen the row: the heads are cross-fitted on the
train rows, and so is the verifier on top of them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.protocols import Split
from router_ml.ladder import Ladder
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import fit_encoder
from router_ml_training.learners import LEARNERS
from router_ml_training.plans import Judged, fit_cost_update, fit_spread, known_posterior, on_hull
from router_ml_training.splits import group_folds
from router_ml_training.tasks import cross_fit_adequacy
from router_ml_training.tokens import cross_fit_tokens
from router_ml_training.verifier import cross_fit_verifier, judge_answers

__all__ = ["Fold", "fit_fold", "plan_tiers"]

F64: TypeAlias = NDArray[np.float64]

_LEARNER = "linear"
_FOLDS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What the policies of one fold see: `train` and `test` rows as plans see them."""

    split: Split
    train: Judged
    test: Judged


def fit_fold(dataset: Dataset, ladder: Ladder, split: Split) -> Fold:
    """Fit heads, answer lengths and verifier on the train rows of a split, and score both sides.

    Args:
        dataset: The table, with answers.
        ladder: Prices; its tiers are the dataset's, in any order.
        split: Which rows are learned from.
    """
    train, test = dataset.rows(split.train), dataset.rows(split.test)
    fold = group_folds(train.group, _FOLDS, np.random.default_rng(split.seed))
    encoder = fit_encoder(train)
    model, before = cross_fit_adequacy(train, fold, encoder, LEARNERS.load(_LEARNER), seed=split.seed)
    tokens, lengths = cross_fit_tokens(train, encoder, seed=split.seed)
    design = encoder.encode(test)
    adequacy, test_lengths = model.predict(design), tokens.predict(design)
    planned = plan_tiers(train.quality, train.cost_usd)
    train, test = (_answered(part, planned) for part in (train, test))
    verified = cross_fit_verifier(train, before, lengths, seed=split.seed)
    if verified is None or not verified.earned:
        after, test_after = (np.repeat(one[:, None], one.shape[1], axis=1) for one in (before, adequacy))
    else:
        after, _ = known_posterior(before, verified.by_row(len(train)))
        test_after, _ = known_posterior(adequacy, judge_answers(verified.model, test, adequacy, test_lengths))
    spread = fit_spread(before, after, train.quality, planned)
    costs, test_costs = _costs(train, lengths, ladder), _costs(test, test_lengths, ladder)
    update = fit_cost_update(train.cost_usd, costs)
    return Fold(
        split,
        Judged(before, costs, after, spread, update.later(costs, train.cost_usd, costs)),
        Judged(adequacy, test_costs, test_after, spread, update.later(test_costs, test.cost_usd, test_costs)),
    )


def plan_tiers(quality: F64, cost: F64) -> list[int]:
    """Return the tiers that plans are made of, by train rows: those on the hull, the cheap ones cheap enough to try.

    A tier that costs over half of the next on the hull is not tried first: an accepted answer would save too little.

    Args:
        quality: Outcomes, (n, K).
        cost: USD, (n, K).
    """
    hull: list[int] = on_hull(quality, cost).tolist()
    usd = cost.mean(axis=0)
    return [tier for tier, then in itertools.pairwise(hull) if usd[tier] <= usd[then] / 2] + hull[-1:]


def _answered(dataset: Dataset, tiers: list[int]) -> Dataset:
    """Return the dataset with the answers of these tiers only: nobody judges others."""
    return replace(dataset, answers=dataset.answers.take(np.isin(dataset.answers.tier, tiers)))


def _costs(dataset: Dataset, lengths: F64, ladder: Ladder) -> F64:
    # A table's tiers are in order of what they cost on it, a ladder's in order of what they usually cost.
    order = [dataset.tiers.index(name) for name in ladder.names]
    costs = np.empty_like(lengths)
    costs[:, order] = ladder.costs_usd(dataset.input_tokens[:, None], lengths[:, order])
    return costs
