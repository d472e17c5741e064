"""Sessions: the cache that is warm, the floor under a follow-up, and the answer that was asked for again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from router_ml.schema import Decision, Plan, Request
from router_ml_serving.sessions import NOTHING_KNOWN, Sessions, dearest_floor, retry_feedback

Message = dict[str, Any]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def decided(tier: str = "small", name: str = "d1") -> Decision:
    return Decision(
        decision_id=name,
        tier=tier,
        model=tier,
        plan=Plan(tier),
        policy_version="one",
        adequacy={},
        expected_cost_usd={},
        propensity={},
        quality=1.0,
        threshold=0.0,
        explored=False,
        reason="",
    )


def asks(*messages: Message, session: str | None = "s1", tenant: str | None = "acme") -> Request:
    return Request(messages=messages, session_id=session, tenant=tenant)


HARD = said("user", "Prove that there are infinitely many primes of the form 4k + 3, in every detail, please.")
PROOF = said("assistant", "Suppose there were finitely many ...")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    known = Sessions(100, 1800.0, clock)
    known.note(asks(HARD), decided("large"), "large", 900)
    return known


def test_the_next_turn_finds_the_cache_of_the_tier_that_answered_last(sessions: Sessions) -> None:
    hint = sessions.look(
        asks(HARD, PROOF, said("user", "Now do the same for the primes of the form 6k + 5, and as fully."))
    )
    assert (hint.warm, hint.warm_tokens) == ("large", 900)


def test_a_cache_is_cold_after_five_idle_minutes_and_the_session_is_over_after_thirty(
    sessions: Sessions, clock: Clock
) -> None:
    follow_up = asks(HARD, PROOF, said("user", "go on"))
    clock.now_s += 301.0
    assert (sessions.look(follow_up).warm, sessions.look(follow_up).floor) == (None, "large")
    clock.now_s += 1800.0
    assert sessions.look(follow_up) == NOTHING_KNOWN


@pytest.mark.parametrize(
    "messages",
    [
        (said("user", "Something else altogether"),),
        (said("system", "Be brief."), HARD, PROOF, said("user", "go on")),
        (said("user", "A trimmed history"), PROOF, said("user", "go on")),
    ],
)
def test_a_conversation_that_begins_otherwise_has_no_warm_cache(
    sessions: Sessions, messages: tuple[Message, ...]
) -> None:
    assert sessions.look(asks(*messages)).warm is None


@pytest.mark.parametrize("words", ["yes", "go on", "weiter", "continue", "ok do it", "继续"])
def test_a_follow_up_inherits_the_tier_of_what_it_follows(sessions: Sessions, words: str) -> None:
    assert sessions.look(asks(HARD, PROOF, said("user", words))).floor == "large"


def test_follow_ups_of_follow_ups_still_do(sessions: Sessions) -> None:
    yes = asks(HARD, PROOF, said("user", "yes"))
    sessions.note(yes, decided("large", "d2"), "large", 1000)
    assert sessions.look(asks(HARD, PROOF, said("user", "yes"), PROOF, said("user", "go on"))).floor == "large"


def test_a_follow_up_that_had_to_escalate_raises_the_floor_and_a_dearer_answer_alone_does_not(clock: Clock) -> None:
    question = said("user", "What is the capital of Australia, and since when has it been the capital?")
    more = asks(question, PROOF, said("user", "and why?"))
    again = asks(question, PROOF, said("user", "and why?"), PROOF, said("user", "go on"))
    for decision, floor in ((decided("small", "d2"), "large"), (decided("large", "d2"), "small")):
        sessions = Sessions(100, 1800.0, clock)
        sessions.note(asks(question), decided("small"), "small", 20)
        sessions.note(more, decision, "large", 60, escalated=decision.tier == "small")
        assert sessions.look(again).floor == floor


def test_an_error_or_an_explored_turn_makes_no_floor_and_leaves_the_cache_to_who_answered(clock: Clock) -> None:
    turn, more = asks(HARD), asks(HARD, PROOF, said("user", "and why?"))
    later = asks(HARD, PROOF, said("user", "and why?"), PROOF, said("user", "go on"))
    explored = replace(decided("large"), explored=True, planned="small")
    for decision in (decided("small"), explored):  # the small tier failed, and was not the one that was drawn
        sessions = Sessions(100, 1800.0, clock)
        sessions.note(turn, decision, "large", 900)
        assert (sessions.look(more).floor, sessions.look(more).warm) == ("small", "large")
        sessions.note(more, decision, "large", 990)
        assert (sessions.look(later).floor, sessions.look(later).warm) == ("small", "large")
    sessions = Sessions(100, 1800.0, clock)
    sessions.note(turn, replace(explored, tier="medium"), "large", 900, escalated=True)
    assert sessions.look(more).floor == "large"
    sessions.note(more, decided("large"), "small", 990)  # the large tier failed: it is still what is needed
    assert (sessions.look(later).floor, sessions.look(later).warm) == ("large", "small")


def test_a_turn_of_its_own_has_no_floor_and_sets_the_next(sessions: Sessions) -> None:
    easy = said("user", "Thank you. Something else now: please write the word 'hello' in French, German and Dutch.")
    turn = asks(HARD, PROOF, easy)
    assert sessions.look(turn).floor is None
    sessions.note(turn, decided("small", "d2"), "small", 1000)
    assert sessions.look(asks(HARD, PROOF, easy, PROOF, said("user", "ok, go on"))).floor == "small"


@pytest.mark.parametrize("other", [asks(HARD, session=None), asks(HARD, session="s2"), asks(HARD, tenant="rival")])
def test_sessions_are_of_one_tenant_and_without_an_id_there_is_none(sessions: Sessions, other: Request) -> None:
    assert sessions.look(other) == NOTHING_KNOWN


def test_nothing_is_remembered_without_a_session_id(clock: Clock) -> None:
    sessions = Sessions(100, 1800.0, clock)
    sessions.note(asks(HARD, session=None), decided(), "small", 10)
    assert len(sessions) == 0


def test_the_same_question_again_is_a_retry_and_is_told_once(sessions: Sessions) -> None:
    first, second = sessions.look(asks(HARD)), sessions.look(asks(HARD))
    assert (first.retry_of, first.asked_again) == ("d1", "retry")
    assert (second.retry_of, second.asked_again) == (None, None)


def test_the_same_question_in_other_words_is_a_rephrase(clock: Clock) -> None:
    sessions = Sessions(100, 1800.0, clock)
    sessions.note(asks(said("user", "How do I cancel my order today?")), decided(), "small", 10)
    hint = sessions.look(asks(said("user", "how can I cancel my order today?")))
    assert (hint.retry_of, hint.asked_again) == ("d1", "rephrase")


@pytest.mark.parametrize(
    "messages",
    [
        (HARD, PROOF, said("user", "yes")),
        (HARD, PROOF, HARD),  # the answer was built upon
        (said("user", "What does a parcel of two kilograms to Norway cost me?"),),
        (HARD, said("assistant", "I look it up"), said("tool", "42")),
    ],
)
def test_what_builds_upon_the_answer_or_asks_something_else_is_no_retry(
    sessions: Sessions, messages: tuple[Message, ...]
) -> None:
    assert sessions.look(asks(*messages)).retry_of is None


def test_the_loop_of_an_agent_is_no_retry(clock: Clock) -> None:
    sessions = Sessions(100, 1800.0, clock)
    step = asks(HARD, said("assistant", "I look it up"), said("tool", "42"))
    sessions.note(step, decided(), "small", 10)
    assert sessions.look(step).retry_of is None


def test_asking_again_much_later_is_no_retry(sessions: Sessions, clock: Clock) -> None:
    clock.now_s += 181.0
    assert sessions.look(asks(HARD)).retry_of is None


def test_who_asks_a_third_time_in_a_row_is_a_script(clock: Clock) -> None:
    sessions = Sessions(100, 1800.0, clock)
    found = []
    for i in range(5):
        found.append(sessions.look(asks(HARD)).retry_of)
        sessions.note(asks(HARD), decided(name=f"d{i}"), "small", 10)
    assert found == [None, "d0", "d1", None, None]


def test_where_only_the_decision_was_asked_for_there_is_no_answer_to_retry(clock: Clock) -> None:
    sessions = Sessions(100, 1800.0, clock)
    sessions.note(asks(HARD), decided("large"), "large", 10, answered=False)
    assert sessions.look(asks(HARD)).retry_of is None
    assert sessions.look(asks(HARD, PROOF, said("user", "go on"))).floor == "large"


def test_sessions_never_outgrow_their_limit(clock: Clock) -> None:
    sessions = Sessions(3, 1800.0, clock)
    for i in range(10):
        sessions.note(asks(HARD, session=f"s{i}" * 1000), decided(), "small", 10)
    assert len(sessions) == 3
    assert sessions.look(asks(HARD, session="s0" * 1000)) == NOTHING_KNOWN


def test_no_text_is_kept(sessions: Sessions) -> None:
    assert "primes" not in repr(vars(sessions)["_sessions"]._kept)


def test_a_weak_negative_says_who_asked_again_and_has_a_key_of_its_own(sessions: Sessions) -> None:
    feedback = retry_feedback(sessions.look(asks(HARD)), datetime(2026, 1, 1, tzinfo=UTC))
    assert (feedback.source, feedback.adequate, feedback.reason, feedback.key) == ("retry", False, "retry", "retry")


def test_of_several_floors_the_dearest_that_exists_counts() -> None:
    ladder = ("small", "medium", "large")
    assert dearest_floor(ladder, ("medium", "session"), ("small", "memory")) == ("medium", "session")
    assert dearest_floor(ladder, (None, "session"), ("large", "memory")) == ("large", "memory")
    assert dearest_floor(ladder, ("gone", "session"), (None, "memory")) == (None, "")
