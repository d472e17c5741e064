"""Importers: one file per kind of log, each streaming `Interaction`s, and `Reject`s for the rows it cannot read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from router_ml.config import ObjectSettings
from router_ml.ladder import Ladder
from router_ml.registry import Registry
from router_ml.schema import Interaction

__all__ = ["SOURCES", "Reject", "Source", "SourceOptions"]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that could not be read: its number in `file` (from 1; None: unknown), why, and how it begins."""

    line: int | None
    reason: str
    raw: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a source may need to know beyond the location; each source reads what concerns it.

    `tiers` maps a tier to the model whose outcomes are its own, cheapest first. An outcome counts as adequate from a
    quality of `adequate_bar`. `start` is the time of the first row of a table that has no times of its own.
    With a `ladder`, a row that names a tier it does not have is rejected. `objects` says how to reach `s3://`
    locations. Sources that can leave out what is older than `since` without reading it do so; others give it all.
    """

    tiers: Mapping[str, str] = field(default_factory=dict)
    adequate_bar: float = 1.0
    start: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    ladder: Ladder | None = None
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    since: datetime | None = None


class Source(Protocol):
    """Reads one kind of log, in memory that does not grow with the log."""

    def __call__(self, location: str, options: SourceOptions) -> Iterator[Interaction | Reject]:
        """Stream the interactions at a location, and a Reject for each row that cannot be read.

        Args:
            location: File, folder, glob pattern, or store URL, as the source understands it.
            options: What else the source needs to know.

        Raises:
            DataError: When the location as a whole cannot be read.
        """
        ...


SOURCES: Registry[Source] = Registry(
    "source",
    {
        "native": "router_ml_training.sources.native:read",
        "outcomes": "router_ml_training.sources.outcomes:read",
        "store": "router_ml_training.sources.store:read",
    },
)
