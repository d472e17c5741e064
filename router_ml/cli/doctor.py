"""`router-ml doctor`: check the installation, the configuration, the bundle, the event store and the tiers."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from router_ml import __version__
from router_ml.cli.output import emit
from router_ml.config import Config, ObjectSettings, StoreSettings, load_config
from router_ml.errors import MissingExtra, RouterError
from router_ml.router import Router
from router_ml.schema import Request

__all__ = ["Finding", "add_arguments", "examine", "run"]

Status: TypeAlias = Literal["ok", "note", "FAIL"]

# One package that only this extra brings; the rest came with it.
_EXTRAS = {"store": "sqlalchemy", "serving": "fastapi", "training": "lightgbm"}
_PROBES = ("", "What is the capital of France?", "Résumé: 日本語 العربية 🙂", "def f(x):\n    return x\n" * 200)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `note` is worth knowing and no failure."""

    check: str
    status: Status
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments: none."""


def run(args: argparse.Namespace) -> int:
    """Print one line per check; 1 when any failed."""
    findings = list(examine(args.config, os.environ))
    failed = any(finding.status == "FAIL" for finding in findings)
    width = max(len(finding.check) for finding in findings)
    lines = [f"{finding.status:<4}  {finding.check:<{width}}  {finding.detail}" for finding in findings]
    emit(args, {"ok": not failed, "checks": [asdict(finding) for finding in findings]}, "\n".join(lines))
    return int(failed)


def examine(path: Path | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Run every check that can be run; without a readable configuration, those that need one are left out.

    Args:
        path: The configuration file, or None.
        environ: The environment, usually `os.environ`.
    """
    yield Finding("python", "ok", f"{sys.version.split()[0]}, router-ml {__version__}")
    for extra, package in _EXTRAS.items():
        if importlib.util.find_spec(package) is not None:
            yield Finding(f"extra {extra}", "ok", "installed")
        else:
            yield Finding(f"extra {extra}", "note", f"not installed: pip install 'router-ml[{extra}]'")
    try:
        config = load_config(path, environ)
    except RouterError as error:
        yield Finding("config", "FAIL", str(error))
        return
    yield Finding("config", "ok", config.source)
    yield _bundle(config)
    yield _store(config.store)
    if config.objects.models is not None:
        yield _depot(config.objects.models, config.objects, environ)
    yield from _tiers(config, environ)


def _bundle(config: Config) -> Finding:
    try:
        router = Router.load(config)
    except RouterError as error:
        return Finding("bundle", "FAIL", str(error))
    requests = [Request(messages=[{"role": "user", "content": text}]) for text in _PROBES]
    rng = np.random.default_rng(0)
    decisions = [router.route(request, decision_id="doctor", rng=rng) for request in requests]
    finite = all(np.isfinite([*d.adequacy.values(), *d.expected_cost_usd.values()]).all() for d in decisions)
    repeated = [router.route(request, decision_id="doctor", rng=rng).adequacy for request in requests]
    if not finite or repeated != [decision.adequacy for decision in decisions]:
        return Finding("bundle", "FAIL", f"{router.bundle.path}: scores are not finite, or differ from call to call")
    tiers = ", ".join(router.ladder.names)
    return Finding("bundle", "ok", f"{router.bundle.version} from {router.bundle.path}, tiers {tiers}")


def _store(settings: StoreSettings) -> Finding:
    shown = settings.url.partition("@")[2] or settings.url  # what stands before @ is a password
    file = settings.url.removeprefix("sqlite:///") if settings.url.startswith("sqlite:///") else ""
    if file and not Path(file).exists():  # looking must not create it
        folder = Path(file).parent
        if os.access(folder, os.W_OK):
            return Finding("store", "ok", f"{shown} will be created")
        return Finding("store", "FAIL", f"{shown}: the folder {folder} does not exist or cannot be written")
    from router_ml.store import open_store

    try:
        with open_store(settings.url) as store:
            return Finding("store", "ok", f"{shown}, {store.count()} interactions")
    except MissingExtra as error:
        return Finding("store", "note", str(error))
    except RouterError as error:
        return Finding("store", "FAIL", str(error))


def _depot(url: str, settings: ObjectSettings, environ: Mapping[str, str]) -> Finding:
    from router_ml.depot import Depot
    from router_ml.objects import open_objects

    try:
        found = Depot(open_objects(url, settings, environ)).versions()
    except MissingExtra as error:
        return Finding("objects", "note", str(error))
    except RouterError as error:
        return Finding("objects", "FAIL", str(error))
    return Finding("objects", "ok", f"{url}, {len(found)} bundles")


def _tiers(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    if config.ladder is None:
        yield Finding("tiers", "note", "the configuration names none: the bundle's are used, and it can only decide")
        return
    for tier in config.ladder:
        missing = [] if tier.base_url else ["base_url is not set"]
        if tier.api_key_env and not environ.get(tier.api_key_env):
            missing.append(f"the environment variable {tier.api_key_env} is not set")
        key = f"key in {tier.api_key_env}" if tier.api_key_env else "no key"
        detail = " and ".join(missing) or f"{tier.model} at {tier.base_url}, {key}"
        yield Finding(f"tier {tier.name}", "FAIL" if missing else "ok", detail)
