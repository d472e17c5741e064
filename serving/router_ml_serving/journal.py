"""What happened to one request as the log's `Interaction`: built off the hot path, without text if none is kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from router_ml.features import featurize, to_stored
from router_ml.features.answer import answer_of_attempt, answer_to_stored, featurize_answer
from router_ml.schema import DECIDED_TIER, Attempt, Decision, Interaction, Request, RequestBody
from router_ml_serving.wire import ROUTER_MODELS, Chat

__all__ = ["interaction_of"]


def interaction_of(
    chat: Chat,
    decision: Decision,
    attempts: Sequence[Attempt],
    *,
    ts: datetime,
    candidates: tuple[str, ...],
    keep_text: bool,
) -> Interaction:
    """Build the log record of one request.

    Args:
        chat: What was asked.
        decision: What was decided, with its propensities.
        attempts: What was tried, in order; empty when only the decision was asked for.
        ts: When the request arrived.
        candidates: The tiers the decision chose among.
        keep_text: False keeps features in place of messages and answers, and drops tags.
    """
    request = chat.request
    asked = {} if chat.model == ROUTER_MODELS[0] else {"model": chat.model}
    if not attempts:  # only the decision was asked for: feedback that names no tier is about the one it named
        asked |= {DECIDED_TIER: decision.tier}
    return Interaction(
        id=decision.decision_id,
        ts=ts,
        session_id=request.session_id,
        tenant=request.tenant,
        feature=request.feature,
        use_case=request.use_case,
        tags={**chat.tags, **asked} if keep_text else asked,
        request=_body(chat) if keep_text else RequestBody(max_tokens=request.max_tokens),
        features=None if keep_text else to_stored(featurize(request)),
        policy_version=decision.policy_version,
        candidates=candidates,
        propensity=dict(decision.propensity),
        explored=decision.explored,
        attempts=tuple(attempts if keep_text else (_without_text(request, attempt) for attempt in attempts)),
    )


def _body(chat: Chat) -> RequestBody:
    request = chat.request
    return RequestBody.model_validate(
        {
            "messages": request.messages,
            "tools": request.tools,
            "response_format": request.response_format,
            "max_tokens": request.max_tokens,
        }
    )


def _without_text(request: Request, attempt: Attempt) -> Attempt:
    features = None
    if attempt.error is None and (attempt.response is not None or attempt.tool_calls):
        features = answer_to_stored(featurize_answer(request, answer_of_attempt(attempt)))
    # A rule's reason may quote the answer.
    verdicts = tuple(verdict.model_copy(update={"reason": None}) for verdict in attempt.verdicts)
    dropped = {"response": None, "tool_calls": (), "verdicts": verdicts, "features": features}
    return attempt.model_copy(update=dropped)
