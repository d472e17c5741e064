"""The docs say what the code does: keys and defaults, commands and options, endpoints, metrics, errors, links."""

from __future__ import annotations

import argparse
import importlib
import json
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path, PurePath

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from router_ml import config, errors
from router_ml.cli import COMMANDS
from router_ml.config import load_config
from router_ml.errors import RouterError
from router_ml.ladder import Price
from router_ml.store import open_store
from router_ml_serving import problems
from router_ml_serving.app import create_app
from router_ml_serving.settings import GoldenSettings, RolloutSettings, ServingSettings, serving_settings
from router_ml_serving.tenants import TenantSettings
from router_ml_training.settings import AlertSettings, GatesSettings, MlflowSettings, TrainingSettings

# Headings of docs/configuration.md and the record each describes.
SECTIONS: dict[str, type[BaseModel]] = {
    "[[tiers]]": config._TierEntry,
    "[prices.MODEL]": Price,
    "[policy]": config.PolicySettings,
    "[exploration]": config.ExplorationSettings,
    "[store]": config.StoreSettings,
    "[objects]": config.ObjectSettings,
    "[use_cases.NAME]": config.UseCase,
    "[serving]": ServingSettings,
    "[tenants.NAME]": TenantSettings,
    "[rollout]": RolloutSettings,
    "[golden]": GoldenSettings,
    "[training]": TrainingSettings,
    "[gates]": GatesSettings,
    "[alerts]": AlertSettings,
    "[mlflow]": MlflowSettings,
}
# Options of the host, which every command takes.
EVERYWHERE = {"--help", "--json", "--config"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")


def sections(path: Path) -> dict[str, str]:
    """Return heading -> text below it, for the second-level headings of a page."""
    parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of every table row but headings and rules."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and not set(cells[0]) <= {"-", ":"} and CODE.search(cells[0]):
            yield cells


def shown(field: FieldInfo) -> str:
    """Return a default as the configuration page writes it."""
    value = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    if value is None:
        return "-"
    if isinstance(value, frozenset):
        value = sorted(value)
    if isinstance(value, PurePath | Enum):
        value = str(value)
    return f"`{json.dumps(value)}`"


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_documented_with_its_default(heading: str, root: Path) -> None:
    text = sections(root / "docs" / "configuration.md")[heading]
    written = {CODE.findall(cells[0])[0]: cells[1] for cells in rows(text)}
    assert written == {name: shown(field) for name, field in SECTIONS[heading].model_fields.items()}


def test_every_section_is_documented(root: Path) -> None:
    pages = sections(root / "docs" / "configuration.md")
    named = {key for cells in rows(pages["top level"]) for key in CODE.findall(cells[0])}
    assert named == set(config._File.model_fields)
    assert set(pages) - {"top level"} == set(SECTIONS)


def test_every_command_is_documented_with_its_help(root: Path) -> None:
    text = (root / "docs" / "commands.md").read_text(encoding="utf-8").partition("\n## ")[0]
    written = {CODE.findall(cells[0])[0]: cells[1] for cells in rows(text)}
    assert written == {name: entry.help for name, entry in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_documented(name: str, root: Path) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(COMMANDS[name].module).add_arguments(parser)
    named = set(re.findall(r"--[a-z][a-z-]*", sections(root / "docs" / "commands.md")[name]))
    assert named - EVERYWHERE == options(parser)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a parser and of its subcommands."""
    found: set[str] = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(*map(options, action.choices.values()))
        else:
            found.update(option for option in action.option_strings if option.startswith("--"))
    return found - EVERYWHERE


@pytest.fixture
def service_page(root: Path) -> str:
    return (root / "docs" / "service.md").read_text(encoding="utf-8")


def test_every_endpoint_is_documented(service_page: str, tmp_path: Path) -> None:
    environ = {"ROUTER_ML_STORE__URL": f"sqlite:///{tmp_path}/events.db"}
    settings = load_config(None, environ)
    with open_store(settings.store.url) as store:
        app = create_app(serving_settings(settings), settings, store=store, environ={})
    found = {
        f"{method} {route.path}"
        for route in app.router.routes
        for method in getattr(route, "methods", None) or ()
        if getattr(route, "include_in_schema", False)
    }
    written = {CODE.findall(cells[0])[0] for cells in rows(service_page.partition("\n## ")[0])}
    assert written == found


def test_every_metric_is_documented(service_page: str, modules: list, root: Path) -> None:
    source = (root / "serving" / "router_ml_serving" / "telemetry.py").read_text(encoding="utf-8")
    counted = set(re.findall(r'self\._(?:counter|histogram|gauge)\(\s*"(\w+)"', source))
    states = re.search(r"for name in \(([^)]*)\)", source)
    assert states is not None
    recorder = {f"recorder_{name}" for name in re.findall(r'"(\w+)"', states.group(1))}
    page = dict(re.findall(r"^## (.+)\n([^#]*)", service_page, re.MULTILINE))["Metrics"]
    written = {CODE.findall(cells[0])[0].removeprefix("router_ml_") for cells in rows(page)}
    assert written == {*counted, *recorder}


def error_classes() -> list[type[RouterError]]:
    """Return every error that a user can meet by its code; subclasses that share their parent's code are one."""
    found = [
        kind
        for module in (errors, problems)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, RouterError) and kind.__module__ == module.__name__
    ]
    return sorted(found, key=lambda kind: kind.__name__)


def test_every_error_is_documented_with_its_statuses(root: Path) -> None:
    page = (root / "docs" / "errors.md").read_text(encoding="utf-8")
    written = {tuple(cell.strip("`") for cell in cells[:4]) for cells in rows(page)}
    assert written == {
        (kind.code, kind.__name__, str(kind.exit_code), str(kind.http_status)) for kind in error_classes()
    }


def test_codes_of_errors_are_unique() -> None:
    codes = [kind.code for kind in error_classes()]
    assert len(codes) == len(set(codes))


def test_every_relative_link_leads_somewhere(tracked: list[Path], root: Path) -> None:
    broken = []
    for path in (path for path in tracked if path.suffix == ".md"):
        for target in LINK.findall(without_code(path.read_text(encoding="utf-8"))):
            file, _, anchor = target.partition("#")
            if re.match(r"\w+:", target):
                continue
            other = (path.parent / file) if file else path
            if not other.exists() or (anchor and anchor not in anchors(other)):
                broken.append(f"{path.relative_to(root)}: {target}")
    assert broken == []


def test_every_page_can_be_reached_from_the_readme(root: Path) -> None:
    seen: set[Path] = set()
    waiting = [root / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        targets = (target.partition("#")[0] for target in LINK.findall(path.read_text(encoding="utf-8")))
        waiting += [(path.parent / file).resolve() for file in targets if file.endswith(".md") and ":" not in file]
    assert set((root / "docs").rglob("*.md")) <= seen


def test_the_commands_that_the_pages_show_exist(tracked: list[Path]) -> None:
    for path in (path for path in tracked if path.suffix == ".md"):
        for block in re.findall(r"```console\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            for name in re.findall(r"\$ (?:\.venv/bin/)?router-ml (\w+)", block):
                assert name in COMMANDS, f"{path}: {name}"


def test_the_make_targets_that_the_pages_show_exist(tracked: list[Path], root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in (path for path in tracked if path.suffix == ".md"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", text)) <= targets, path


def without_code(text: str) -> str:
    """Return a page without its code, where brackets are no links."""
    return CODE.sub("", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
