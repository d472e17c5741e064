"""Fit every candidate learner, judge all on rows they have not seen, keep the simplest that is good enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import DataError
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Encoder, fit_encoder
from router_ml_training.evaluation.compare import Choice, one_standard_error
from router_ml_training.learners import LEARNERS, SIMPLICITY
from router_ml_training.learners.protocol import Learner
from router_ml_training.splits import group_folds
from router_ml_training.tasks import AdequacyModel, fit_adequacy

__all__ = ["Competition", "compete", "log_loss"]

F64: TypeAlias = NDArray[np.float64]

_FOLDS = 4
_FOLD_UP_TO = 20_000


@dataclass(frozen=True, slots=True)
class Competition:
    """All fitted candidates by learner name, and which one is kept and why."""

    models: dict[str, AdequacyModel]
    choice: Choice

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
    on_start: Callable[[str], None] = lambda _: None,
) -> Competition:
    """Fit candidates and compare them by the log loss of what is known on rows they were not fitted on.

    The log loss is the one score that also works where most outcomes are unknown: it needs no outcome of a tier that
    was not tried. Outcomes that are known because a cheaper tier failed are left out, or the pessimist would win. Up to
    20,000 train rows it comes from four folds of them, beyond that from the tune rows.

    Args:
        train: Rows to learn from.
        tune: Rows to calibrate and compare on.
        learners: Names of candidates.
        seed: For the learners.
        num_threads: Threads a learner may use.
        on_start: Told the name of each candidate before it is fitted.

    Raises:
        DataError: When no outcome at all is known on the tune rows.
    """
    known = np.flatnonzero(~np.isnan(tune.free_quality).all(axis=1))
    if len(known) < 2:
        raise DataError(
            f"only {len(known)} of the {len(tune)} interactions kept for tuning have a known outcome; "
            "collect more feedback, or import a longer log"
        )
    encoder = fit_encoder(train)
    models: dict[str, AdequacyModel] = {}
    losses: dict[str, F64] = {}
    order = sorted(set(learners), key=_order)
    folded = _folded(train, seed)
    for name in order:
        on_start(name)
        learner = LEARNERS.load(name)
        models[name] = fit_adequacy(train, tune, encoder, learner, seed=seed, num_threads=num_threads)
        losses[name] = np.concatenate(
            [
                _held_out_loss(learner, encoder, seen, unseen, seed=seed, num_threads=num_threads)
                for seen, unseen in folded
            ]
            or [log_loss(models[name].predict(encoder.encode(tune.rows(known))), tune.free_quality[known])]
        )
    group = np.concatenate([unseen.group for _, unseen in folded] or [tune.group[known]])
    return Competition(models, one_standard_error(losses, simplicity=order, groups=group))


def _folded(train: Dataset, seed: int) -> list[tuple[Dataset, Dataset]]:
    # A short log has too few tuning rows to tell learners apart, so every training row is judged once.
    if len(train) > _FOLD_UP_TO:
        return []
    known = train.rows(np.flatnonzero(~np.isnan(train.free_quality).all(axis=1)))
    fold = group_folds(known.group, _FOLDS, np.random.default_rng(seed))
    parts = [(known.rows(fold != i), known.rows(fold == i)) for i in range(_FOLDS)]
    every = [part for part in parts if len(part[1]) and not np.isnan(part[0].quality).all(axis=0).any()]
    return every if len(every) == _FOLDS else []


def _held_out_loss(
    learner: Learner, encoder: Encoder, seen: Dataset, unseen: Dataset, *, seed: int, num_threads: int
) -> F64:
    nothing = seen.rows(np.zeros(0, np.int64))
    model = fit_adequacy(seen, nothing, encoder, learner, seed=seed, num_threads=num_threads)
    return log_loss(model.predict(encoder.encode(unseen)), unseen.free_quality)


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
