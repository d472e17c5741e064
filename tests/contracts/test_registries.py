"""Registries: every entry of every registry can be loaded, and its name is one a person can type."""

from __future__ import annotations

import argparse
import importlib
import re
import tomllib
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from router_ml.checks import CHECKS
from router_ml.cli import COMMANDS
from router_ml.cli.announcing import LISTENERS
from router_ml.cli.config import SETTINGS
from router_ml.constraints import CONSTRAINTS
from router_ml.registry import Registry
from router_ml.store import STORES
from router_ml_serving.api import ROUTERS
from router_ml_serving.inbound import SHAPES
from router_ml_training.learners import LEARNERS
from router_ml_training.retrain.gating import GATES
from router_ml_training.simulate import POLICIES
from router_ml_training.sources import SOURCES

REGISTRIES = (CHECKS, CONSTRAINTS, GATES, LEARNERS, LISTENERS, POLICIES, ROUTERS, SETTINGS, SHAPES, SOURCES, STORES)
ENTRIES = [(registry, name) for registry in REGISTRIES for name in registry]
NAME = re.compile(r"[a-z][a-z0-9_]*")


@pytest.mark.parametrize(("registry", "name"), ENTRIES, ids=[f"{r.kind}-{name}" for r, name in ENTRIES])
def test_every_entry_can_be_loaded(registry: Registry[object], name: str) -> None:
    assert NAME.fullmatch(name)
    part = registry.load(name)
    assert callable(part) or is_dataclass(part)


def test_no_registry_is_forgotten_here(modules: list) -> None:
    made = re.compile(r"^([A-Z_]+): Registry\[", re.MULTILINE)
    found = {name for module in modules for name in made.findall(module.path.read_text(encoding="utf-8"))}
    assert found == {
        "CHECKS",
        "CONSTRAINTS",
        "GATES",
        "LEARNERS",
        "LISTENERS",
        "POLICIES",
        "ROUTERS",
        "SETTINGS",
        "SHAPES",
        "SOURCES",
        "STORES",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_loaded_and_describes_itself(name: str) -> None:
    entry = COMMANDS[name]
    assert NAME.fullmatch(name)
    assert entry.help[0].islower()
    assert not entry.help.endswith(".")
    command = importlib.import_module(entry.module)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert callable(command.run)
    for action in parser._actions:
        assert action.help or action.choices or action.dest in ("prompt", "source"), (
            f"{name}: {action.dest} has no help"
        )


def test_every_extra_that_a_command_or_part_names_exists(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {entry.extra for entry in COMMANDS.values()} | {registry.extra for registry in REGISTRIES}
    assert named - {""} <= set(project["optional-dependencies"])
