"""`router-ml config check`: read router.toml and the environment, and explain every mistake."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from router_ml.cli.output import emit
from router_ml.config import Config, load_config, parse_section
from router_ml.errors import ConfigError, MissingExtra
from router_ml.registry import Registry, did_you_mean
from router_ml.store import STORES

__all__ = ["SETTINGS", "add_arguments", "run"]

# The sections that belong to one side are checked by that side, when it is installed.
SETTINGS: Registry[type[BaseModel]] = Registry(
    "section",
    {
        "serving": "router_ml_serving.settings:ServingSettings",
        "tenants": "router_ml_serving.tenants:TenantsSection",
        "rollout": "router_ml_serving.settings:RolloutSettings",
        "golden": "router_ml_serving.settings:GoldenSettings",
        "training": "router_ml_training.settings:TrainingSettings",
        "gates": "router_ml_training.settings:GatesSettings",
        "mlflow": "router_ml_training.settings:MlflowSettings",
    },
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("action", choices=["check"], help="check: read everything and explain each mistake")
    parser.add_argument("file", nargs="?", type=Path, help="the file (default: --config, else router.toml)")


def run(args: argparse.Namespace) -> int:
    """Check the library's sections and those of the installed sides; exit 2 when something is wrong."""
    path: Path | None = args.file or args.config
    config, problems = None, []
    try:
        config = load_config(path, os.environ)
        problems += _problems_of_store(config)
    except ConfigError as error:
        problems.append(str(error))
    sections = config.sections if config is not None else _as_written(path)
    unchecked = []
    for name in SETTINGS:
        try:
            _check_section(name, sections.get(name, {}), str(path or "environment"))
        except ConfigError as error:
            problems.append(str(error))
        except MissingExtra:
            unchecked.append(name)
    if problems or config is None:
        raise ConfigError("\n".join(problems))
    emit(args, _record(config, unchecked), _text(config, unchecked))
    return 0


def _problems_of_store(config: Config) -> list[str]:
    # Only the part that holds no password is looked at, and only the host would tell of the rest.
    scheme, found, _ = config.store.url.partition("://")
    name = scheme.partition("+")[0]
    if found and name in list(STORES):
        return []
    said = f"no event store is called '{name}'{did_you_mean(name, list(STORES))}" if found else "not a URL"
    return [f"{config.source}: store.url: {said}; expected something like sqlite:///router_ml.db or postgresql://…"]


def _check_section(name: str, raw: object, where: str) -> None:
    if not isinstance(raw, Mapping):
        return  # load_config has said so
    parse_section(SETTINGS.load(name), raw, where=where, prefix=f"{name}.")


def _as_written(path: Path | None) -> dict[str, Any]:
    # The library's sections have mistakes: the sides' sections are looked at in the file alone, if it can be read.
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}


def _record(config: Config, unchecked: list[str]) -> dict[str, Any]:
    return {
        "ok": True,
        "source": config.source,
        "tiers": list(config.ladder.names) if config.ladder is not None else None,
        "quality": config.policy.quality,
        "use_cases": sorted(config.use_cases),
        "unchecked": unchecked,
    }


def _text(config: Config, unchecked: list[str]) -> str:
    tiers = "the bundle's" if config.ladder is None else ", ".join(config.ladder.names)
    lines = [f"{config.source}: no mistakes", f"tiers: {tiers}", f"quality: {config.policy.quality:g}"]
    if unchecked:
        lines.append(f"not checked, its side is not installed: {', '.join(f'[{name}]' for name in unchecked)}")
    return "\n".join(lines)
