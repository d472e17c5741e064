"""Services that are stopped or killed at work: what was begun ends, what was acknowledged is there afterwards."""

import http.client
import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import pytest

from router_ml.store import open_store


def post(url, path, body):
    """Send one request on a connection of its own; return the status and the body."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


def chat(prompt, **fields):
    return {"model": "auto", "messages": [{"role": "user", "content": prompt}], **fields}


def stored(service):
    with open_store(f"sqlite:///{service.home / 'events.db'}") as store:
        return {one.id: one for one in store.scan()}


def refuses_connections(url):
    where = urlsplit(url)
    try:
        with closing(socket.create_connection((where.hostname, where.port), timeout=5)) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            return connection.recv(100) == b""
    except OSError:
        return True


@pytest.mark.parametrize("workers", [1, 2])
def test_open_requests_end_while_new_connections_are_refused(start_service, workers):
    service = start_service(stream_adequacy=0.0, workers=workers)
    status, told = post(service.url, "/v1/route", chat("Hello"))
    assert status == 200
    decision = json.loads(told)["decision_id"]
    assert post(service.url, "/v1/feedback", {"decision_id": decision, "adequate": True})[0] == 200
    streams = [chat(f"{i} [mini=paced]", stream=True) for i in range(6)]
    # With tools streams are held, and a whole answer may take its time too.
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    others = [chat(f"{i} [mini=paced]", stream=True, tools=tools) for i in range(3)] + [chat("Hello [mini=slow]")]
    with ThreadPoolExecutor(12) as pool:
        work = [pool.submit(post, service.url, "/v1/chat/completions", body) for body in streams + others]
        time.sleep(0.4)
        stopped = pool.submit(service.process.stop)
        time.sleep(0.3)
        assert not stopped.done()
        assert refuses_connections(service.url)
        answers = [one.result() for one in work]
        assert stopped.result() == 0
    assert {status for status, _ in answers} == {200}
    assert all(body.endswith(b"data: [DONE]\n\n") for _, body in answers[:-1])
    found = stored(service)
    assert len(found) == 1 + len(answers)
    assert [one.adequate for one in found[decision].feedback] == [True]
    assert all(one.attempts[-1].finish_reason == "stop" for one in found.values() if one.attempts)
    assert "Traceback" not in service.process.log.read_text()


def test_idle_connections_hold_up_nothing(start_service):
    service = start_service()
    where = urlsplit(service.url)
    with ExitStack() as open_:
        for _ in range(30):
            idle = open_.enter_context(closing(http.client.HTTPConnection(where.netloc, timeout=10)))
            idle.request("GET", "/healthz")
            assert idle.getresponse().read()
        silent = open_.enter_context(closing(socket.create_connection((where.hostname, where.port))))
        silent.sendall(b"POST /v1/ro")
        started = time.monotonic()
        assert service.process.stop() == 0
        assert time.monotonic() - started < 8


def test_a_service_that_is_killed_at_work_keeps_what_it_acknowledged(start_service):
    home, acknowledged, lock = None, [], threading.Lock()

    def work(url, deadline):
        while time.monotonic() < deadline:
            try:
                status, told = post(url, "/v1/chat/completions", chat("Hello", metadata={"pad": "x" * 5000}))
                assert status == 200
                about = {"decision_id": json.loads(told)["router"]["decision_id"], "adequate": False}
                status, told = post(url, "/v1/feedback", {**about, "key": about["decision_id"]})
            except (OSError, http.client.HTTPException):
                return
            assert (status, json.loads(told)["recorded"]) == (200, True)
            with lock:
                acknowledged.append(about["decision_id"])

    for _ in range(2):
        service = start_service(home=home)
        home = service.home
        with ThreadPoolExecutor(6) as pool:
            busy = [pool.submit(work, service.url, time.monotonic() + 30) for _ in range(6)]
            time.sleep(0.7)
            service.process.process.send_signal(signal.SIGKILL)
            for one in busy:
                one.result()
        service.process.process.wait(10)
    assert len(acknowledged) > 20
    service = start_service(home=home)  # starts on what the others left, and writes on
    assert service.ask("Hello").status == 200
    assert service.process.stop() == 0
    with open_store(f"sqlite:///{home / 'events.db'}") as store:
        torn = []
        found = {one.id: one for one in store.scan(on_reject=lambda id_, _: torn.append(id_))}
        late = store.info().feedback
    assert torn == []
    kept = [id_ for id_ in acknowledged if id_ in found]
    assert [id_ for id_ in kept if id_ not in {item.key for item in found[id_].feedback}] == []
    # Only the records of the last moments may be gone; the feedback about them waits all the same.
    assert len(acknowledged) - len(kept) <= late
    assert len(kept) > len(acknowledged) / 2
