"""Rows of the SQL store back into interactions, each with the feedback that came later."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from router_ml.errors import RecordError
from router_ml.schema import DECIDED_TIER, Feedback, Interaction, parse_interaction
from router_ml.store import Deciding, OnReject, StoreInfo
from router_ml.store.rows import to_utc
from router_ml.store.tables import FEEDBACK, INTERACTIONS

__all__ = ["deciding_of", "feedback_of", "info_of", "later_feedback", "log_reject", "read_row"]

log = logging.getLogger(__name__)

_SIZE = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": "SELECT (SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('interactions'))"
    " + pg_total_relation_size('interaction_ids') + pg_total_relation_size('feedback')",
}


def feedback_of(connection: Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the feedback on these interactions as JSON, oldest first."""
    if not ids:
        return {}
    query = select(FEEDBACK.c.decision_id, FEEDBACK.c.body).where(FEEDBACK.c.decision_id.in_(ids))
    found: dict[str, list[str]] = {}
    for decision_id, body in connection.execute(query.order_by(FEEDBACK.c.ts, FEEDBACK.c.id)):
        found.setdefault(decision_id, []).append(body)
    return found


def read_row(row_id: str, body: str, feedback: Sequence[str], on_reject: OnReject) -> Interaction | None:
    """Read one row with its feedback.

    Args:
        row_id: For `on_reject`.
        body: The interaction as JSON.
        feedback: Each as JSON, oldest first.
        on_reject: Told what cannot be read, and why.

    Returns:
        The interaction with all of its feedback that can be read; None when it cannot be read itself.
    """
    try:
        interaction = parse_interaction(body)
    except RecordError as error:
        on_reject(row_id, str(error))
        return None
    later = later_feedback(row_id, feedback, on_reject)
    return _merged(interaction, later) if later else interaction


def later_feedback(row_id: str, feedback: Sequence[str], on_reject: OnReject) -> list[Feedback]:
    """Return the feedback on one row that can be read, oldest first.

    Args:
        row_id: For `on_reject`.
        feedback: Each as JSON.
        on_reject: Told what cannot be read, and why.
    """
    later = []
    for item in feedback:
        try:
            later.append(Feedback.model_validate_json(item))
        except ValidationError as error:
            on_reject(row_id, f"one feedback left out: {error.errors()[0]['msg']}")
    return sorted(later, key=lambda item: to_utc(item.ts))


def deciding_of(body: str) -> Deciding | None:
    """Return what one row says about its decision; None when it cannot be read.

    Args:
        body: The interaction as JSON.
    """
    try:
        found = parse_interaction(body)
    except RecordError:
        return None
    answered = (attempt.tier for attempt in reversed(found.attempts) if attempt.error is None)
    decided = found.tags.get(DECIDED_TIER)
    return Deciding(
        policy_version=found.policy_version,
        tenant=found.tenant,
        shown=next(answered, decided if isinstance(decided, str) else None),
        chosen=found.mode == "live" and len(found.propensity) > 1,
    )


def info_of(connection: Connection, schema: int) -> StoreInfo:
    """Return what a store holds.

    Args:
        connection: In a transaction.
        schema: The version of its tables.
    """
    oldest, newest = func.min(INTERACTIONS.c.ts), func.max(INTERACTIONS.c.ts)
    modes = select(INTERACTIONS.c.mode, func.count().label("n")).group_by(INTERACTIONS.c.mode)
    by_mode = {row.mode: row.n for row in connection.execute(modes)}
    first, last = connection.execute(select(oldest, newest)).one()
    return StoreInfo(
        schema=schema,
        interactions=sum(by_mode.values()),
        by_mode=by_mode,
        feedback=connection.execute(select(func.count()).select_from(FEEDBACK)).scalar_one(),
        oldest=None if first is None else datetime.fromisoformat(first),
        newest=None if last is None else datetime.fromisoformat(last),
        size_bytes=connection.exec_driver_sql(_SIZE[connection.dialect.name]).scalar_one(),
    )


def _merged(interaction: Interaction, later: Sequence[Feedback]) -> Interaction:
    # What came inside the interaction may have been sent again through `amend`.
    keys = {item.key for item in interaction.feedback if item.key is not None}
    new = [item for item in later if item.key not in keys and item not in interaction.feedback]
    both = sorted((*interaction.feedback, *new), key=lambda item: to_utc(item.ts))
    return interaction.model_copy(update={"feedback": tuple(both)})


def log_reject(row_id: str, _reason: str) -> None:
    """Log that a row cannot be read."""
    # The reason may quote the row, and so a prompt: it goes only to callers who ask for it.
    log.warning("stored_interaction_unreadable", extra={"interaction_id": row_id})
