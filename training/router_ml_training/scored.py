"""Rows with what a model says about them, whether it is freshly trained or a bundle from the shelf."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle
from router_ml.errors import DataError
from router_ml.ladder import Ladder
from router_ml.manifest import PlanSpec, PolicySpec, PriceUnit
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.frontier import expected_cost, filled_outcomes
from router_ml_training.plans import (
    CostUpdate,
    Judged,
    Taken,
    act,
    act_alone,
    fit_cost_update,
    fit_spread,
    known_posterior,
    on_hull,
)
from router_ml_training.tasks import AdequacyModel
from router_ml_training.tokens import TokenModel
from router_ml_training.verifier import expecting, scattered
from router_ml_training.verifier_graph import posterior_by_graph

__all__ = ["Scored", "reckoned_cost", "score_with_bundle", "score_with_models"]

F64: TypeAlias = NDArray[np.float64]

_CHUNK = 1000
# The share of rows on which a tier's answer must be known for plans that begin with it.
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows with adequacy (n, K) and expected cost (n, K, USD), as the policy decides with them.

    `spent_usd` (n, K) is what each tier's answer cost as the router reckons it while it judges, see `reckoned_cost`;
    None: as it was logged. `posterior` (n, K, K) holds in `[:, s]` what the verifier says of every tier after the
    answer of s, NaN where that answer is not known; None without a verifier. `price_scale` is that of the policy at the
    prices here, see `PolicySpec.price_scale`; 1 where a policy is still to be found.
    """

    dataset: Dataset
    adequacy: F64
    cost_usd: F64
    posterior: F64 | None = None
    spent_usd: F64 | None = None
    price_scale: float = 1.0

    def rows(self, index: NDArray[np.int64]) -> Scored:
        """Return the rows of that index, in its order."""
        posterior = None if self.posterior is None else self.posterior[index]
        spent = None if self.spent_usd is None else self.spent_usd[index]
        adequacy, cost = self.adequacy[index], self.cost_usd[index]
        return Scored(self.dataset.rows(index), adequacy, cost, posterior, spent, self.price_scale)

    def cost_in(self, unit: PriceUnit) -> F64:
        """Return the expected cost in the unit that a policy's shadow price is meant in, (n, K)."""
        if unit == "usd":
            return self.cost_usd
        if unit == "typical":
            return self.cost_usd * self.price_scale
        largest = self.cost_usd.max(axis=1, keepdims=True)
        return self.cost_usd / np.where(largest > 0, largest, 1.0)

    def outcomes(self) -> tuple[Outcomes, NDArray[np.int64]]:
        """Return what every tier did on the rows it is known for, and those rows; see `filled_outcomes`."""
        likely = self.adequacy
        if self.posterior is not None:
            # Whoever has seen an answer knows more of the tiers that were not tried.
            likely = likely.copy()
            for s in range(likely.shape[1] - 1):
                seen = ~np.isnan(self.posterior[:, s]).any(axis=1)
                likely[seen, s + 1 :] = self.posterior[seen, s, s + 1 :]
        return filled_outcomes(self.dataset, likely, self.cost_usd, among=None if self.posterior is None else self.read)

    @property
    def read(self) -> NDArray[np.bool_]:
        """Which rows' answers were looked at, (n,): of a long log not all are, and which ones is chance."""
        read = np.ones(len(self.dataset), np.bool_)
        read[self.dataset.answers.unread] = False
        return read if read.any() else ~read

    def judged(self, unit: PriceUnit, plans: PlanSpec | None = None) -> Judged | None:
        """Return the rows as a policy of plans sees them; None when too few answers are known to tell what it is worth.

        Args:
            unit: What the shadow price is per.
            plans: What the policy values plans with; None: fitted on these rows.
        """
        if self.posterior is None:
            return None
        posterior, known = known_posterior(self.adequacy, self.posterior)
        spent = self.dataset.cost_usd if self.spent_usd is None else self.spent_usd
        if plans is None:
            # What logs know of a tier is about the requests that it was sent: outcomes of all tiers on the same rows.
            outcomes, _ = self.outcomes()
            tiers = on_hull(outcomes.quality, outcomes.cost).tolist()
            spread = fit_spread(self.adequacy, self.posterior, self.dataset.free_quality, tiers)
            update: CostUpdate | None = fit_cost_update(spent, self.cost_usd)
        else:
            spread, update = np.array(plans.spread), CostUpdate.of(plans)
        # A tier whose answers are mostly unknown cannot be judged here, and plans that begin with it are not tried.
        spread = np.where((known[self.read].mean(axis=0) >= _MOSTLY)[:, None], spread, 0.0)
        if not spread.any():
            return None
        cost = self.cost_in(unit)
        later = None if update is None else update.later(cost, spent, self.cost_usd)
        return Judged(self.adequacy, cost, posterior, spread, later, update, self._refused)

    def taken(self, policy: PolicySpec, quality: float) -> Taken:
        """Return what a policy does on every row when it is asked to keep a share of the best tier's quality.

        Where its answers are judged, but no answer is known here, it does what it would do with one attempt.
        """
        price, plans = policy.operating(quality)
        if plans and policy.plans is not None:
            judged = self.judged(policy.price_unit, policy.plans)
            if judged is not None:
                return act(judged, price)
            price, _ = policy.operating(quality, attempts=1)
        return act_alone(self.adequacy, self.cost_in(policy.price_unit), price, self._refused)

    @property
    def _refused(self) -> NDArray[np.bool_]:
        return self.dataset.answers.refused(self.adequacy.shape)

    def unjudged(self, policy: PolicySpec, quality: float) -> NDArray[np.bool_]:
        """Return where a policy would judge an answer that is not known here, (n,), so that it cannot be replayed."""
        first = self.first(policy, quality)
        everyone, judges = np.arange(len(first)), first < self.adequacy.shape[1] - 1
        if self.posterior is None or policy.plans is None or self.judged(policy.price_unit, policy.plans) is None:
            return np.asarray(judges, np.bool_)
        return np.asarray(judges & np.isnan(self.posterior[everyone, first]).any(axis=1), np.bool_)

    def first(self, policy: PolicySpec, quality: float) -> NDArray[np.intp]:
        """Return the tier that a policy tries first on every row, (n,): no answer has to be known for that."""
        price, plans = policy.operating(quality)
        cost = self.cost_in(policy.price_unit)
        if not plans or policy.plans is None:
            return act_alone(self.adequacy, cost, price).first
        nothing_seen = np.repeat(self.adequacy[:, None], self.adequacy.shape[1], axis=1)
        return act(Judged(self.adequacy, cost, nothing_seen, np.array(policy.plans.spread)), price).first


