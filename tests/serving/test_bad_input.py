"""Whatever a client sends: one clear error in OpenAI's shape, and the service stays up."""

import http.client
import json
import socket
from contextlib import closing
from urllib.parse import urlsplit

import pytest

MESSAGES = [{"role": "user", "content": "Hello"}]
# body, status, param, code, part of the message
CHAT = [
    (b"", 400, None, "invalid_request", "empty"),
    (b"{", 400, None, "invalid_request", "not valid JSON"),
    (b"\xff\xfe{}", 400, None, "invalid_request", "not valid JSON"),
    (b'{"messages": [{"role": "user", "content": "\xff"}]}', 400, None, "invalid_request", "not valid JSON"),
    (b"[" * 100_000, 400, None, "invalid_request", "not valid JSON"),
    (b"[]", 400, None, "invalid_request", "must be a JSON object, got an empty list"),
    (b"7", 400, None, "invalid_request", "must be a JSON object, got an integer"),
    (b"null", 400, None, "invalid_request", "must be a JSON object, got null"),
    ({}, 400, "messages", "invalid_request", "messages is missing"),
    ({"messages": None}, 400, "messages", "invalid_request", "messages is missing"),
    ({"messages": []}, 400, "messages", "invalid_request", "non-empty list, got an empty list"),
    ({"messages": "Hello"}, 400, "messages", "invalid_request", "non-empty list, got a string"),
    ({"messages": ["Hello"]}, 400, "messages[0]", "invalid_request", "messages[0] must be an object"),
    ({"messages": [{"content": "x"}]}, 400, "messages[0].role", "invalid_request", "role must be a string"),
    ({"messages": [{"role": "user", "content": 7}]}, 400, "messages[0].content", "invalid_request", "got an integer"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, 400, "messages[0].content", "invalid_request", "objects"),
    ({"messages": MESSAGES, "model": 4}, 400, "model", "invalid_request", "model must be a string, got an integer"),
    ({"messages": MESSAGES, "stream": "yes"}, 400, "stream", "invalid_request", "must be true or false"),
    ({"messages": MESSAGES, "max_tokens": True}, 400, "max_tokens", "invalid_request", "must be an integer"),
    ({"messages": MESSAGES, "max_tokens": -1}, 400, "max_tokens", "invalid_request", "not be negative"),
    ({"messages": MESSAGES, "tools": {}}, 400, "tools", "invalid_request", "must be a list"),
    ({"messages": MESSAGES, "tools": [1]}, 400, "tools[0]", "invalid_request", "must be an object"),
    ({"messages": MESSAGES, "response_format": "json"}, 400, "response_format", "invalid_request", "an object"),
    ({"messages": MESSAGES, "metadata": []}, 400, "metadata", "invalid_request", "must be an object"),
    ({"messages": MESSAGES, "router": {"tenant": 1}}, 400, "router.tenant", "invalid_request", "a string"),
    ({"messages": MESSAGES, "router": {"quality": 97}}, 400, "router.quality", "invalid_request", "(0, 1]"),
    ({"messages": MESSAGES, "model": "smal"}, 404, "model", "model_not_found", "did you mean 'small'?"),
    ({"messages": MESSAGES, "model": "gpt-9"}, 404, "model", "model_not_found", "known: auto, router, small"),
    ({"messages": MESSAGES, "model": "router-97"}, 404, "model", "model_not_found", "did you mean 'router-0.97'?"),
    ({"messages": MESSAGES, "model": "router-0"}, 404, "model", "model_not_found", "in (0, 1]"),
    ({"messages": MESSAGES, "model": "router-nan"}, 404, "model", "model_not_found", "in (0, 1]"),
]
FEEDBACK = [
    ({}, 400, None, "decision_id"),
    ({"decision_id": "x"}, 400, None, "adequate, score or verdict"),
    ({"decision_id": "", "adequate": True}, 400, "decision_id", "1 to 128"),
    ({"decision_id": "x", "score": 1.5}, 400, "score", "less than or equal to 1"),
    ({"decision_id": "x", "score": "NaN"}, 400, "score", "score"),
    ({"decision_id": "x", "verdict": "meh"}, 400, "verdict", "verdict"),
    ({"decision_id": "x", "adequate": True, "tier": "smal"}, 400, "tier", "did you mean 'small'?"),
    ({"decision_id": "x", "adequate": True, "source": "cat"}, 400, "source", "source"),
    ({"decision_id": "x", "adequat": True}, 400, "adequat", "did you mean 'adequate'?"),
    ({"decision_id": "x", "verdicts": [{"tier": "small"}]}, 400, None, "adequate, score or verdict"),
    (b"nope", 400, None, "not valid JSON"),
]


def assert_openai_error(reply, status, param, code, part):
    assert reply.status == status
    error = reply.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert part in error["message"]
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route"])
@pytest.mark.parametrize(("body", "status", "param", "code", "part"), CHAT)
def test_a_bad_chat_body_gets_one_clear_error(service, call, path, body, status, param, code, part):
    assert_openai_error(call(f"{service.url}{path}", body, method="POST"), status, param, code, part)
    assert call(f"{service.url}/readyz").status == 200


@pytest.mark.parametrize(("body", "status", "param", "part"), FEEDBACK)
def test_bad_feedback_gets_one_clear_error(service, call, body, status, param, part):
    assert_openai_error(call(f"{service.url}/v1/feedback", body), status, param, "invalid_request", part)


def test_a_body_that_is_too_large_is_refused(service, call):
    huge = json.dumps({"messages": [{"role": "user", "content": "x" * 20_000_000}]}).encode()
    for path in ("/v1/chat/completions", "/v1/route", "/v1/feedback"):
        assert_openai_error(call(f"{service.url}{path}", huge), 413, None, "request_too_large", "8388608 bytes")
    assert call(f"{service.url}/readyz").status == 200


@pytest.mark.parametrize("levels", [60, 65, 900, 100_000])
def test_deeply_nested_input_gets_an_answer(service, call, levels):
    tool = b'{"a":' * levels + b"{}" + b"}" * levels
    body = b'{"messages": [{"role": "user", "content": "Hello"}], "tools": [' + tool + b"]}"
    reply = call(f"{service.url}/v1/route", body)
    if levels == 60:
        assert service.recorded(reply.json["decision_id"]).request.tools is not None
    else:
        assert_openai_error(reply, 400, None, "invalid_request", "deeper" if levels < 1000 else "not valid JSON")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/v1/completions", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/route/", 404, "unknown_url"),
    ],
)
def test_unknown_urls_and_methods_get_openais_shape(service, call, method, path, status, code):
    reply = call(f"{service.url}{path}", method=method)
    assert_openai_error(reply, status, None, code, path)


def test_a_client_that_leaves_while_sending_does_no_harm(service, call):
    where = urlsplit(service.url)
    with closing(socket.create_connection((where.hostname, where.port))) as connection:
        connection.sendall(b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{")
    with closing(http.client.HTTPConnection(where.netloc, timeout=10)) as connection:
        connection.putrequest("POST", "/v1/route")
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders()
        body = json.dumps({"messages": MESSAGES}).encode()
        connection.send(b"%x\r\n%s\r\n" % (10, body[:10]))
        connection.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) - 10, body[10:]))
        assert connection.getresponse().status == 200
    log = service.process.log.read_text()
    assert "Traceback" not in log, log
