"""Fit every candidate learner, judge all on rows they have not seen, keep the simplest that is good enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import DataError
from router_ml_training.censored import first_draws
from router_ml_training.dataset import Dataset, joined
from router_ml_training.encoder import fit_encoder
from router_ml_training.evaluation.compare import Choice, one_standard_error
from router_ml_training.learners import DRAFTS, LEARNERS, SIMPLICITY, USES_MAP
from router_ml_training.learners.boosting import Grow, grow_here
from router_ml_training.splits import group_folds
from router_ml_training.tasks import AdequacyModel, cross_fit_adequacy, fit_adequacy

__all__ = ["Competition", "choose", "compete", "difference_loss", "log_loss"]

F64: TypeAlias = NDArray[np.float64]

_FOLDS = 4
_FOLD_UP_TO = 20_000
# Differences need two tiers whose outcome is known whatever came of the other, on enough rows to compare anybody by.
_PAIR = 2
_MIN_PAIRED = 200


@dataclass(frozen=True, slots=True)
class Competition:
    """All fitted candidates by learner name, and which one is kept and why.

    `held_out` are the rows they were judged on and `adequacy` (m, K) what each said about rows it had not seen; the
    policy is solved on them. `fitted` are the rows the models were fitted on.
    """

    models: dict[str, AdequacyModel]
    choice: Choice
    fitted: Dataset
    held_out: Dataset
    adequacy: dict[str, F64]

    @property
    def winner(self) -> AdequacyModel:
        """The model that is kept."""
        return self.models[self.choice.name]


def compete(
    train: Dataset,
    tune: Dataset,
    learners: Sequence[str],
    *,
    seed: int,
    num_threads: int = 1,
    refit: bool = False,
    grow: Grow = grow_here,
    on_start: Callable[[str], None] = lambda _: None,
) -> Competition:
    """Fit candidates and compare them by the log loss of what is known on rows they were not fitted on.

    The log loss is the one score that also works where most outcomes are unknown: it needs no outcome of a tier that
    was not tried. Outcomes that are known because a cheaper tier failed are left out, or the pessimist would win.

    Up to 20,000 rows in all are too few to keep some back: models are fitted on all of them, and judged and calibrated
    by four-fold cross-fitting. Beyond that they are fitted on the train rows, judged and calibrated on the tune rows.

    Args:
        train: Rows to learn from.
        tune: Rows to calibrate and compare on.
        learners: Names of candidates.
        seed: For the learners and the folds.
        num_threads: Threads a learner may use.
        refit: Beyond 20,000 rows, where evidence is uncertain, only the last round of EM is the learner's own; a
            quicker one of `DRAFTS` takes the rounds before.
        grow: Boosts trees.
        on_start: Told the name of each candidate before it is fitted.

    Raises:
        DataError: When no outcome at all is known on the tune rows.
    """
    known = int((~np.isnan(tune.free_quality).all(axis=1)).sum())
    if known < 2:
        raise DataError(
            f"only {known} of the {len(tune)} interactions kept for tuning have a known outcome; "
            "collect more feedback, or import a longer log"
        )
    fitted, held_out = train, tune
    folded = len(train) + len(tune) <= _FOLD_UP_TO and len(np.unique(np.append(train.group, tune.group))) >= _FOLDS
    if folded:
        fitted = held_out = joined(train, tune)
    encoder = fit_encoder(fitted, latent=bool(USES_MAP & set(learners)), seed=seed)
    fold = group_folds(fitted.group, _FOLDS, np.random.default_rng(seed))
    models: dict[str, AdequacyModel] = {}
    adequacy: dict[str, F64] = {}
    order = sorted(set(learners), key=_order)
    for name in order:
        on_start(name)
        learner = LEARNERS.load(name)
        draft = LEARNERS.load(DRAFTS[name]) if refit and name in DRAFTS else None
        if folded:
            models[name], adequacy[name] = cross_fit_adequacy(
                fitted, fold, encoder, learner, seed=seed, num_threads=num_threads, grow=grow
            )
        else:
            models[name] = fit_adequacy(
                fitted, held_out, encoder, learner, seed=seed, num_threads=num_threads, grow=grow, draft=draft
            )
            adequacy[name] = models[name].predict(encoder.encode(held_out))
    return Competition(models, choose(adequacy, held_out, order), fitted, held_out, adequacy)


def choose(adequacy: Mapping[str, F64], held_out: Dataset, order: Sequence[str]) -> Choice:
    """Return the simplest candidate within one standard error of the best, by the log loss and by what routing needs.

    Where one outcome of a row is known, it counts by the clipped inverse of the probability that its tier was tried, if
    the log says so. A router acts on differences between tiers. Where enough rows tell them, a candidate must also be
    within one standard error by the squared error of the differences; where none is near the best by both, the best by
    the log loss is kept.

    Args:
        adequacy: Held-out adequacy (m, K) by candidate.
        held_out: The rows, with what is known of them.
        order: The candidates from the simplest to the least simple.
    """
    quality = held_out.free_quality
    judged = np.flatnonzero(~np.isnan(quality).all(axis=1))
    weight = _stands_for(held_out)[judged]
    losses = {name: weight * log_loss(p[judged], quality[judged]) for name, p in adequacy.items()}
    choice = one_standard_error(losses, simplicity=order, groups=held_out.group[judged])
    paired = np.flatnonzero((~np.isnan(quality)).sum(axis=1) >= _PAIR)
    if len(paired) < _MIN_PAIRED or choice.keep_constant:
        return choice
    gaps = {name: difference_loss(p[paired], quality[paired]) for name, p in adequacy.items()}
    by_gap = one_standard_error(gaps, simplicity=order, groups=held_out.group[paired])
    fit_for_both = _within(choice) & _within(by_gap)
    name = next((name for name in order if name in fit_for_both), choice.best)
    if name == choice.name:
        return choice
    verdict = (
        f"Use '{name}': '{choice.name}' is simpler and within one standard error by the log loss, "
        "but predicts the differences between tiers, which decide the routes, worse."
    )
    return replace(choice, name=name, verdict=verdict)


def _stands_for(held_out: Dataset) -> F64:
    """Return how many requests each row stands for, (n,), 1 on average over those with an outcome.

    A log that sends what is hard to one tier shows the other one's failures on easy requests only. Whoever was drawn
    against the odds there stands for all that were not, or a learner would be kept that knows tiers only where they
    usually answer. Rows whose tiers were all run were drawn whatever they ask.
    """
    seen = ~np.isnan(held_out.free_quality)
    single = seen.sum(axis=1) == 1
    weight = np.ones(len(held_out))
    for t in range(len(held_out.tiers)):
        weight = np.where(single & seen[:, t], first_draws(held_out, t), weight)
    known = seen.any(axis=1)
    return weight / float(weight[known].mean()) if known.any() else weight


def difference_loss(adequacy: F64, quality: F64) -> F64:
    """Return the mean squared error of the differences between known tiers of each row, shape (n,).

    Args:
        adequacy: Predicted probabilities (n, K).
        quality: Known outcomes in [0, 1] (n, K), NaN where unknown; at least two known per row.
    """
    error = quality - adequacy
    pairs = [(error[:, b] - error[:, a]) ** 2 for a in range(error.shape[1]) for b in range(a + 1, error.shape[1])]
    row_losses: F64 = np.nanmean(np.stack(pairs, axis=1), axis=1)
    return row_losses


def _within(choice: Choice) -> set[str]:
    return {one.name for one in choice.candidates if one.within}


def log_loss(adequacy: F64, quality: F64) -> F64:
    """Return the mean log loss of the known tiers of each row, shape (n,), in nats.

    Args:
        adequacy: Predicted probabilities (n, K).
        quality: Known outcomes in [0, 1] (n, K), NaN where unknown; at least one known per row.
    """
    p = np.clip(adequacy, 1e-6, 1.0 - 1e-6)
    loss = -(quality * np.log(p) + (1.0 - quality) * np.log(1.0 - p))
    row_losses: F64 = np.nanmean(loss, axis=1)
    return row_losses


def _order(name: str) -> tuple[int, str]:
    # A learner nobody has ranked counts as the least simple.
    return (SIMPLICITY.index(name) if name in SIMPLICITY else len(SIMPLICITY), name)
