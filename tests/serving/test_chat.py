"""`POST /v1/chat/completions`, not streamed, through real processes and the official client."""

import time

import openai
import pytest

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def ask(service, prompt, model="auto", **fields):
    return service.client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], **fields)


def test_a_good_answer_of_the_small_tier_is_given_with_the_facts(service, upstream):
    upstream.calls()
    raw = service.client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "Hello?"}]
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == "The answer of mini is 42."
    assert answer.model == "mini"
    facts = answer.router
    assert (facts["tier"], facts["model"], facts["attempts"]) == ("small", "mini", 1)
    assert raw.headers["x-router-tier"] == "small"
    assert raw.headers["x-router-model"] == raw.headers["x-model-router-selected-model"] == "mini"
    assert raw.headers["x-router-decision-id"] == facts["decision_id"]
    assert raw.headers["x-router-policy-version"] == facts["policy_version"] == "one"
    assert raw.headers["x-router-attempts"] == "1"
    assert 0 < float(raw.headers["x-router-overhead-ms"]) < 1000
    assert raw.headers["x-router-reason"].isascii()
    assert [sent["model"] for sent in upstream.calls()] == ["mini"]


def test_a_poor_answer_is_escalated_and_both_attempts_are_billed(service, upstream):
    upstream.calls()
    answer = ask(service, "Who? [mini=idk]")
    assert answer.choices[0].message.content == "The answer of maxi is 42."
    assert answer.router["tier"] == "large"
    assert answer.router["attempts"] == 2
    assert "escalated to large" in answer.router["reason"]
    assert [sent["model"] for sent in upstream.calls()] == ["mini", "maxi"]
    record = service.recorded(answer.router["decision_id"])
    small, large = record.attempts
    assert (small.tier, large.tier) == ("small", "large")
    assert small.verdicts[0].source == "rule"
    assert small.verdicts[0].adequate is False
    assert large.verdicts == ()
    assert small.cost_usd == pytest.approx((100 * 0.15 + 20 * 0.60) / 1e6)
    assert large.cost_usd == pytest.approx((100 * 2.5 + 20 * 10) / 1e6)
    assert record.propensity == {"small": 1.0, "large": 0.0}
    assert record.candidates == ("small", "large")
    assert record.request.messages[0]["content"] == "Who? [mini=idk]"
    assert record.attempts[0].response == "I don't know."


@pytest.mark.parametrize("fault", ["500", "429", "401", "404", "html", "reset", "broken-json", "no-choices"])
def test_a_failing_tier_is_replaced_by_the_next_and_is_no_evidence(service, fault):
    answer = ask(service, f"Hello [mini={fault}]")
    assert answer.router["tier"] == "large"
    first, second = service.recorded(answer.router["decision_id"]).attempts
    assert first.error is not None
    assert first.verdicts == ()
    assert (second.error, second.finish_reason) == (None, "stop")


def test_an_answer_without_choices_is_billed(service):
    answer = ask(service, "Hello [mini=no-choices]")
    first = service.recorded(answer.router["decision_id"]).attempts[0]
    assert (first.error, first.input_tokens, first.output_tokens) == ("protocol", 100, 20)
    assert first.cost_usd == pytest.approx((100 * 0.15 + 20 * 0.60) / 1e6)


def test_when_the_dearest_tier_fails_another_answers_and_is_never_asked_for_a_better_answer(service):
    for stream in (False, True):
        reply = service.ask("Hello [maxi=501]", model="router-1", stream=stream)
        assert (reply.status, reply.headers["x-router-tier"]) == (200, "small")
    answer = ask(service, "Hello [maxi=idk]", model="router-1")
    assert (answer.router["tier"], answer.router["attempts"]) == ("large", 1)


def test_exploring_fails_no_request(start_service):
    exploring = start_service(exploration={"up": 1.0})
    answer = ask(exploring, "Hello [maxi=501]")
    assert answer.router["tier"] == "small"
    record = exploring.recorded(answer.router["decision_id"])
    assert [attempt.tier for attempt in record.attempts] == ["large", "small"]
    assert record.propensity == {"small": 0.0, "large": 1.0}


@pytest.mark.parametrize("poor", ["empty", "cut", "bad-tool"])
def test_answers_that_break_a_rule_are_escalated(service, poor):
    answer = ask(service, f"Hello [mini={poor}]", tools=TOOLS)
    assert answer.router["tier"] == "large"


def test_when_both_are_poor_the_dearer_answer_is_given(service):
    answer = ask(service, "Hello [mini=idk] [maxi=idk]")
    assert answer.router["tier"] == "large"
    assert answer.choices[0].message.content == "I don't know."


def test_when_the_escalation_fails_the_answer_in_hand_is_given(service):
    answer = ask(service, "Hello [mini=idk] [maxi=500]")
    assert answer.router["tier"] == "small"
    assert answer.choices[0].message.content == "I don't know."


def test_when_all_fail_the_upstreams_own_error_reaches_the_client(service):
    with pytest.raises(openai.RateLimitError) as caught:
        ask(service, "Hello [mini=500] [maxi=429]")
    assert caught.value.body["message"] == "scripted 429"
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["x-router-attempts"] == "2"


def test_a_fault_of_the_request_is_not_tried_elsewhere(service, upstream):
    upstream.calls()
    with pytest.raises(openai.BadRequestError, match="scripted 400"):
        ask(service, "Hello [mini=400]")
    assert [sent["model"] for sent in upstream.calls()] == ["mini"]


def test_a_refused_router_key_does_not_look_like_the_clients_fault(service):
    reply = service.ask("Hello [mini=401]", model="small")
    assert reply.status == 502
    assert "SMALL_KEY" in reply.json["error"]["message"]


