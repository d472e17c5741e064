"""Learners: each turns known outcomes into a head, a function from features to a logit that ONNX can hold too.

Adding one is one file and one line here; the contract suite then runs on it unasked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from router_ml.registry import Registry

if TYPE_CHECKING:  # the names alone are asked for by the configuration, which should not load onnx
    from router_ml_training.learners.protocol import Learner

__all__ = ["DRAFTS", "LEARNERS", "SIMPLICITY", "USES_MAP"]

LEARNERS: Registry[Learner] = Registry(
    "learner",
    {
        "constant": "router_ml_training.learners.constant:learn",
        "length": "router_ml_training.learners.length:learn",
        "keywords": "router_ml_training.learners.keywords:learn",
        "cluster": "router_ml_training.learners.cluster:learn",
        "linear": "router_ml_training.learners.linear:learn",
        "neighbours": "router_ml_training.learners.neighbours:learn",
        "gbdt": "router_ml_training.learners.gbdt:learn",
        "ensemble": "router_ml_training.learners.ensemble:learn",
    },
)

# From the simplest to the least simple: within one standard error of the best, the earlier one wins.
SIMPLICITY: tuple[str, ...] = tuple(LEARNERS)

# These look at the encoder's map of what requests are about, which is not fitted where nobody asks for it.
USES_MAP: frozenset[str] = frozenset({"cluster", "neighbours", "ensemble"})

# Who guesses hidden outcomes for whom where time matters: what trees add to the linear head hardly moves a guess.
DRAFTS: Mapping[str, str] = {"gbdt": "linear"}
