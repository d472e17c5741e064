"""The cascade without HTTP: who is tried, who answers, what is left in the trail."""

import asyncio

import pytest

from router_ml.errors import UpstreamError
from router_ml.schema import Answer, Attempt, Plan, Verdict
from router_ml_serving.cascade import AttemptResult, Limits, run

PLAN = Plan("small", "large")
POOR = Answer("I don't know", "stop")
GOOD = Answer("42", "stop")


def judge(answer, tier):
    return Verdict(adequate=False, source="rule", reason="dont_know") if answer is POOR else None


def failing(kind="timeout", status=None):
    return UpstreamError("no", kind=kind, status=status)


def cascade(script, plan=PLAN, max_attempts=2, deadline_s=None, clock=None, **options):
    trail, asked = [], []
    time = clock or [0.0]

    async def attempt(tier):
        asked.append(tier)
        said = script[tier]
        if isinstance(said, float):
            try:
                await asyncio.sleep(said)
            except asyncio.CancelledError:
                trail.append(AttemptResult(Attempt(tier=tier, finish_reason="cancelled")))
                raise
            said = GOOD
        time[0] += 1.0
        if isinstance(said, UpstreamError):
            return AttemptResult(Attempt(tier=tier, error=said.kind), error=said)
        return AttemptResult(Attempt(tier=tier), answer=said)

    limits = Limits(max_attempts, deadline_s, lambda: time[0])
    result = asyncio.run(run(plan, attempt, judge, trail, limits, **options))
    return result, trail, asked


@pytest.mark.parametrize(
    ("small", "large", "asked", "answers"),
    [
        (GOOD, GOOD, ["small"], "small"),
        (None, GOOD, ["small"], "small"),  # an opened stream: nothing to judge
        (POOR, GOOD, ["small", "large"], "large"),
        (POOR, POOR, ["small", "large"], "large"),
        (POOR, failing(), ["small", "large"], "small"),
        (failing(), GOOD, ["small", "large"], "large"),
        (failing("status", 429), POOR, ["small", "large"], "large"),
        (failing(), failing("status", 500), ["small", "large"], "large"),
        (failing("status", 400), GOOD, ["small"], "small"),
    ],
)
def test_who_is_asked_and_who_answers(small, large, asked, answers):
    result, trail, seen = cascade({"small": small, "large": large})
    assert seen == asked
    assert result.attempt.tier == answers
    assert [one.attempt.tier for one in trail] == asked


def test_verdicts_are_in_the_trail_and_errors_have_none():
    _, trail, _ = cascade({"small": POOR, "large": failing()})
    assert trail[0].attempt.verdicts[0].reason == "dont_know"
    assert trail[1].attempt.verdicts == ()


def test_one_attempt_is_one_attempt():
    result, _, asked = cascade({"small": POOR, "large": GOOD}, max_attempts=1)
    assert (result.answer, asked) == (POOR, ["small"])


def test_a_plan_without_escalation_has_none():
    _, _, asked = cascade({"small": failing()}, plan=Plan("small"))
    assert asked == ["small"]


@pytest.mark.parametrize(
    ("large", "small", "asked", "answers"),
    [
        (GOOD, GOOD, ["large"], "large"),
        (None, GOOD, ["large"], "large"),
        (POOR, GOOD, ["large"], "large"),
        (failing("status", 503), GOOD, ["large", "small"], "small"),
        (failing(), POOR, ["large", "small"], "small"),
        (failing("status", 400), GOOD, ["large"], "large"),
    ],
)
def test_who_stands_by_for_errors_is_asked_after_an_error_only(large, small, asked, answers):
    plan = Plan("large", None, "small")
    result, _, seen = cascade({"large": large, "small": small}, plan=plan)
    assert (seen, result.attempt.tier) == (asked, answers)
    _, _, seen = cascade({"large": large, "small": small}, plan=plan, max_attempts=1)
    assert seen == ["large"]