def test_the_tiers_key_is_sent_and_the_clients_is_not(service, upstream):
    upstream.calls()
    ask(service, "Hello [mini=idk]")
    small, large = upstream.calls()
    assert small["headers"]["Authorization"] == "Bearer sk-small"
    assert "Authorization" not in large["headers"]


def test_unknown_fields_reach_the_upstream_and_its_own_come_back(service, upstream):
    upstream.calls()
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    body = {"seed": 7, "logit_bias": {"50256": -100}, "new_thing": {"a": [1, None]}, "metadata": {"feature": "x"}}
    answer = service.client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": content}], extra_body={**body, "router": {"tenant": "t"}}
    )
    sent = upstream.calls()[0]["body"]
    assert {key: sent[key] for key in body} == body
    assert sent["messages"][0]["content"] == content
    assert "router" not in sent
    assert answer.odd_field == {"kept": [1, 2.5, None]}


def test_tool_calls_come_through(service):
    answer = ask(service, "Weather? [mini=tool]", tools=TOOLS)
    assert answer.router["tier"] == "small"
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
    record = service.recorded(answer.router["decision_id"])
    assert record.attempts[0].tool_calls[0]["function"]["name"] == "get_weather"


@pytest.mark.parametrize(("name", "model"), [("small", "mini"), ("maxi", "maxi"), ("large", "maxi")])
def test_a_named_tier_or_model_answers_whatever_it_says(service, name, model):
    answer = ask(service, "Hello [mini=idk] [maxi=idk]", model=name)
    assert answer.model == model
    assert answer.router["attempts"] == 1
    record = service.recorded(answer.router["decision_id"])
    assert record.propensity == {record.attempts[0].tier: 1.0}
    assert record.attempts[0].verdicts[0].adequate is False


def test_the_asked_quality_decides(service):
    assert ask(service, "Hello", model="router-1.0").router["tier"] == "large"
    assert ask(service, "Hello", model="router-0.9").router["tier"] == "small"
    assert ask(service, "Hello", extra_body={"router": {"quality": 1}}).router["tier"] == "large"


def test_missing_usage_is_estimated(service):
    answer = ask(service, "Hello, how are you? [mini=no-usage]")
    attempt = service.recorded(answer.router["decision_id"]).attempts[0]
    assert 5 < attempt.input_tokens < 40
    assert 3 < attempt.output_tokens < 15
    assert attempt.cost_usd > 0


def test_metadata_comes_from_headers_body_and_metadata(service):
    answer = service.client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": "Hello"}],
        metadata={"tenant": "low", "feature": "chat", "ticket": "T1"},
        extra_headers={"x-router-tenant": "acme", "x-session-id": "s1"},
        extra_body={"router": {"tenant": "mid", "use_case": "email"}},
    )
    record = service.recorded(answer.router["decision_id"])
    assert (record.tenant, record.feature, record.use_case, record.session_id) == ("acme", "chat", "email", "s1")
    assert record.tags == {"ticket": "T1"}


def test_a_client_that_hangs_up_cancels_the_upstream_call_and_it_is_recorded(service, upstream):
    upstream.calls()
    client = service.client.with_options(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "Hang [mini=hang]"}], user="gone"
        )
    assert len(upstream.cancelled()) == 1
    assert service.metric('router_ml_attempts_total{outcome="cancelled",tier="small"}') == 1


def test_an_escalation_does_not_outlast_the_latency_budget(start_service):
    service = start_service(toml="[use_cases.quick]\ntotal_ms = 700")
    started = time.monotonic()
    body = {"router": {"use_case": "quick"}}
    answer = ask(service, "Hello [mini=idk] [maxi=hang]", extra_body=body)
    assert time.monotonic() - started < 5
    assert answer.router["tier"] == "small"
    first, second = service.recorded(answer.router["decision_id"]).attempts
    assert first.error is None
    assert second.finish_reason == "cancelled"


def test_without_text_the_record_holds_features_only(start_service):
    service = start_service(env={"ROUTER_ML_STORE__TEXT": "false"})
    answer = ask(service, "A secret [mini=idk]", metadata={"note": "secret"})
    record = service.recorded(answer.router["decision_id"])
    assert record.features is not None
    assert "secret" not in record.to_json().lower()
    assert record.attempts[0].verdicts[0].adequate is False


def test_an_api_key_is_asked_for_when_there_is_one(start_service, call):
    service = start_service(api_key_env="GATE_KEY", env={"GATE_KEY": "sk-gate"})
    with pytest.raises(openai.AuthenticationError):
        ask(service, "Hello")
    client = service.client.with_options(api_key="sk-gate")
    answer = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Hello"}])
    assert answer.router["tier"] == "small"
    assert call(f"{service.url}/healthz").status == 200


def test_parts_of_every_kind_and_all_options_go_through_untouched(service, upstream):
    upstream.calls()
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
    ]
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    options = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": TOOLS, "response_format": schema}
    service.client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": content}], modalities=["text"], **options
    )
    (sent,) = upstream.calls()
    assert sent["body"]["messages"] == [{"role": "user", "content": content}]
    assert {name: sent["body"][name] for name in options} == options
    assert sent["body"]["modalities"] == ["text"]


def test_parallel_calls_come_through(service):
    answer = ask(service, "Weather? [mini=tools]", tools=TOOLS)
    assert [call.id for call in answer.choices[0].message.tool_calls] == ["call_1", "call_2"]
    assert answer.choices[0].message.content == "Let me see."


def test_several_choices_and_their_logprobs_come_through(service):
    answer = ask(service, "Hello", n=2, logprobs=True, top_logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.logprobs.content[0].logprob for choice in answer.choices] == [-0.5, -0.5]
    assert service.recorded(answer.router["decision_id"]).attempts[0].logprobs is not None
