"""What happened to one request as a row of the store: built off the hot path, without text if none is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import BaseModel

from router_ml.exploration import Background
from router_ml.features import SCHEMA_HASH, featurize
from router_ml.features.answer import ANSWER_SCHEMA_HASH, answer_of_attempt, featurize_answer
from router_ml.schema import DECIDED_TIER, SCHEMA, Attempt, Decision, Request
from router_ml.store import StoreRow
from router_ml_serving.wire import ROUTER_MODELS, Chat

__all__ = [
    "BESIDE",
    "CHALLENGER",
    "SHARE",
    "beside_id",
    "row_beside",
    "row_of_exchange",
    "stored_features",
    "without_words",
]

# Tags of an audit's or a shadow's record: the decision it ran beside, and the probability of the draw.
BESIDE, SHARE = "beside", "share"
# Tag of a live record: what the challenger would have decided.
CHALLENGER = "challenger"


def row_of_exchange(
    chat: Chat,
    decision: Decision,
    attempts: Sequence[Attempt],
    *,
    ts: datetime,
    candidates: tuple[str, ...],
    keep_text: bool,
    tags: Mapping[str, Any] | None = None,
) -> StoreRow:
    """Write out the log record of one request: what `Interaction` would write, at a tenth of its price.

    Nothing is checked again: what is written here was read, decided or measured by this service; a test compares both.

    Args:
        chat: What was asked.
        decision: What was decided, with its propensities.
        attempts: What was tried, in order; empty when only the decision was asked for.
        ts: When the request arrived, with its time zone.
        candidates: The tiers the decision chose among.
        keep_text: False keeps features in place of messages and answers, and drops the client's tags.
        tags: Further tags, of the service itself.

    Raises:
        TypeError: When something in it cannot be written as JSON.
    """
    record = _record(chat, decision, attempts, ts, candidates, keep_text=keep_text)
    if tags:
        record["tags"].update(tags)
    return _row(record)


def row_beside(
    chat: Chat,
    decision: Decision,
    attempts: Sequence[Attempt],
    background: Background,
    propensity: Mapping[str, float],
    *,
    ts: datetime,
    candidates: tuple[str, ...],
    keep_text: bool,
) -> StoreRow:
    """Write out the log record of what ran beside an answer: an audit or a shadow.

    Args:
        chat: What was asked.
        decision: What was decided about the answer that was shown.
        attempts: What was run in the background.
        background: The draw.
        propensity: Probability of each tier to be the shadow; empty for an audit.
        ts: When the request arrived, with its time zone.
        candidates: The tiers that were drawn among, or run.
        keep_text: As for `row_of_exchange`.

    Raises:
        TypeError: When something in it cannot be written as JSON.
    """
    record = _record(chat, decision, attempts, ts, candidates, keep_text=keep_text)
    record["tags"].update({BESIDE: decision.decision_id, SHARE: background.share})
    record |= {
        "id": beside_id(decision.decision_id, background.mode),
        "mode": background.mode,
        "explored": False,
        "propensity": propensity,
    }
    return _row(record)


def beside_id(decision_id: str, mode: str) -> str:
    """Return the id of what ran beside a decision."""
    return f"{decision_id}-{mode}"


def _record(
    chat: Chat,
    decision: Decision,
    attempts: Sequence[Attempt],
    ts: datetime,
    candidates: tuple[str, ...],
    *,
    keep_text: bool,
) -> dict[str, Any]:
    request, asked = chat.request, _asked(chat, decision, attempts)
    return {
        "schema": SCHEMA,
        "id": decision.decision_id,
        "ts": ts,
        "session_id": request.session_id,
        "tenant": request.tenant,
        "feature": request.feature,
        "use_case": request.use_case,
        "tags": {**chat.tags, **asked} if keep_text else asked,
        "request": {
            "messages": request.messages if keep_text else (),
            "tools": request.tools if keep_text else None,
            "response_format": request.response_format if keep_text else None,
            "max_tokens": request.max_tokens,
        },
        "features": None if keep_text else stored_features(request),
        "policy_version": decision.policy_version,
        "candidates": candidates,
        "propensity": decision.propensity,
        "explored": decision.explored,
        "mode": "live",
        "attempts": attempts if keep_text else [without_words(request, attempt) for attempt in attempts],
        "feedback": (),
    }


def _row(record: dict[str, Any]) -> StoreRow:
    body = orjson.dumps(record, _plain, orjson.OPT_UTC_Z).decode()
    return StoreRow.of(
        record["id"],
        _stamped(record["ts"]),
        body,
        mode=record["mode"],
        policy_version=record["policy_version"],
        tenant=record["tenant"],
    )


def _stamped(ts: datetime) -> datetime | str:
    # What `stamp` writes, at a tenth of its price; whole seconds and other zones are left to it.
    return orjson.dumps(ts)[1:-1].decode() if ts.microsecond and ts.tzinfo is UTC else ts


def _plain(value: Any) -> Any:  # what orjson does not know: our records, and read-only mappings
    return vars(value) if isinstance(value, BaseModel) else dict(value)


def _asked(chat: Chat, decision: Decision, attempts: Sequence[Attempt]) -> dict[str, str]:
    asked = {} if chat.model == ROUTER_MODELS[0] else {"model": chat.model}
    if not attempts:  # only the decision was asked for: feedback that names no tier is about the one it named
        asked[DECIDED_TIER] = decision.tier
    return asked


def stored_features(request: Request) -> dict[str, Any]:  # Any: JSON
    """Return what is kept of a request in place of its text."""
    found = featurize(request)
    return {
        "schema_hash": SCHEMA_HASH,
        "dense": found.dense.tolist(),
        "ids": found.ids.tolist(),
        "counts": found.counts.tolist(),
    }


def without_words(request: Request, attempt: Attempt) -> dict[str, Any]:  # Any: JSON
    """Return an attempt with the features of its answer in place of its text, and no reasons."""
    features = None
    if attempt.error is None and (attempt.response is not None or attempt.tool_calls):
        found = featurize_answer(request, answer_of_attempt(attempt))
        features = {
            "schema_hash": ANSWER_SCHEMA_HASH,
            "dense": found.dense.tolist(),  # what is unknown is NaN, which is written as null
            "ids": found.ids.tolist(),
            "counts": found.counts.tolist(),
        }
    verdicts = [{**vars(verdict), "reason": None} for verdict in attempt.verdicts]
    return {**vars(attempt), "response": None, "tool_calls": (), "verdicts": verdicts, "features": features}
