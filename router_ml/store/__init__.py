"""The event store: where interactions and feedback are kept; a protocol, and the registry of what implements it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from router_ml.errors import ConfigError
from router_ml.registry import Registry
from router_ml.schema import Feedback, Interaction, Mode

__all__ = ["STORES", "EventStore", "OnReject", "open_store"]

# Called with the id of a row that cannot be read, and the reason.
OnReject = Callable[[str, str], None]


class EventStore(Protocol):
    """A durable log of interactions to which feedback is added later. Every method raises StoreError on failure."""

    def append(self, interactions: Sequence[Interaction]) -> None:
        """Keep these interactions, all or none; an id that is already there is left as it is. Durable on return."""
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
