"""Where a notebook looks: the folder with `router.toml`, its shelf, its logs, and a sample of what they hold."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from router_ml.bundle import Bundle, load_bundle
from router_ml.config import Config, load_config, parse_section
from router_ml.errors import DataError, RouterError, UsageError
from router_ml.ladder import Ladder
from router_ml.registry import require
from router_ml.schema import SCHEMA, Interaction
from router_ml.shelf import Shelf
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.reading import Log, read_interactions
from router_ml_training.settings import MlflowSettings, TrainingSettings

__all__ = ["HOME_VARIABLE", "Home", "Sample", "attempt", "home_folder", "open_home", "read_sample"]

T = TypeVar("T")

HOME_VARIABLE = "ROUTER_ML_NOTEBOOK_HOME"
# As much as a laptop reads and scores while somebody waits.
_MOST_ROWS = 20_000
_SQLITE = "sqlite:///"
_HINT = (
    "Run `router-ml demo`, and open the notebook with `-- --home demo-output` after its name (or with "
    f"`{HOME_VARIABLE}=demo-output`); for your own traffic, open it in the folder of your `router.toml`."
)


@dataclass(frozen=True, slots=True)
class Home:
    """One folder's configuration, checked, with its shelf and the logs that were found in it."""

    folder: Path
    config: Config
    training: TrainingSettings
    mlflow: MlflowSettings
    shelf: Shelf
    ladder: Ladder
    logs: tuple[Log, ...]

    def bundle(self, version: str | None = None) -> Bundle:
        """Load a version from the shelf; None: the one in service."""
        return load_bundle(self.shelf.champion_path() if version is None else self.shelf.path(version))

    def versions(self) -> list[str]:
        """Return the versions on the shelf that can be read, the newest first."""
        return [entry.version for entry in reversed(self.shelf.versions()) if not entry.problem]


@dataclass(frozen=True, slots=True)
class Sample:
    """The newest interactions of the logs, and the same as arrays: row i of `dataset` is `interactions[i]`."""

    interactions: tuple[Interaction, ...]
    dataset: Dataset
    n_read: int

    @property
    def note(self) -> str:
        """How many there are, in one sentence."""
        if self.n_read > len(self.interactions):
            return f"The newest {len(self.interactions):,} of {self.n_read:,} interactions."
        return f"All {self.n_read:,} interactions."


def home_folder(arguments: Mapping[str, object], environ: Mapping[str, str]) -> Path:
    """Return the folder that `--home` or the environment names; else the current one."""
    return Path(str(arguments.get("home") or environ.get(HOME_VARIABLE) or "."))


def open_home(folder: Path, environ: Mapping[str, str]) -> Home:
    """Read the configuration of a folder, and find the logs in it.

    Relative paths in its `router.toml` are taken from that folder, wherever the notebook was started.

    Args:
        folder: Holds `router.toml`.
        environ: Overrides of the configuration, usually `os.environ`.

    Raises:
        UsageError: When there is no configuration, with what to do.
        ConfigError: When the configuration is wrong.
    """
    file = folder / "router.toml"
    if not file.is_file():
        raise UsageError(f"There is no `router.toml` in `{folder.resolve()}`. {_HINT}")
    kept = {name: value for name, value in environ.items() if name != HOME_VARIABLE}
    config = load_config(file, kept)
    shelf = Shelf(folder / config.models_dir)
    ladder = config.ladder or load_bundle(shelf.champion_path()).ladder
    training, mlflow = (
        parse_section(model, config.sections[name], where=str(file), prefix=f"{name}.")
        for name, model in (("training", TrainingSettings), ("mlflow", MlflowSettings))
    )
    assert isinstance(training, TrainingSettings)  # noqa: S101  what the two models are
    assert isinstance(mlflow, MlflowSettings)  # noqa: S101
    return Home(folder, config, training, mlflow, shelf, ladder, (*_files(folder), *_store(folder, config.store.url)))


def read_sample(home: Home, *, most: int = _MOST_ROWS) -> Sample:
    """Read the newest interactions of all logs of a folder.

    Args:
        home: The folder.
        most: Interactions to keep, so that any log fits.

    Raises:
        DataError: When there is no log, or it cannot be read or learned from.
    """
    if not home.logs:
        raise DataError(
            f"There is no log of interactions in `{home.folder.resolve()}`: no `*.parquet` or `*.jsonl` "
            f"of that kind, and no event store. Import one with `router-ml ingest FILE --out "
            f"{home.folder / 'log.parquet'}`, or let the service record some traffic. {_HINT}"
        )
    n_read = 0

    def counted(item: Interaction) -> tuple[float, str]:
        nonlocal n_read
        n_read += 1
        return item.ts.timestamp(), item.id

    newest = heapq.nlargest(most, read_interactions(home.logs, home.ladder), key=counted)
    kept = tuple(reversed(newest))
    return Sample(kept, build_dataset(kept, home.ladder.names), n_read)


def attempt(task: Callable[[], T]) -> tuple[T | None, str]:
    """Return what a task returns and an empty message; or None and what went wrong, where it says what to do."""
    try:
        return task(), ""
    except RouterError as error:
        return None, str(error)


def _files(folder: Path) -> list[Log]:
    """Return the interaction logs in a folder; of an imported log the import, not the raw file beside it."""
    tables = [path for path in sorted(folder.glob("*.parquet")) if _is_log_table(path)]
    stems = {path.stem for path in tables}
    lines = [path for path in sorted(folder.glob("*.jsonl")) if path.stem not in stems and _are_log_lines(path)]
    return [Log(str(path)) for path in (*tables, *lines)]


def _is_log_table(path: Path) -> bool:
    polars = require("polars", extra="training", why="to read logs")
    try:
        return {"attempts", "messages", "ts"} <= set(polars.read_parquet_schema(path))
    except (OSError, polars.exceptions.PolarsError):
        return False


def _are_log_lines(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return SCHEMA in file.readline()


def _store(folder: Path, url: str) -> list[Log]:
    if url.startswith(_SQLITE):
        path = folder / url.removeprefix(_SQLITE).partition("?")[0]
        return [Log(str(path), "store")] if path.is_file() else []
    return [Log(url, "store")]
