"""The way in: short cuts past FastAPI that behave as if they went through it."""

import asyncio
import json

import pytest

from router_ml.errors import RequestError
from router_ml_serving.front import Front, JsonReply
from router_ml_serving.logs import FieldFormatter

PROMPT = "a prompt that nobody may see"


@pytest.fixture
def counted():
    return []


@pytest.fixture
def front(counted):
    async def hello(request):
        assert request.method == "POST"
        return JsonReply(b'{"hello": 1}', ((b"x-router-tier", b"small"),), 201)

    async def wrong(request):
        raise RequestError("messages is missing", param="messages")

    async def broken(request):
        raise KeyError(PROMPT)

    shortcuts = {"/hello": hello, "/wrong": wrong, "/broken": broken}
    return Front(shortcuts=shortcuts, count=lambda path, status: counted.append((path, status)))


def ask(front, path, method="POST"):
    sent = []
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
        "query_string": b"", "headers": [], "server": ("127.0.0.1", 80), "http_version": "1.1",
    }  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(front(scope, receive, send))
    headers = dict(sent[0]["headers"])
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


def test_an_endpoint_answers_for_itself(front, counted):
    status, headers, body = ask(front, "/hello")
    assert (status, json.loads(body)) == (201, {"hello": 1})
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"12"
    assert headers[b"x-router-tier"] == b"small"
    assert counted == [("/hello", 201)]


def test_a_mistake_of_the_client_is_told_in_openais_shape(front, counted):
    status, _, body = ask(front, "/wrong")
    assert status == 400
    assert json.loads(body)["error"]["param"] == "messages"
    assert counted == [("/wrong", 400)]


def test_a_mistake_of_ours_says_nothing_of_the_request(front, counted, caplog):
    status, _, body = ask(front, "/broken")
    (record,) = [one for one in caplog.records if one.message == "unexpected_error"]
    said = FieldFormatter().format(record)
    assert "test_front.py" in said
    assert PROMPT not in said
    assert status == 500
    assert json.loads(body)["error"]["code"] == "internal_error"
    assert b"prompt" not in body
    assert counted == [("/broken", 500)]


@pytest.mark.parametrize(("path", "method"), [("/hello", "GET"), ("/nothing", "POST")])
def test_everything_else_goes_through_fastapi(front, counted, path, method):
    status, _, _ = ask(front, path, method)
    assert status == 404
    assert counted == []
