"""The tables of the SQL store as SQLAlchemy Core knows them; `migrations` makes them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sqlalchemy import BigInteger, Column, MetaData, Table, Text

__all__ = ["DELETIONS", "FEEDBACK", "IDS", "INTERACTIONS", "insert"]

_METADATA = MetaData()
INTERACTIONS = Table(
    "interactions",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("ts", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("policy_version", Text),
    Column("body", Text, nullable=False),
    # "": none; NULL: written by a release that had no such column, and not looked at yet.
    Column("tenant", Text),
)
# In PostgreSQL only.
IDS = Table("interaction_ids", _METADATA, Column("id", Text, primary_key=True), Column("ts", Text, nullable=False))
FEEDBACK = Table(
    "feedback",
    _METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("decision_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("ts", Text, nullable=False),
    Column("body", Text, nullable=False),
)
DELETIONS = Table(
    "deletions",
    _METADATA,
    Column("mark", Text, primary_key=True),
    Column("until", Text, nullable=False),
    Column("made", Text, nullable=False),
)


def insert(dialect: str, table: Table) -> Any:
    """Return the dialect's own `INSERT`, which takes `ON CONFLICT`; the other dialect costs megabytes and stays away.

    Args:
        dialect: `sqlite` or `postgresql`.
        table: Where to.
    """
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
