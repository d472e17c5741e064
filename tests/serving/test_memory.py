"""Template memory: a class whose cheap answers are refused starts higher, and comes back when they are good again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.schema import Attempt, Decision, Plan, Request
from router_ml_serving.memory import TemplateMemory, accepted

LADDER = ("small", "medium", "large")
COSTS = {"small": 0.05, "medium": 0.2, "large": 1.0}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def decided(first: str = "small", adequacy: float = 0.8, version: str = "one", **fields: Any) -> Decision:
    facts: dict[str, Any] = {
        "decision_id": "d1",
        "tier": first,
        "model": first,
        "plan": Plan(first, "large"),
        "policy_version": version,
        "adequacy": dict.fromkeys(LADDER, adequacy),
        "expected_cost_usd": COSTS,
        "propensity": {},
        "quality": 1.0,
        "threshold": 0.0,
        "explored": False,
        "reason": "",
    }
    return Decision(**{**facts, **fields})


def attempt(tier: str, *, adequate: bool | None = None, error: str | None = None) -> Attempt:
    verdicts = () if adequate is None else ({"adequate": adequate, "source": "verifier"},)
    return Attempt.model_validate({"tier": tier, "verdicts": verdicts, "error": error})


REFUSED = attempt("small", adequate=False)
ESCALATED = (REFUSED, attempt("large"))
ACCEPTED = (attempt("small", adequate=True),)
SQL = Request(
    messages=[{"role": "system", "content": "You write SQL for our warehouse."}, {"role": "user", "content": "a"}]
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> TemplateMemory:
    return TemplateMemory(100, 3600.0, clock)


def test_a_class_that_needed_the_large_tier_starts_there_next_time(memory: TemplateMemory) -> None:
    assert memory.floor(SQL, LADDER, "one") is None
    memory.learn(SQL, decided(), ESCALATED)
    assert memory.floor(SQL, LADDER, "one") == "large"


def test_one_escalation_among_many_successes_changes_nothing(memory: TemplateMemory) -> None:
    for _ in range(10):
        memory.learn(SQL, decided(), ACCEPTED)
    memory.learn(SQL, decided(), ESCALATED)
    assert memory.floor(SQL, LADDER, "one") is None


@pytest.mark.parametrize(
    "attempts",
    [
        (),
        ACCEPTED,
        (REFUSED,),
        (REFUSED, attempt("large", adequate=False)),
        (REFUSED, attempt("large", error="timeout")),
        (attempt("small", error="timeout"), attempt("large")),
    ],
)
def test_only_an_answer_that_was_taken_instead_of_a_refused_one_is_an_escalation(
    memory: TemplateMemory, attempts: tuple[Attempt, ...]
) -> None:
    memory.learn(SQL, decided(), attempts)
    assert memory.floor(SQL, LADDER, "one") is None


def test_a_tier_that_the_client_named_teaches_nothing(memory: TemplateMemory) -> None:
    memory.learn(SQL, replace(decided(), adequacy={}, expected_cost_usd={}), ESCALATED)
    assert len(memory) == 0


def test_what_is_remembered_fades_and_the_cheap_tier_is_tried_again(memory: TemplateMemory, clock: Clock) -> None:
    memory.learn(SQL, decided(), ESCALATED)
    clock.now_s += 2400.0
    assert memory.floor(SQL, LADDER, "one") is None
    for _ in range(20):
        memory.learn(SQL, decided(), ESCALATED)
    clock.now_s += 1800.0
    assert memory.floor(SQL, LADDER, "one") == "large"
    clock.now_s += 4 * 3600.0
    assert memory.floor(SQL, LADDER, "one") is None
    assert len(memory) == 0


def hours_until_free(adequacy: float, costs: dict[str, float], refusals: int = 1) -> int | None:
    """Return after how many hours a class starts cheaply again, although others' traffic keeps it alive."""
    clock = Clock()
    memory = TemplateMemory(100, 3600.0, clock)
    decision = decided(adequacy=adequacy, expected_cost_usd=costs)
    for _ in range(refusals):
        memory.learn(SQL, decision, ESCALATED)
    for hour in range(24 * 30):
        if memory.floor(SQL, LADDER, "one") is None:
            return hour
        memory.learn(SQL, replace(decision, tier="large"), (attempt("large"),))
        clock.now_s += 3600.0
    return None


