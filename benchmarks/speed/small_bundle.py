"""A bundle learned from a small simulated workload, for machines on which the default one does not load."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from router_ml.bundle import ManifestDraft, TrainedOn, write_bundle
from router_ml_training.dataset import build_dataset
from router_ml_training.default_bundle import ladder
from router_ml_training.learning import learn
from router_ml_training.settings import TrainingSettings
from router_ml_training.simulate.outcomes import outcome_table
from router_ml_training.simulate.policies import simulate_log
from router_ml_training.simulate.workload import TWO_TIERS, generate

__all__ = ["train"]

_REQUESTS = 1500


def train(folder: Path) -> Path:
    """Train with the learner `linear` and write the bundle below a folder.

    Returns:
        The bundle.
    """
    frame = generate(_REQUESTS, rng=np.random.default_rng(0))
    table = outcome_table(frame, {tier.name: tier.model for tier in TWO_TIERS})
    dataset = build_dataset(simulate_log(table, "full", rng=np.random.default_rng(0)), table.tiers)
    trained = learn(dataset, ladder(), TrainingSettings(learners=("linear",)))
    draft = ManifestDraft(
        version="bench",
        created=datetime.now(UTC),
        trained_on=TrainedOn(digest=dataset.digest, n_interactions=len(dataset), description="simulated workload"),
        learner=trained.learner,
        simulated=True,
    )
    judge = None if trained.judge is None else trained.judge.graph
    return write_bundle(folder, manifest=draft, policy=trained.policy, model=trained.graph, verifier=judge)
