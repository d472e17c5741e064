"""The event store: where interactions and feedback are kept; a protocol, and the registry of what implements it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from router_ml.errors import ConfigError
from router_ml.registry import Registry
from router_ml.schema import Feedback, Interaction, Mode
from router_ml.store.rows import Bounds, StoredRow, StoreRow, StoreSlice, row_of

__all__ = [
    "STORES",
    "Bounds",
    "Deciding",
    "EventStore",
    "OnReject",
    "StoreInfo",
    "StoreRow",
    "StoreSlice",
    "StoredRow",
    "open_store",
    "row_of",
]

# Called with the id of a row that cannot be read, and the reason.
OnReject = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store holds: its schema, how many interactions of each mode and pieces of feedback, from when to when."""

    schema: int
    interactions: int
    by_mode: Mapping[str, int]
    feedback: int
    oldest: datetime | None
    newest: datetime | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Deciding:
    """What is known of a decision that somebody judges: which policy made it, and for whom.

    `shown` is the tier whose answer the client got, or that it was told to ask. `chosen` says that a policy chose it
    among several: the client had not named it, and this is no audit or shadow.
    """

    policy_version: str | None
    tenant: str | None
    shown: str | None
    chosen: bool


class EventStore(Protocol):
    """A durable log of interactions to which feedback is added later. Every method raises StoreError on failure."""

    def append(self, interactions: Sequence[Interaction]) -> None:
        """Keep these interactions, all or none; an id that is already there is left as it is. Durable on return."""
        ...

    def append_rows(self, rows: Sequence[StoreRow]) -> None:
        """Keep interactions that are written out already; as `append`, at a fraction of its price."""
        ...

    def amend(self, decision_id: str, feedback: Feedback) -> bool:
        """Add feedback to one interaction, and return whether it was new. Durable on return.

        The interaction may arrive later. The same `feedback.key` for the same decision counts once; without a key,
        byte-identical feedback counts once.
        """
        ...

    def scan(
        self, since: datetime | None = None, *, mode: Mode | None = None, on_reject: OnReject | None = None
    ) -> Iterator[Interaction]:
        """Stream interactions by (ts, id), each with all feedback it has, oldest feedback first.

        Args:
            since: Leave out what is older; a time without zone is UTC.
            mode: Only interactions of this mode.
            on_reject: Told about each row that cannot be read; by default such rows are logged and left out.
        """
        ...

    def slices(self, size: int, bounds: Bounds | None = None) -> list[StoreSlice]:
        """Return the interactions cut into slices of at most `size`, by UTC day and (ts, id), each with a fingerprint.

        What is appended to a day leaves its earlier slices as they are, unless it is dated before them. With `bounds`,
        what is within them now is the one slice; none when nothing is.
        """
        ...

    def cuts(self, size: int, since: datetime | None = None) -> list[Bounds]:
        """Return the bounds of pieces of at most `size` interactions, by (ts, id): all that are there now.

        For who reads everything once: a tenth of the price of slices, which have fingerprints.

        Args:
            size: Interactions per piece.
            since: Leave out what is older.
        """
        ...

    def pages(
        self, since: datetime | None = None, *, bounds: Bounds | None = None, size: int = 500
    ) -> Iterator[list[StoredRow]]:
        """Stream what is kept as it is kept, by (ts, id), at most `size` rows at a time.

        Args:
            since: Leave out what is older.
            bounds: Only the rows of one slice.
            size: Rows per page.
        """
        ...

    def delete(
        self,
        *,
        ids: Iterable[str] | None = None,
        tenant: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
    ) -> int:
        """Delete interactions for good, with their feedback and the records of what ran beside them.

        Deleted interactions do not come back: one that arrives late (from a queue, a spill file) is not stored, nor is
        feedback on it.

        Args:
            ids: These, and nothing else is said.
            tenant: Of this tenant, up to now.
            before: From before this time; with a tenant, those of which both holds.
            limit: At most so many in this call, so that a large deletion can be done bit by bit. What a store can drop
                in one go, such as a whole day before a time, is one bit.

        Returns:
            How many interactions were deleted; fewer than `limit`: all of them.
        """
        ...

    def expire(self, before: datetime, *, limit: int) -> int:
        """Delete what is older than its retention, as `delete` does.

        A store that can drop whole days (UTC) waits until all of a day is old.

        Args:
            before: Delete what is older.
            limit: At most so many in this call, or one day.

        Returns:
            How many interactions were deleted; fewer than `limit`: all of them.
        """
        ...

    def info(self) -> StoreInfo:
        """Return what the store holds."""
        ...

    def deciding(self, decision_id: str) -> Deciding | None:
        """Return what is known of a decision; None when nothing is, or not yet."""
        ...

    def count(self) -> int:
        """Return the number of interactions."""
        ...

    def close(self) -> None:
        """Release connections; the store is not used afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


STORES: Registry[Callable[[str], EventStore]] = Registry(
    "event store",
    {
        "sqlite": "router_ml.store.sql:open_sql_store",
        "postgresql": "router_ml.store.sql:open_sql_store",
    },
    extra="store",
)


def open_store(url: str) -> EventStore:
    """Open the event store at a URL, creating or upgrading its tables.

    Args:
        url: `sqlite:///router_ml.db` (relative), `sqlite:////var/lib/router_ml.db` (absolute), or
            `postgresql://user:password@host/database`.

    Raises:
        ConfigError: When this is not the URL of a store.
        UnknownName: When no store has this scheme.
        MissingExtra: When a needed package is not installed.
        StoreError: When the store cannot be opened, or a newer release wrote it.
    """
    scheme, found, _ = url.partition("://")
    if not found:
        raise ConfigError("[store] url: not a URL; expected something like sqlite:///router_ml.db")
    return STORES.load(scheme.partition("+")[0])(url)
