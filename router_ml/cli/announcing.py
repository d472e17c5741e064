"""Whoever keeps a record of the champion hears of a switch by hand; the parts that tell them are loaded by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from router_ml.config import Config
from router_ml.registry import Registry
from router_ml.shelf import Shelf

__all__ = ["LISTENERS", "Listener", "announce"]

Listener: TypeAlias = Callable[[Config, Shelf], None]

# The library knows nothing of MLflow, and a switch needs none: each says what is in its way, and raises nothing.
LISTENERS: Registry[Listener] = Registry("listener", {"mlflow": "router_ml_training.announcing:tell_mlflow"})


def announce(config: Config, shelf: Shelf) -> None:
    """Tell every listener who is the champion now.

    Args:
        config: The configuration, which says whether and where there is something to tell.
        shelf: Whose champion.
    """
    for name in LISTENERS:
        LISTENERS.load(name)(config, shelf)
