"""`POST /v1/messages` through real processes and Anthropic's official client."""

import http.client
import json
from contextlib import closing
from urllib.parse import urlsplit

import anthropic
import pytest

TOOLS = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


@pytest.fixture(scope="module")
def through(start_service):
    return start_service(stream_adequacy=0.5)


@pytest.fixture(params=["through", "service"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def client_of():
    clients = {}

    def of(service):
        if service.url not in clients:
            clients[service.url] = anthropic.Anthropic(base_url=service.url, api_key="none", max_retries=0, timeout=30)
        return clients[service.url]

    yield of
    for client in clients.values():
        client.close()


def asking(content, **fields):
    return {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": content}], **fields}


def test_a_good_answer_is_given_with_the_facts(service, client_of, upstream):
    upstream.calls()
    raw = client_of(service).messages.with_raw_response.create(
        **asking("Hello?"), system="Be brief.", extra_body={"top_k": 3}
    )
    answer = raw.parse()
    assert answer.content[0].text == "The answer of mini is 42."
    assert (answer.model, answer.stop_reason) == ("mini", "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 20)
    assert answer.id == f"msg_{answer.router['decision_id']}"
    assert answer._request_id == raw.headers["request-id"] == f"req_{answer.router['decision_id']}"
    assert answer.router["ignored"] == ["top_k"]
    assert raw.headers["x-router-tier"] == answer.router["tier"] == "small"
    (sent,) = upstream.calls()
    assert sent["body"] == {
        "model": "mini",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "max_completion_tokens": 100,
    }


def test_a_poor_answer_is_escalated_and_recorded_in_the_chat_form(service, client_of):
    answer = client_of(service).messages.create(**asking("Who? [mini=idk]"), metadata={"user_id": "u"})
    assert answer.content[0].text == "The answer of maxi is 42."
    assert answer.router["attempts"] == 2
    record = service.recorded(answer.router["decision_id"])
    assert [one.tier for one in record.attempts] == ["small", "large"]
    assert record.attempts[0].verdicts[0].adequate is False
    assert record.request.messages[0]["content"] == "Who? [mini=idk]"


def test_tools_are_called_in_parallel_and_their_results_go_back(service, client_of, upstream):
    client = client_of(service)
    request = asking("Weather? [mini=tools]", tools=TOOLS, tool_choice={"type": "any"})
    answer = client.messages.create(**request)
    assert answer.stop_reason == "tool_use"
    assert [block.type for block in answer.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in answer.content[1:]] == [{"city": "Oslo"}] * 2
    upstream.calls()
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": "sun"} for block in answer.content[1:]]
    turns = [
        *request["messages"],
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [*results, {"type": "text", "text": "So?"}]},
    ]
    final = client.messages.create(**{**request, "messages": turns})
    assert final.stop_reason == "end_turn"
    (sent,) = upstream.calls()
    assert [one["role"] for one in sent["body"]["messages"]] == ["user", "assistant", "tool", "tool", "user"]
    assert sent["body"]["tool_choice"] == "required"
    assert [one["id"] for one in sent["body"]["messages"][1]["tool_calls"]] == ["call_1", "call_2"]


def test_images_reach_the_upstream(service, client_of, upstream):
    upstream.calls()
    blocks = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": PNG}]
    client_of(service).messages.create(**asking(blocks))
    (sent,) = upstream.calls()
    part = sent["body"]["messages"][0]["content"][1]
    assert part == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_a_stream_is_put_together_by_the_official_client(either, client_of):
    with client_of(either).messages.stream(**asking("Hello")) as stream:
        assert "".join(stream.text_stream) == "The answer of mini is 42."
        answer = stream.get_final_message()
    assert (answer.stop_reason, answer.model) == ("end_turn", "mini")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 20)
    attempt = either.recorded(answer.router["decision_id"]).attempts[0]
    assert attempt.response == "The answer of mini is 42."
    assert (attempt.input_tokens, attempt.error) == (100, None)


def test_parallel_calls_are_streamed(either, client_of):
    with client_of(either).messages.stream(**asking("Weather? [mini=tools]", tools=TOOLS)) as stream:
        answer = stream.get_final_message()
    assert answer.stop_reason == "tool_use"
    assert [block.type for block in answer.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in answer.content[1:]] == [{"city": "Oslo"}] * 2


def test_a_held_poor_answer_is_replaced_and_never_mixed(service, client_of):
    with client_of(service).messages.stream(**asking("Hello [mini=idk]")) as stream:
        answer = stream.get_final_message()
    assert answer.content[0].text == "The answer of maxi is 42."
    assert (answer.model, answer.router["attempts"]) == ("maxi", 2)


def test_pings_keep_a_held_stream_open(start_service, client_of):
    service = start_service(keepalive_s=0.1)
    with closing(http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=20)) as connection:
        body = json.dumps(asking("Hello [mini=paced]", stream=True))
        connection.request("POST", "/v1/messages", body, {"content-type": "application/json"})
        got = connection.getresponse().read()
    assert got.startswith(b'event: ping\ndata: {"type":"ping"}\n\n')
    with client_of(service).messages.stream(**asking("Hello [mini=paced]")) as stream:
        assert stream.get_final_text() == "The answer of mini is 42."


@pytest.mark.parametrize("fault", ["reset", "half"])
def test_a_passed_stream_that_breaks_ends_in_an_error_event(through, client_of, fault):
    with (
        pytest.raises(anthropic.APIStatusError, match="small") as caught,
        client_of(through).messages.stream(**asking(f"Hello [mini={fault}]")) as stream,
    ):
        stream.until_done()
    assert caught.value.body["error"]["type"] == "api_error"


@pytest.mark.parametrize("stream", [False, True])
def test_when_all_fail_the_upstreams_error_is_told_in_anthropics_shape(service, client_of, stream):
    with pytest.raises(anthropic.RateLimitError) as caught:
        client_of(service).messages.create(**asking("Hello [mini=501] [maxi=429]"), stream=stream)
    assert caught.value.body["error"] == {"type": "rate_limit_error", "message": "scripted 429"}
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.request_id == caught.value.body["request_id"]


@pytest.mark.parametrize(
    ("fields", "error", "kind"),
    [
        ({"model": "claude-nobody"}, anthropic.NotFoundError, "not_found_error"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, anthropic.BadRequestError, None),
        ({"messages": []}, anthropic.BadRequestError, None),
    ],
)
def test_errors_of_the_request_have_anthropics_shape(service, client_of, fields, error, kind):
    with pytest.raises(error) as caught:
        client_of(service).messages.create(**{**asking("Hello"), **fields})
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == (kind or "invalid_request_error")
    assert caught.value.request_id.startswith("req_")


def test_a_body_that_is_no_json_is_refused_in_anthropics_shape(service, call):
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        reply = call(f"{service.url}{path}", b"{")
        assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_cancels_the_upstream_call(service, client_of, upstream, stream):
    upstream.calls()
    with pytest.raises(anthropic.APITimeoutError):
        client_of(service).with_options(timeout=0.5).messages.create(**asking("Hang [mini=hang]"), stream=stream)
    assert len(upstream.cancelled()) == 1


def test_tokens_are_counted_by_estimate(service, client_of):
    request = asking("Hello, how are you? " * 20, tools=TOOLS)
    del request["max_tokens"]
    found = client_of(service).messages.count_tokens(**request)
    assert 90 < found.input_tokens < 150
    assert found.router == {"estimated": True}


def test_the_router_key_and_headers_work_as_in_chat(service, client_of):
    client = client_of(service)
    answer = client.messages.create(
        **asking("Hello"),
        extra_body={"router": {"quality": 1, "use_case": "email"}},
        extra_headers={"x-router-tenant": "acme"},
    )
    assert answer.router["tier"] == "large"
    record = service.recorded(answer.router["decision_id"])
    assert (record.tenant, record.use_case) == ("acme", "email")


def test_a_key_is_asked_for_when_there_is_one(start_service, call):
    service = start_service(api_key_env="GATE_KEY", env={"GATE_KEY": "sk-gate"})
    for path in ("messages", "messages/count_tokens"):
        reply = call(f"{service.url}/v1/{path}", asking("Hello"))
        assert (reply.status, reply.json["error"]["type"]) == (401, "authentication_error")
        headers = {"authorization": "Bearer sk-gate"}
        assert call(f"{service.url}/v1/{path}", asking("Hello"), headers=headers).status == 200
