"""One unit of a log -> its parts on disk: what a worker process does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from router_ml.features import SCHEMA_HASH
from router_ml.features.answer import ANSWER_SCHEMA_HASH
from router_ml.ladder import Ladder
from router_ml.schema import Interaction
from router_ml_training.blocks import BlockBuilder
from router_ml_training.corpus.parts import Part, Tally, read_part, write_part
from router_ml_training.corpus.units import ROWS, Unit
from router_ml_training.reading import options_of, traffic, usable
from router_ml_training.sources import SOURCES, Reject
from router_ml_training.sources.store import read_slice

__all__ = ["Build", "build", "parts_of"]

# Whose code decides what is in a part; a part that other code has made is made again.
_CODE = (
    "router_ml.schema",
    "router_ml.store.reading",
    "router_ml_training.answers",
    "router_ml_training.blocks",
    "router_ml_training.columns",
    "router_ml_training.corpus.building",
    "router_ml_training.corpus.parts",
    "router_ml_training.frames",
    "router_ml_training.labels",
    "router_ml_training.reading",
    "router_ml_training.reliability",
    "router_ml_training.sources.files",
    "router_ml_training.sources.native",
    "router_ml_training.sources.objects",
    "router_ml_training.sources.outcomes",
    "router_ml_training.sources.rows",
    "router_ml_training.sources.store",
)


@dataclass(frozen=True, slots=True)
class Build:
    """One unit to be read, for which ladder, and the folder for its parts.

    Answers of rows whose place is not below `ceiling` are not looked at; see `AnswerMaterial`.
    """

    unit: Unit
    ladder: Ladder
    folder: Path
    ceiling: int

    @property
    def key(self) -> str:
        """What the parts are made from, and how."""
        tiers = [(tier.name, tier.model) for tier in self.ladder]
        made_from = (self.unit.log.source, self.unit.fingerprint, tiers)
        made_by = (SCHEMA_HASH, ANSWER_SCHEMA_HASH, _code(), ROWS)
        return hashlib.sha256(json.dumps((made_from, made_by)).encode()).hexdigest()


def build(task: Build) -> int:
    """Read a unit and write its parts, the last one last.

    Returns:
        How many rows are in them.

    Raises:
        DataError: When the unit as a whole cannot be read, or a part cannot be written.
        StoreError: When the store cannot be read.
    """
    names = task.ladder.names
    builder, n_parts, n_rows = BlockBuilder(names, ceiling=task.ceiling), 0, 0
    rejected, reason = 0, ""

    def write(*, last: bool) -> None:
        tally = Tally(len(builder), rejected, reason)
        write_part(_path(task, n_parts), Part(builder.built(), tally, last), task.key)

    for row in map(usable, traffic(_rows(task))):
        if isinstance(row, str):
            rejected, reason = rejected + 1, reason or row
            continue
        if len(builder) == ROWS:
            write(last=False)
            builder, n_parts, rejected, reason = BlockBuilder(names, ceiling=task.ceiling), n_parts + 1, 0, ""
        builder.add(row)
        n_rows += 1
    write(last=True)
    return n_rows


def parts_of(task: Build) -> dict[str, Part] | None:
    """Return the parts of a unit by file name, in order; None when one is missing, damaged, or made from other rows."""
    found: dict[str, Part] = {}
    while True:
        path = _path(task, len(found))
        part = read_part(path, task.key)
        if part is None:
            return None
        found[path.name] = part
        if part.last:
            return found


def _path(task: Build, number: int) -> Path:
    return task.folder / f"{task.unit.name}.{number:04d}.part"


def _rows(task: Build) -> Iterator[Interaction | Reject]:
    log, options = task.unit.log, options_of(task.unit.log, task.ladder)
    if task.unit.bounds is not None:
        return read_slice(log.location, task.unit.bounds, options)
    return SOURCES.load(log.source)(log.location, options)


@cache
def _code() -> str:
    digest = hashlib.sha256()
    for name in _CODE:
        digest.update(Path(str(import_module(name).__file__)).read_bytes())
    return digest.hexdigest()
