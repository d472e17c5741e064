"""Sessions and template memory together: the dearer floor wins, and what is over teaches both."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from router_ml.schema import Attempt, Decision, Plan, Request
from router_ml_serving.recall import Recall, Recalled
from router_ml_serving.settings import ServingSettings

LADDER = ("small", "medium", "large")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SYSTEM = {"role": "system", "content": "You write SQL."}
ASKED = {"role": "user", "content": "How many orders did we have on each day of the last month, please, and why?"}
ANSWER = {"role": "assistant", "content": "SELECT ..."}


def decided(first: str = "small") -> Decision:
    return Decision(
        decision_id="d1",
        tier=first,
        model=first,
        plan=Plan(first, "large"),
        policy_version="one",
        adequacy=dict.fromkeys(LADDER, 0.8),
        expected_cost_usd={"small": 0.05, "medium": 0.2, "large": 1.0},
        propensity={},
        quality=1.0,
        threshold=0.0,
        explored=False,
        reason="",
    )


def attempt(tier: str, *, adequate: bool = True, error: str | None = None) -> Attempt:
    verdicts = [] if adequate else [{"adequate": False, "source": "rule"}]
    return Attempt.model_validate({"tier": tier, "input_tokens": 70, "verdicts": verdicts, "error": error})


def asks(*messages: dict[str, Any], session: str | None = "s1") -> Request:
    return Request(messages=[SYSTEM, *messages], session_id=session)


@pytest.fixture
def recall() -> Recall:
    return Recall(ServingSettings(), lambda: 1000.0)


ESCALATED = (attempt("small", adequate=False), attempt("medium"))


def test_of_a_new_service_nothing_is_known(recall: Recall) -> None:
    assert recall.before(asks(ASKED), LADDER, "one") == Recalled()


def test_an_escalation_warms_the_cache_of_its_tier_and_raises_its_class(recall: Recall) -> None:
    recall.after(asks(ASKED), decided(), ESCALATED, ESCALATED[-1])
    found = recall.before(asks(ASKED, ANSWER, {"role": "user", "content": "go on"}), LADDER, "one")
    assert (found.hint.warm, found.hint.warm_tokens) == ("medium", 70)
    assert (found.floor, found.floor_reason) == ("medium", "session")
    other = recall.before(asks(ASKED, session="s2"), LADDER, "one")
    assert (other.floor, other.floor_reason) == ("medium", "template memory")


def test_the_dearer_of_both_floors_counts(recall: Recall) -> None:
    recall.after(asks(ASKED), decided(), ESCALATED, ESCALATED[-1])
    escalated = (attempt("medium", adequate=False), attempt("large"))
    recall.after(asks(ASKED, session="s2"), decided("medium"), escalated, escalated[-1])
    found = recall.before(asks(ASKED, ANSWER, {"role": "user", "content": "go on"}), LADDER, "one")
    assert (found.floor, found.floor_reason) == ("large", "template memory")


def test_who_asks_again_is_reported_once(recall: Recall) -> None:
    recall.after(asks(ASKED), decided(), (attempt("small"),), attempt("small"))
    first, second = (recall.before(asks(ASKED), LADDER, "one").weak_negative(NOW) for _ in range(2))
    assert first is not None
    assert (first[0], first[1].source, first[1].adequate, first[1].key) == ("d1", "retry", False, "retry")
    assert second is None


def test_an_exchange_without_an_answer_leaves_its_session_as_it_was(recall: Recall) -> None:
    failed = (attempt("small", error="timeout"), attempt("large", error="cancelled"))
    recall.after(asks(ASKED), decided(), failed, None)
    recall.after(asks(ASKED), decided(), failed, failed[-1])
    recall.after(asks(ASKED), decided(), (), None)
    assert recall.before(asks(ASKED), LADDER, "one") == Recalled()


def test_an_answer_that_was_refused_and_never_shown_is_not_asked_for_again(recall: Recall) -> None:
    # The client left while the next tier was asked.
    gone = (attempt("small", adequate=False), attempt("large", error="cancelled"))
    recall.after(asks(ASKED), decided(), gone, None)
    assert recall.before(asks(ASKED), LADDER, "one") == Recalled()
    # The deadline came while the next tier was asked: the refused answer is what the client got.
    recall.after(asks(ASKED), decided(), gone, gone[0])
    assert recall.before(asks(ASKED), LADDER, "one").weak_negative(NOW) is not None


def test_who_answered_because_of_an_error_is_no_floor(recall: Recall) -> None:
    failed = (attempt("small", error="status 503"), attempt("large"))
    recall.after(asks(ASKED), decided(), failed, failed[-1])
    found = recall.before(asks(ASKED, ANSWER, {"role": "user", "content": "go on"}), LADDER, "one")
    assert (found.hint.warm, found.floor) == ("large", "small")


def test_decisions_alone_are_noted_without_an_answer_to_complain_about(recall: Recall) -> None:
    recall.decided(asks(ASKED), decided("large"), 70)
    found = recall.before(asks(ASKED), LADDER, "one")
    assert found.weak_negative(NOW) is None
    assert found.hint.warm == "large"


def test_good_answers_in_the_background_bring_a_class_back(recall: Recall) -> None:
    recall.after(asks(ASKED), decided(), ESCALATED, ESCALATED[-1])
    for _ in range(3):
        recall.beside(asks(ASKED), decided("medium"), (attempt("small"), attempt("large", error="timeout")))
    assert recall.before(asks(ASKED, session="s2"), LADDER, "one").floor is None


def test_nothing_is_remembered_where_that_is_switched_off() -> None:
    recall = Recall(ServingSettings(sessions=0, memory_classes=0), lambda: 1000.0)
    recall.after(asks(ASKED), decided(), ESCALATED, ESCALATED[-1])
    assert recall.before(asks(ASKED), LADDER, "one") == Recalled()
    idle = Recall(ServingSettings(cache_idle_s=0.0, repeat_s=0.0), lambda: 1000.0)
    idle.after(asks(ASKED), decided(), (attempt("small"),), attempt("small"))
    found = idle.before(asks(ASKED), LADDER, "one")
    assert (found.hint.warm, found.weak_negative(NOW)) == (None, None)