def reckoned_cost(dataset: Dataset, ladder: Ladder) -> F64:
    """Return what answers cost as the router reckons it while it judges them, USD, (n, K).

    It knows how long an answer is, but estimates the prompt and knows no discounts. Answers of unknown length cost what
    was logged.
    """
    listed = expected_cost(dataset, dataset.output_tokens, ladder)
    return np.where(np.isnan(listed), dataset.cost_usd, listed)


def score_with_models(dataset: Dataset, model: AdequacyModel, tokens: TokenModel, ladder: Ladder) -> Scored:
    """Score rows with freshly trained models."""
    design = model.encoder.encode(dataset)
    cost = expected_cost(dataset, tokens.predict(design), ladder)
    return Scored(dataset, model.predict(design), cost, spent_usd=reckoned_cost(dataset, ladder))


def score_with_bundle(dataset: Dataset, bundle: Bundle, ladder: Ladder) -> Scored:
    """Score rows with a bundle, through its graph, as the service would.

    Args:
        dataset: Rows over the bundle's tiers.
        bundle: A loaded bundle.
        ladder: Prices to expect costs at; its tiers are the bundle's.

    Raises:
        DataError: When the rows are about other tiers than the bundle.
    """
    if dataset.tiers != bundle.ladder.names:
        raise DataError(
            f"{bundle.version} routes between {', '.join(bundle.ladder.names)}, the log is about "
            f"{', '.join(dataset.tiers)}: measure it on a log of its own tiers, or train a bundle for these"
        )
    adequacy, tokens = np.empty(dataset.quality.shape), np.empty(dataset.quality.shape)
    for start in range(0, len(dataset), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(dataset)))
        adequacy[rows], tokens[rows] = bundle.score_many(dataset.features(rows))
    spent = reckoned_cost(dataset, ladder)
    cost, scale = expected_cost(dataset, tokens, ladder), bundle.policy.price_scale(ladder)
    scored = Scored(dataset, adequacy, cost, spent_usd=spent, price_scale=scale)
    if bundle.verifier is None:
        return scored
    answers = expecting(dataset.answers, tokens)
    said = posterior_by_graph(bundle.verifier, answers, adequacy[answers.row])
    return replace(scored, posterior=scattered(answers, said, len(dataset)))
