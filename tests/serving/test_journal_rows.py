"""A row of the store says what the interaction says, though nothing of it was checked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml.features import featurize, to_stored
from router_ml.features.answer import answer_of_attempt, answer_to_stored, featurize_answer
from router_ml.schema import (
    DECIDED_TIER,
    Attempt,
    Decision,
    Interaction,
    LogProbs,
    Plan,
    Request,
    RequestBody,
    Verdict,
    parse_interaction,
)
from router_ml.store import row_of
from router_ml_serving.journal import row_of_exchange
from router_ml_serving.wire import Chat, read_chat

T0 = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
COUNT = st.integers(0, 2**40)
MONEY = st.floats(0.0, 1e9)
MESSAGE = st.builds(
    lambda role, content, more: {**more, "role": role, "content": content},
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.none() | TEXT | st.lists(OBJECT, max_size=2),
    OBJECT,
)
BODY = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, min_size=1, max_size=3)},
    optional={
        "model": st.sampled_from(["auto", "small", "router-0.9"]),
        "tools": st.lists(OBJECT, max_size=2),
        "response_format": OBJECT,
        "max_tokens": COUNT,
        "metadata": st.dictionaries(st.sampled_from(["tenant", "session_id", "trace"]), TEXT, max_size=3),
        "router": st.fixed_dictionaries({}, optional={"use_case": TEXT, "feature": TEXT, "extra": JSON}),
    },
)
VERDICT = st.builds(
    Verdict,
    adequate=st.none() | st.booleans(),
    score=st.none() | st.floats(0.0, 1.0),
    source=st.sampled_from(["verifier", "rule"]),
    reason=st.none() | TEXT,
)
LOGPROBS = st.builds(LogProbs, mean=st.floats(-20, 0), lowest=st.floats(-20, 0), unsure_share=st.floats(0, 1))
ATTEMPT = st.builds(
    Attempt,
    tier=st.sampled_from(["small", "large"]),
    model=TEXT,
    input_tokens=st.none() | COUNT,
    cached_tokens=COUNT,
    output_tokens=st.none() | COUNT,
    cost_usd=st.none() | MONEY,
    ttft_ms=st.none() | MONEY,
    latency_ms=st.none() | MONEY,
    finish_reason=st.none() | st.sampled_from(["stop", "length"]),
    error=st.none() | st.just("timeout"),
    response=st.none() | TEXT,
    tool_calls=st.lists(OBJECT, max_size=2).map(tuple),
    verdicts=st.lists(VERDICT, max_size=2).map(tuple),
    logprobs=st.none() | LOGPROBS,
)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=9)), timezone(timedelta(hours=-3, minutes=-30))])


def decision(share: float) -> Decision:
    propensity = {"small": share, "large": 1.0 - share}
    return Decision("d1", "small", "mini", Plan("small"), "v1", {}, {}, propensity, 0.97, 0.0, share < 0.5, "because")


def interaction(
    chat: Chat, decided: Decision, attempts: list[Attempt], ts: datetime, *, keep_text: bool
) -> Interaction:
    """Return what happened as a checked record, field by field."""
    asked, tags = chat.request, dict(chat.tags) if keep_text else {}
    if chat.model != "auto":
        tags["model"] = chat.model
    if not attempts:
        tags[DECIDED_TIER] = decided.tier
    words = {"messages": asked.messages, "tools": asked.tools, "response_format": asked.response_format}
    return Interaction(
        id=decided.decision_id,
        ts=ts,
        session_id=asked.session_id,
        tenant=asked.tenant,
        feature=asked.feature,
        use_case=asked.use_case,
        tags=tags,
        request=RequestBody.model_validate({**(words if keep_text else {}), "max_tokens": asked.max_tokens}),
        features=None if keep_text else to_stored(featurize(asked)),
        policy_version=decided.policy_version,
        candidates=("small", "large"),
        propensity=dict(decided.propensity),
        explored=decided.explored,
        attempts=tuple(attempts if keep_text else (wordless(asked, attempt) for attempt in attempts)),
    )


def wordless(asked: Request, attempt: Attempt) -> Attempt:
    """Return an attempt with features in place of its answer, and verdicts without their reasons."""
    features = None
    if attempt.error is None and (attempt.response is not None or attempt.tool_calls):
        features = answer_to_stored(featurize_answer(asked, answer_of_attempt(attempt)))
    verdicts = tuple(verdict.model_copy(update={"reason": None}) for verdict in attempt.verdicts)
    return attempt.model_copy(update={"response": None, "tool_calls": (), "verdicts": verdicts, "features": features})


@settings(max_examples=60, deadline=None)
@given(
    body=BODY,
    attempts=st.lists(ATTEMPT, max_size=2),
    share=st.floats(0.0, 1.0),
    ts=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=ZONES),
    keep_text=st.booleans(),
)
def test_the_row_of_an_exchange_is_the_row_of_its_interaction(
    body: dict[str, Any], attempts: list[Attempt], share: float, ts: datetime, *, keep_text: bool
) -> None:
    chat = read_chat(body)
    expected = interaction(chat, decision(share), attempts, ts, keep_text=keep_text)
    row = row_of_exchange(chat, decision(share), attempts, ts=ts, candidates=("small", "large"), keep_text=keep_text)
    assert parse_interaction(row.body) == parse_interaction(expected.to_json())
    assert row._replace(body="") == row_of(expected)._replace(body="")
    assert "\n" not in row.body


def test_a_record_that_is_no_json_is_refused() -> None:
    chat = read_chat({"messages": [{"role": "user", "content": "\ud800"}]})
    with pytest.raises(TypeError):
        row_of_exchange(chat, decision(1.0), [], ts=T0, candidates=("small",), keep_text=True)
