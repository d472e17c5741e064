"""Results of a golden set as audit evidence: rows of the event store, one per item and run, always the same id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

import orjson

from router_ml.schema import GOLDEN, Interaction, parse_interaction
from router_ml_serving.golden.items import GoldenItem
from router_ml_serving.golden.running import ItemResult
from router_ml_serving.journal import stored_features, without_words

__all__ = ["evidence_of_item", "golden_id"]


def golden_id(item: GoldenItem, *, set_digest: str, models: Mapping[str, str], slot: str) -> str:
    """Return the id of an item's row: the same for the same set, tiers' models and slot, so that it is there once."""
    told = "\n".join((set_digest, item.id, str(sorted(models.items())), slot))
    return f"{GOLDEN}-{hashlib.sha256(told.encode()).hexdigest()[:32]}"


def evidence_of_item(result: ItemResult, *, set_digest: str, slot: str, ts: datetime, keep_text: bool) -> Interaction:
    """Return what the log keeps of one item's run.

    Items are chosen, not drawn: the tag `golden` tells these rows from audits of traffic.

    Args:
        result: What came of it.
        set_digest: Digest of the golden set.
        slot: Name of the run.
        ts: When it was over, with its time zone.
        keep_text: False keeps features in place of messages and answers.
    """
    request = result.item.chat.request
    models = {attempt.tier: attempt.model or "" for attempt in result.attempts}
    body = {
        "messages": request.messages if keep_text else (),
        "tools": request.tools if keep_text else None,
        "response_format": request.response_format if keep_text else None,
        "max_tokens": request.max_tokens,
    }
    attempts = [
        attempt.model_dump(mode="json") if keep_text else without_words(request, attempt) for attempt in result.attempts
    ]
    golden = {"set": set_digest, "item": result.item.digest, "slot": slot, "judge_usd": result.judge_usd}
    row = {
        "id": golden_id(result.item, set_digest=set_digest, models=models, slot=slot),
        "ts": ts,
        "session_id": f"{GOLDEN}-{result.item.digest}",
        "tenant": request.tenant,
        "feature": request.feature,
        "use_case": request.use_case,
        "tags": {GOLDEN: golden},
        "request": body,
        "features": None if keep_text else stored_features(request),
        "candidates": list(models),
        "mode": "audit",
        "attempts": attempts,
    }
    # Through JSON, where what is unknown of an answer (NaN) is null.
    return parse_interaction(orjson.dumps(row))
