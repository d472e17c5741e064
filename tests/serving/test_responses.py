"""`POST /v1/responses` through real processes and OpenAI's official client."""

import openai
import pytest

TOOLS = [
    {
        "type": "function",
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    }
]


@pytest.fixture(scope="module")
def through(start_service):
    return start_service(stream_adequacy=0.5)


@pytest.fixture(params=["through", "service"])
def either(request):
    return request.getfixturevalue(request.param)


def ask(service, given, **fields):
    return service.client.responses.create(model="auto", input=given, **fields)


def streamed(service, given, **fields):
    with service.client.responses.stream(model="auto", input=given, **fields) as stream:
        return stream.get_final_response()


def test_a_good_answer_is_given_with_the_facts(service, upstream):
    upstream.calls()
    raw = service.client.responses.with_raw_response.create(
        model="auto", input="Hello?", instructions="Be brief.", max_output_tokens=100, store=True, truncation="auto"
    )
    answer = raw.parse()
    assert answer.output_text == "The answer of mini is 42."
    assert (answer.model, answer.status, answer.store) == ("mini", "completed", False)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (100, 20, 120)
    assert answer.id == f"resp_{answer.router['decision_id']}"
    assert answer.router["ignored"] == ["truncation"]
    assert raw.headers["x-router-tier"] == answer.router["tier"] == "small"
    (sent,) = upstream.calls()
    assert sent["body"] == {
        "model": "mini",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "max_completion_tokens": 100,
    }


def test_a_poor_answer_is_escalated_and_recorded_in_the_chat_form(service):
    answer = ask(service, "Who? [mini=idk]", metadata={"feature": "chat", "ticket": "T1"})
    assert answer.output_text == "The answer of maxi is 42."
    assert answer.metadata["ticket"] == "T1"
    record = service.recorded(answer.router["decision_id"])
    assert [one.tier for one in record.attempts] == ["small", "large"]
    assert (record.feature, record.tags) == ("chat", {"ticket": "T1"})
    assert record.request.messages[0]["content"] == "Who? [mini=idk]"


def test_tools_are_called_in_parallel_and_their_results_go_back(service, upstream):
    question = {"role": "user", "content": "Weather? [mini=tools]"}
    answer = ask(service, [question], tools=TOOLS, tool_choice="required")
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [call.arguments for call in calls] == ['{"city": "Oslo"}'] * 2
    upstream.calls()
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in calls]
    final = ask(service, [question, *answer.output, *results, {"role": "user", "content": "So?"}], tools=TOOLS)
    assert final.status == "completed"
    (sent,) = upstream.calls()
    assert [one["role"] for one in sent["body"]["messages"]] == ["user", "assistant", "tool", "tool", "user"]
    assert [one["id"] for one in sent["body"]["messages"][1]["tool_calls"]] == ["call_1", "call_2"]


def test_images_reach_the_upstream(service, upstream):
    upstream.calls()
    parts = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": "data:,", "detail": "auto"},
    ]
    ask(service, [{"role": "user", "content": parts}])
    (sent,) = upstream.calls()
    part = sent["body"]["messages"][0]["content"][1]
    assert part == {"type": "image_url", "image_url": {"url": "data:,", "detail": "auto"}}


def test_a_stream_is_put_together_by_the_official_client(either):
    answer = streamed(either, "Hello")
    assert answer.output_text == "The answer of mini is 42."
    assert (answer.status, answer.model) == ("completed", "mini")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 20)
    attempt = either.recorded(answer.router["decision_id"]).attempts[0]
    assert attempt.response == "The answer of mini is 42."
    assert (attempt.input_tokens, attempt.error) == (100, None)


def test_parallel_calls_are_streamed(either):
    answer = streamed(either, "Weather? [mini=tools]", tools=TOOLS)
    assert [item.type for item in answer.output] == ["message", "function_call", "function_call"]
    assert [item.arguments for item in answer.output[1:]] == ['{"city": "Oslo"}'] * 2


def test_a_held_poor_answer_is_replaced_and_never_mixed(service):
    events = list(ask(service, "Hello [mini=idk]", stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == "The answer of maxi is 42."
    assert events[-1].response.router["attempts"] == 2


def test_comments_keep_a_held_stream_open(start_service):
    service = start_service(keepalive_s=0.1)
    assert streamed(service, "Hello [mini=paced]").output_text == "The answer of mini is 42."


@pytest.mark.parametrize("fault", ["reset", "half"])
def test_a_passed_stream_that_breaks_ends_in_an_error(through, fault):
    events = []
    with pytest.raises(openai.APIError, match="small") as caught:
        events.extend(ask(through, f"Hello [mini={fault}]", stream=True))
    assert not isinstance(caught.value, openai.APIConnectionError)


@pytest.mark.parametrize("stream", [False, True])
def test_when_all_fail_the_upstreams_own_error_reaches_the_client(service, stream):
    with pytest.raises(openai.RateLimitError, match="scripted 429") as caught:
        ask(service, "Hello [mini=501] [maxi=429]", stream=stream)
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"model": "gpt-nobody"}, openai.NotFoundError, "model"),
        ({"tools": [{"type": "web_search"}]}, openai.BadRequestError, "tools[0]"),
        ({"previous_response_id": "resp_1"}, openai.BadRequestError, "previous_response_id"),
    ],
)
def test_errors_of_the_request_name_the_field(service, fields, error, param):
    with pytest.raises(error) as caught:
        service.client.responses.create(**{"model": "auto", "input": "Hello", **fields})
    assert caught.value.body["param"] == param


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_cancels_the_upstream_call(service, upstream, stream):
    upstream.calls()
    with pytest.raises(openai.APITimeoutError):
        service.client.with_options(timeout=0.5).responses.create(model="auto", input="[mini=hang]", stream=stream)
    assert len(upstream.cancelled()) == 1


def test_the_router_key_and_headers_work_as_in_chat(service):
    extra = {"extra_body": {"router": {"quality": 1}}, "extra_headers": {"x-router-tenant": "acme"}}
    answer = ask(service, "Hello", **extra)
    assert answer.router["tier"] == "large"
    assert service.recorded(answer.router["decision_id"]).tenant == "acme"
