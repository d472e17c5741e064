"""Simulation on known outcomes: a workload generator, logging policies, and a stand-in for the upstream models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router_ml.registry import Registry

if TYPE_CHECKING:
    from router_ml_training.simulate.behaviours import Behaviour

__all__ = ["POLICIES"]

POLICIES: Registry[Behaviour] = Registry(
    "logging policy",
    {
        "uniform": "router_ml_training.simulate.behaviours:UNIFORM",
        "cascade": "router_ml_training.simulate.behaviours:CASCADE",
        "skewed": "router_ml_training.simulate.behaviours:SKEWED",
        "audit": "router_ml_training.simulate.behaviours:AUDIT",
        "full": "router_ml_training.simulate.behaviours:FULL",
    },
)
