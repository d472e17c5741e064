"""What `router-ml promote` and `rollback` leave to training: MLflow's alias `champion` follows them."""

from __future__ import annotations

import logging
from pathlib import Path

from router_ml.config import Config, parse_section
from router_ml.errors import RouterError
from router_ml.shelf import Shelf
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_aliases import name_champion

__all__ = ["tell_mlflow"]

_SQLITE = "sqlite:///"
_log = logging.getLogger(__name__)


def tell_mlflow(config: Config, shelf: Shelf) -> None:
    """Point MLflow's alias `champion` at the champion, where runs are recorded at all; what is in the way is a warning.

    Args:
        config: Whose `[mlflow]` says where.
        shelf: Whose champion.
    """
    try:
        section = config.sections["mlflow"]
        settings = parse_section(MlflowSettings, section, where=config.source, prefix="mlflow.")
        if _has_runs(settings.tracking_uri):
            name_champion(shelf.champion(), shelf, settings)
    except RouterError as error:
        _log.warning("MLflow's alias 'champion' stays where it is: %s", error)


def _has_runs(uri: str) -> bool:
    # Everybody has a database of their own by default; until something is trained it is not there.
    return not uri.startswith(_SQLITE) or Path(uri.removeprefix(_SQLITE).partition("?")[0]).exists()