@pytest.mark.parametrize("adequacy", [0.0, 0.05, 0.3, 0.4, 0.6, 0.7, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("refusals", [1, 1000])
def test_every_floor_ends_however_much_the_class_is_used(adequacy: float, ratio: float, refusals: int) -> None:
    hours = hours_until_free(adequacy, {"small": ratio, "medium": ratio, "large": 1.0}, refusals)
    assert hours is not None
    assert hours <= (3 if refusals == 1 and adequacy <= 0.9 else 4)


def test_the_floor_of_free_tiers_ends_too() -> None:
    for adequacy in (0.4, 0.9, 1.0):
        hours = hours_until_free(adequacy, dict.fromkeys(LADDER, 0.0))
        assert hours is not None
        assert hours <= 4


@pytest.mark.parametrize(("adequacy", "needed"), [(0.9, 1), (0.6, 1), (0.5, 2), (0.4, 2), (0.3, 3)])
def test_a_refusal_says_less_where_the_router_expected_it(memory: TemplateMemory, adequacy: float, needed: int) -> None:
    for _ in range(needed):
        assert memory.floor(SQL, LADDER, "one") is None
        memory.learn(SQL, decided(adequacy=adequacy), ESCALATED)
    assert memory.floor(SQL, LADDER, "one") == "large"


def test_a_good_answer_in_the_background_brings_a_class_back_and_a_bad_one_does_not(memory: TemplateMemory) -> None:
    memory.learn(SQL, decided(), ESCALATED)
    memory.note(SQL, "one", "small", adequate=False)
    assert memory.floor(SQL, LADDER, "one") == "large"
    for _ in range(3):
        memory.note(SQL, "one", "small", adequate=True)
    assert memory.floor(SQL, LADDER, "one") is None


def test_what_runs_in_the_background_alone_sets_no_floor(memory: TemplateMemory) -> None:
    memory.note(SQL, "one", "small", adequate=False)
    memory.learn(SQL, decided("medium"), (attempt("medium", adequate=True),))
    memory.note(SQL, "one", "small", adequate=False)
    assert memory.floor(SQL, LADDER, "one") is None


def test_a_new_policy_version_starts_with_an_empty_memory_and_an_old_one_keeps_its_own(memory: TemplateMemory) -> None:
    memory.learn(SQL, decided(), ESCALATED)
    assert memory.floor(SQL, LADDER, "two") is None
    assert memory.floor(SQL, LADDER, "one") == "large"


def test_what_the_router_expected_needs_no_correction(memory: TemplateMemory) -> None:
    # It tries a tier that is refused in 7 of 10 cases, since it is so cheap.
    for i in range(10):
        memory.learn(SQL, decided(adequacy=0.3), ESCALATED if i < 7 else ACCEPTED)
    assert memory.floor(SQL, LADDER, "one") is None


def test_where_tiers_cost_nearly_the_same_fewer_refusals_are_enough(clock: Clock) -> None:
    for costs, floor in ((COSTS, None), ({"small": 0.9, "medium": 0.95, "large": 1.0}, "large")):
        memory = TemplateMemory(100, 3600.0, clock)
        for i in range(20):
            decision = decided(adequacy=0.95, expected_cost_usd=costs)
            memory.learn(SQL, decision, ACCEPTED if i % 4 else ESCALATED)
        assert memory.floor(SQL, LADDER, "one") == floor


def test_the_floor_is_the_dearest_tier_that_a_class_needed(memory: TemplateMemory) -> None:
    memory.learn(SQL, decided(), (REFUSED, attempt("medium")))
    assert memory.floor(SQL, LADDER, "one") == "medium"
    memory.learn(SQL, decided("medium"), (attempt("medium", adequate=False), attempt("large")))
    assert memory.floor(SQL, LADDER, "one") == "large"
    assert memory.floor(SQL, ("small", "medium"), "one") == "medium"


def request(text: str = "a", system: str | None = None, **fields: Any) -> Request:
    head = [] if system is None else [{"role": "system", "content": system}]
    return Request(messages=[*head, {"role": "user", "content": text}], **fields)


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


HEAD = "You answer customers of a shop that sells garden furniture. " * 3


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (request("a", "T"), request("b", "T"), True),
        (request("a", HEAD + "Anna"), request("a", HEAD + "Bert"), True),
        (request("a", "T"), request("a", "U"), False),
        (request("a", "T", tenant="x"), request("a", "T", tenant="y"), False),
        (request("a", feature="x"), request("b", feature="x"), True),
        (request("a", feature="x"), request("a", feature="y"), False),
        (request("a", use_case="x"), request("a", use_case="y"), False),
        (request("a", "T", tools=[tool("f")]), request("b", "T", tools=[tool("f")]), True),
        (request("a", "T", tools=[tool("f")]), request("a", "T", tools=[tool("g")]), False),
        (request("total of invoice 123"), request("total of invoice 98765"), True),
        (request("total of invoice 123"), request("date of invoice 123"), False),
    ],
)
def test_a_class_is_what_a_template_makes_alike(
    memory: TemplateMemory, one: Request, other: Request, alike: bool
) -> None:
    memory.learn(one, decided(), ESCALATED)
    assert memory.floor(one, LADDER, "one") == "large"
    assert (memory.floor(other, LADDER, "one") == "large") == alike


def test_single_texts_that_were_answered_well_take_no_place(memory: TemplateMemory) -> None:
    memory.learn(request("Who was the first to climb Mont Blanc?"), decided(), ACCEPTED)
    assert len(memory) == 0


def test_no_client_makes_it_grow_beyond_its_limit(clock: Clock) -> None:
    memory = TemplateMemory(5, 3600.0, clock)
    for i in range(50):
        memory.learn(request("a", f"template {'x' * i}"), decided(), ESCALATED)
    assert len(memory) == 5


odd = st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.integers()))


@given(odd, odd, odd)
def test_odd_bodies_have_a_class_too(content: Any, name: Any, function: Any) -> None:
    memory = TemplateMemory(5, 3600.0, Clock())
    tools = [{"function": {"name": name}}, {"function": function}, {}]
    messages = [{"role": "system", "content": content}, {"role": "user", "content": content}]
    for odd_one in (Request(messages=messages, tools=tools), Request(messages=messages[1:]), Request(messages=())):
        memory.learn(odd_one, decided(), ESCALATED)
        assert memory.floor(odd_one, LADDER, "one") == "large"


def test_an_answer_is_accepted_unless_somebody_refused_it() -> None:
    assert accepted(attempt("small"))
    assert accepted(attempt("small", adequate=True))
    assert not accepted(REFUSED)
    assert not accepted(attempt("small", error="timeout"))
