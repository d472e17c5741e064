"""What the training commands share: the configuration they work under, and progress on a terminal."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from router_ml.config import Config, load_config, parse_section
from router_ml.durable import replace_file
from router_ml.errors import ConfigError, UsageError
from router_ml.ladder import Ladder
from router_ml.shelf import Shelf
from router_ml_training.learning import Progress
from router_ml_training.reading import Log
from router_ml_training.settings import GatesSettings, MlflowSettings, TrainingSettings

__all__ = ["Workbench", "file_to_write", "git_commit", "open_workbench", "steps", "write_page"]


@dataclass(frozen=True, slots=True)
class Workbench:
    """The configuration of one command, checked."""

    config: Config
    training: TrainingSettings
    mlflow: MlflowSettings
    gates: GatesSettings
    shelf: Shelf

    @property
    def ladder(self) -> Ladder:
        """The configured ladder.

        Raises:
            ConfigError: When the configuration names no tiers.
        """
        if self.config.ladder is None:
            raise ConfigError(
                f"{self.config.source}: no [[tiers]]: training needs to know the tiers and their prices; "
                "see the example router.toml of the project"
            )
        return self.config.ladder

    def log(self, location: str, source: str = "native") -> Log:
        """Return a log, and with it how `[objects]` reaches it."""
        return Log(location, source, self.config.objects)


def open_workbench(args: argparse.Namespace) -> Workbench:
    """Read and check the configuration that `args.config` names."""
    config = load_config(args.config, os.environ)
    sections = config.sections
    return Workbench(
        config,
        parse_section(TrainingSettings, sections["training"], where=config.source, prefix="training."),
        parse_section(MlflowSettings, sections["mlflow"], where=config.source, prefix="mlflow."),
        parse_section(GatesSettings, sections["gates"], where=config.source, prefix="gates."),
        Shelf(config.models_dir),
    )


@contextmanager
def steps() -> Iterator[Progress]:
    """Yield a function that shows what is being done; silent when stderr is not a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("starting") as status:
        yield lambda text: status.update(text)


def file_to_write(text: str) -> Path:
    """Read the path of a file to write, as an `argparse` type: its folder must be there before hours are spent."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def write_page(path: Path, page: str) -> None:
    """Write an HTML page, whole or not at all.

    Raises:
        UsageError: When it cannot be written.
    """
    try:
        replace_file(path, page.encode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another file") from error


def git_commit() -> str | None:
    """Return the commit of the folder the command runs in; None outside a repository."""
    command = ("git", "rev-parse", "--short=12", "HEAD")
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603  fixed words
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
