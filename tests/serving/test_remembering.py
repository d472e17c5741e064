"""Sessions and template memory in a running service: what one request leaves behind decides about the next."""

import http.client
import json
import time
from urllib.parse import urlsplit

import pytest

SYSTEM = {"role": "system", "content": "You write SQL for the warehouse of a shop."}
HARD = "Which customers have bought the same garden chair in every month of the last year, and how many?"
GOOD = {"role": "assistant", "content": "SELECT ..."}


@pytest.fixture(scope="module")
def service(start_service):
    return start_service(memory_classes=64)


@pytest.fixture
def ask(service, call):
    def ask(*turns, session=None, status=200, **fields):
        messages = [{"role": "user", "content": turn} if isinstance(turn, str) else turn for turn in turns]
        headers = {} if session is None else {"x-session-id": session}
        reply = call(f"{service.url}/v1/chat/completions", {"messages": messages, **fields}, headers=headers)
        assert reply.status == status, reply.body
        return reply.json["router"]

    return ask


def test_a_class_that_needed_the_large_tier_starts_there_next_time(service, ask):
    system = {"role": "system", "content": "You translate contracts."}
    first = ask(system, "[mini=idk] Translate this")
    assert (first["tier"], first["attempts"]) == ("large", 2)
    second = ask(system, "And this, in one piece")
    assert (second["tier"], second["attempts"]) == ("large", 1)
    record = service.recorded(second["decision_id"])
    assert record.propensity == {"small": 0.0, "large": 1.0}
    other = ask({"role": "system", "content": "You greet people."}, "Hello")
    assert other["tier"] == "small"


def test_a_follow_up_is_answered_by_the_tier_of_what_it_follows(ask):
    hard = f"[mini=idk] {HARD}"
    assert ask(hard, session="s1")["tier"] == "large"
    assert ask(hard, GOOD, "go on", session="s1")["tier"] == "large"
    assert ask(hard, GOOD, "go on")["tier"] == "small"
    assert ask(hard, GOOD, f"Now something else: {HARD}", session="s1")["tier"] == "small"


@pytest.mark.parametrize("second", [HARD, HARD.replace("Which", "what")])
def test_asking_again_is_feedback_about_the_earlier_decision(service, ask, second):
    session = f"again-{second[:3]}"
    first = ask(HARD, session=session)
    ask(second, session=session)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not service.recorded(first["decision_id"]).feedback:
        time.sleep(0.05)
    (found,) = service.recorded(first["decision_id"]).feedback
    assert (found.source, found.adequate, found.key) == ("retry", False, "retry")


def test_a_turn_that_another_tier_answered_because_of_an_error_holds_nobody_there(ask):
    first = f"{HARD} [mini=501]"
    assert ask(first, session="s2")["tier"] == "large"
    turns = [first, GOOD, "yes, go on"]
    for _ in range(2):
        assert ask(*turns, session="s2")["tier"] == "small"
        turns += [GOOD, "go on"]


def test_an_answer_that_was_never_shown_is_not_asked_for_again(service, ask, upstream):
    # The small tier's answer is refused, and the client leaves while the large one is asked.
    question = f"{HARD} [mini=idk] [maxi=hang]"
    chat = {"messages": [{"role": "user", "content": question}], "router": {"session_id": "s3"}}
    seen = upstream.calls()
    seen.clear()
    client = http.client.HTTPConnection(urlsplit(service.url).netloc)
    client.request("POST", "/v1/chat/completions", json.dumps(chat), {"content-type": "application/json"})
    eventually(lambda: "maxi" in [one["model"] for one in seen] or seen.extend(upstream.calls()))
    client.close()
    eventually(lambda: service.metric('router_ml_attempts_total{outcome="cancelled",tier="large"}') == 1)
    retries = 'router_ml_feedback_total{new="true",source="retry"}'
    told = service.metric(retries)
    ask(HARD, session="s3")
    time.sleep(0.2)
    assert service.metric(retries) == told
    ask(HARD, session="s3")  # this one has seen an answer
    eventually(lambda: service.metric(retries) > told)
    assert service.metric(retries) == told + 1


def eventually(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