def test_no_escalation_begins_that_cannot_end_before_the_deadline():
    _, _, asked = cascade({"small": POOR, "large": GOOD}, deadline_s=3.0, expected_s=lambda _: 2.0)
    assert asked == ["small"]
    _, _, asked = cascade({"small": POOR, "large": GOOD}, deadline_s=3.1, expected_s=lambda _: 2.0)
    assert asked == ["small", "large"]


def test_a_late_first_answer_is_better_than_none():
    result, _, asked = cascade({"small": GOOD, "large": GOOD}, deadline_s=-1.0)
    assert (result.answer, asked) == (GOOD, ["small"])


@pytest.mark.parametrize("deadline_s", [-1.0, 0.5, 2.0])
def test_after_an_error_the_next_tier_is_asked_however_late_it_is(deadline_s):
    result, _, asked = cascade({"small": failing(), "large": GOOD}, deadline_s=deadline_s, expected_s=lambda _: 4.0)
    assert (result.answer, asked) == (GOOD, ["small", "large"])


def test_with_an_answer_in_hand_the_deadline_ends_the_escalation():
    result, trail, _ = cascade({"small": POOR, "large": 5.0}, deadline_s=1.05)
    assert result.answer is POOR
    assert [one.attempt.finish_reason for one in trail] == [None, "cancelled"]


def test_without_an_answer_the_escalation_is_waited_for():
    result, _, _ = cascade({"small": failing(), "large": 0.1}, deadline_s=1.01)
    assert result.answer is GOOD


def test_a_verdict_of_adequate_is_accepted():
    async def attempt(tier):
        return AttemptResult(Attempt(tier=tier), answer=GOOD)

    def approve(*_):
        return Verdict(adequate=True, source="verifier", score=0.9)

    trail = []
    limits = Limits(2, None, lambda: 0.0)
    result = asyncio.run(run(PLAN, attempt, approve, trail, limits))
    assert result.attempt.tier == "small"
    assert len(trail) == 1


def test_an_attempt_is_on_the_bill_even_if_the_judge_fails():
    async def attempt(tier):
        return AttemptResult(Attempt(tier=tier, cost_usd=0.5), answer=GOOD)

    def fails(*_):
        raise ZeroDivisionError

    trail = []
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run(PLAN, attempt, fails, trail, Limits(2, None, lambda: 0.0)))
    assert [one.attempt.cost_usd for one in trail] == [0.5]


def test_requests_that_are_ready_take_each_step_together():
    steps = []

    async def attempt(tier):
        steps.append("called")
        return AttemptResult(Attempt(tier=tier), answer=GOOD)

    async def one():
        steps.append("decided")
        await run(PLAN, attempt, lambda *_: steps.append("judged"), [], Limits(2, None, lambda: 0.0))

    async def three():
        await asyncio.gather(one(), one(), one())

    asyncio.run(three())
    assert steps == ["decided"] * 3 + ["called"] * 3 + ["judged"] * 3


def test_who_leaves_before_the_answer_is_judged_has_it_on_the_bill_and_before_the_call_has_nothing():
    def left_after(turns):
        trail = []

        async def attempt(tier):
            return AttemptResult(Attempt(tier=tier, cost_usd=0.5), answer=POOR)

        async def leave():
            task = asyncio.ensure_future(run(PLAN, attempt, judge, trail, Limits(2, None, lambda: 0.0)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(leave())
        return [(one.attempt.cost_usd, one.attempt.verdicts) for one in trail]

    assert (left_after(1), left_after(2)) == ([], [(0.5, ())])


def test_a_stream_that_was_opened_is_handed_over_though_its_client_leaves_at_that_moment():
    opened = AttemptResult(Attempt(tier="small"), reply="a stream that somebody has to close")
    handed_over = []

    async def serve():
        task = asyncio.current_task()

        async def attempt(tier):
            task.cancel()
            return opened

        handed_over.append(await run(PLAN, attempt, judge, [], Limits(2, None, lambda: 0.0)))

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(serve())
    assert handed_over == [opened]
