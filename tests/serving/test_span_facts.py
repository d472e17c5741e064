"""Attributes of spans: GenAI's names, ours beside them, and what they never hold."""

import pytest

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml.schema import Attempt, Decision, Plan, Verdict
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.span_facts import (
    answer_facts,
    attempt_facts,
    call_facts,
    decision_facts,
    error_type,
    evaluation_facts,
    http_status,
    request_facts,
    shown,
)
from router_ml_serving.upstream import Reply
from router_ml_serving.wire import read_chat

CHAT = read_chat({"messages": [{"role": "user", "content": "secret"}], "max_tokens": 7})
STREAM = b': hello\n\ndata: {"id": "c-1", "model": "mini-2026"}\n\ndata: [DONE]\n\n'


def tier(base_url=None):
    return Tier(name="small", model="mini", base_url=base_url, input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)


def result(name="small", *, error=None, reply=None, **fields):
    named = None if error is None else f"{error.kind} {error.status}" if error.status else error.kind
    return AttemptResult(Attempt(tier=name, **{"error": named, **fields}), error=error, reply=reply)


TIMEOUT = UpstreamError("late", kind="timeout")
BUSY = UpstreamError("busy", kind="status", status=429)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com/openai/v1", "azure.ai.openai"),
        ("https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1", "aws.bedrock"),
        ("https://notapi.openai.com.example/v1", "openai_compatible"),
        ("http://[::1]:8000/v1", "openai_compatible"),
        (None, "openai_compatible"),
    ],
)
def test_the_provider_is_told_by_the_host(url, provider):
    assert call_facts(tier(url), CHAT)["gen_ai.provider.name"] == provider


def test_a_call_says_where_it_goes_without_the_path():
    facts = call_facts(tier("https://user:word@models.example/key/v1"), CHAT)
    assert (facts["server.address"], facts["server.port"]) == ("models.example", 443)
    assert not any("word" in str(value) or "key" in str(value) for value in facts.values())
    assert "server.address" not in call_facts(tier(), CHAT)


def test_a_request_says_only_what_is_known():
    facts = request_facts(CHAT)
    assert facts["gen_ai.request.max_tokens"] == 7
    assert "gen_ai.conversation.id" not in facts
    assert "secret" not in str(facts)
    long = read_chat({"messages": [{"role": "user", "content": ""}], "router": {"tenant": "t" * 1000}})
    assert len(request_facts(long)["router.tenant"]) == 256


def test_a_decision_has_figures_for_every_tier():
    numbers = {"small": 0.5, "large": 0.9}
    decision = Decision("d", "small", "mini", Plan("small"), "v", numbers, numbers, {}, 0.9, 0.0, True, "because")
    facts = decision_facts(decision)
    assert facts["router.adequacy.large"] == facts["router.expected_cost_usd.large"] == 0.9
    assert facts["router.explored"] is True
    assert "router.constraints" not in facts


@pytest.mark.parametrize(
    ("trail", "status", "failure"),
    [
        ([], 500, "_OTHER"),
        ([result()], 200, None),
        ([result(error=TIMEOUT)], 504, "timeout"),
        ([result(error=BUSY), result("large")], 200, None),
        ([result(error=BUSY), result("large", error=TIMEOUT)], 504, "timeout"),
        ([result(error=TIMEOUT), result("large", error=BUSY)], 429, "429"),
    ],
)
def test_the_last_answer_counts_else_the_last_failure(trail, status, failure):
    facts = answer_facts(trail, stream=False)
    assert facts["http.response.status_code"] == http_status(shown(trail)) == status
    assert facts.get("error.type") == failure
    assert "http.response.status_code" not in answer_facts(trail, stream=True)


def test_a_client_that_is_gone_has_a_status_of_its_own():
    gone = AttemptResult(Attempt(tier="small", error="cancelled", finish_reason="cancelled"))
    assert (http_status(gone), error_type(gone.attempt)) == (499, "cancelled")


@pytest.mark.parametrize(
    "reply",
    [STREAM, Reply(200, {}, b"", {"id": "c-1", "model": "mini-2026"})],
)
def test_who_answered_is_read_from_whole_answers_and_streams(reply):
    facts = attempt_facts(result(reply=reply, finish_reason="stop", cached_tokens=3, response="secret"))
    assert (facts["gen_ai.response.id"], facts["gen_ai.response.model"]) == ("c-1", "mini-2026")
    assert facts["gen_ai.response.finish_reasons"] == ("stop",)
    assert facts["gen_ai.usage.cache_read.input_tokens"] == 3
    assert "secret" not in str(facts)


@pytest.mark.parametrize(
    "reply", [None, b"", b"data: {", b"data: {]\n", b"data: [DONE]\n", Reply(200, {}, b"", {"id": 4})]
)
def test_an_answer_that_does_not_say_who_it_is_from_leaves_that_out(reply):
    assert "gen_ai.response.id" not in attempt_facts(result(reply=reply))


def test_a_verdict_is_told_without_its_reason():
    verdict = Verdict(adequate=False, score=0.2, source="verifier", reason="it says secret")
    facts = attempt_facts(result(verdicts=(verdict,)))
    assert (facts["router.verdict.adequate"], facts["router.verdict.score"]) == (False, 0.2)
    assert "secret" not in str(facts)
    assert evaluation_facts("user", adequate=True, score=None) == {
        "gen_ai.evaluation.name": "user",
        "gen_ai.evaluation.score.label": "adequate",
    }
