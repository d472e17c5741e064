"""A row of the event store: what is looked for by, beside the interaction as JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

from pydantic_core import PydanticSerializationError

from router_ml.errors import RecordError
from router_ml.schema import Interaction, Mode

__all__ = ["Bounds", "Place", "StoreRow", "StoreSlice", "StoredRow", "clean", "row_of", "stamp", "to_utc"]

# Characters. Two of these have to fit into one entry of an index, which has 2,700 bytes in PostgreSQL.
_LONGEST = 300

# Where a row stands in the order of a store: its (ts, id), as kept. Bounds are the first and the last of some rows.
Place: TypeAlias = tuple[str, str]
Bounds: TypeAlias = tuple[Place, Place]


class StoreRow(NamedTuple):
    """One interaction as it is stored; a tuple, because that is what database drivers take.

    Make it with `StoreRow.of`: the columns are then in the form that the store looks for.
    """

    id: str
    ts: str
    mode: Mode
    policy_version: str | None
    tenant: str
    body: str

    @classmethod
    def of(
        cls, id_: str, ts: datetime | str, body: str, *, mode: Mode, policy_version: str | None, tenant: str | None
    ) -> StoreRow:
        """Bring the columns of one interaction into the form in which they are kept.

        Args:
            id_: Of the interaction.
            ts: When the request arrived; a time without zone is UTC, and a text is one that `stamp` would write.
            body: The whole interaction as one line of JSON, without lone surrogates.
            mode: Of the interaction.
            policy_version: Who decided, where it is known.
            tenant: Who pays, where it is known; kept as "" where not.
        """
        version = None if policy_version is None else clean(policy_version)
        when = ts if isinstance(ts, str) else stamp(ts)
        return cls(clean(id_), when, mode, version, clean(tenant) if tenant else "", body)


class StoredRow(NamedTuple):
    """One interaction as it is read: its id, its JSON, and the JSON of each later feedback, oldest first."""

    id: str
    body: str
    feedback: Sequence[str]


@dataclass(frozen=True, slots=True)
class StoreSlice:
    """Some interactions of one UTC day: the `number`-th of its slices by (ts, id), and what tells them from others.

    `fingerprint` changes when an interaction is added or deleted, and when feedback on one of them is.
    """

    day: str
    number: int
    n: int
    bounds: Bounds
    fingerprint: str


def row_of(item: Interaction) -> StoreRow:
    """Return an interaction as a row.

    Raises:
        RecordError: When it cannot be written as JSON.
    """
    try:
        body = item.to_json()
    except PydanticSerializationError as error:
        raise RecordError(f"interaction {item.id!r} cannot be written as JSON: {error}") from error
    return StoreRow.of(item.id, item.ts, body, mode=item.mode, policy_version=item.policy_version, tenant=item.tenant)


def stamp(ts: datetime) -> str:
    """Return a time as text of fixed width, so that the order of the text is the order of time."""
    return to_utc(ts).isoformat(timespec="microseconds")


def to_utc(ts: datetime) -> datetime:
    """Return a time in UTC; one without zone is."""
    if ts.tzinfo is UTC:
        return ts
    return ts.replace(tzinfo=UTC) if ts.tzinfo is None else ts.astimezone(UTC)


def clean(text: str) -> str:
    """Return an identifier as databases take it, whatever somebody sent; the same for the same text.

    They know no lone surrogates, PostgreSQL no NUL, and its indexes nothing long: that is kept as its hash.
    """
    if len(text) > _LONGEST:
        return f"sha256:{hashlib.sha256(text.encode(errors='replace')).hexdigest()}"
    if text.isascii() and "\x00" not in text:
        return text
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")
