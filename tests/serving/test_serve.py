"""The serve command: clear mistakes, a clean stop, several workers."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from router_ml.errors import ConfigError
from router_ml_serving.settings import serving_settings


def streamed(url, prompt, received):
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        body = {"model": "small", "stream": True, "messages": [{"role": "user", "content": prompt}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        received.append(connection.getresponse().read())


def test_sigterm_lets_open_streams_finish_and_exits_with_0(start_service):
    service = start_service()
    received = []
    client = threading.Thread(target=streamed, args=(service.url, "Hello [mini=paced]", received))
    client.start()
    time.sleep(0.3)
    assert service.process.stop() == 0
    client.join(10)
    assert received[0].endswith(b"data: [DONE]\n\n")
    first = json.loads(received[0].split(b"\n")[0].removeprefix(b"data: "))
    assert service.recorded(first["router"]["decision_id"]).attempts[0].finish_reason == "stop"
    assert "Traceback" not in service.process.log.read_text()


def test_a_stream_that_outlasts_the_drain_is_cut_and_recorded(start_service):
    service = start_service(drain_s=1)
    received = []
    client = threading.Thread(target=cut_off, args=(service.url, received))
    client.start()
    time.sleep(0.5)
    started = time.monotonic()
    assert service.process.stop() == 0
    assert time.monotonic() - started < 8
    client.join(10)
    first = json.loads(received[0])
    assert service.recorded(first["router"]["decision_id"]).attempts[0].finish_reason == "cancelled"


def cut_off(url, received):
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        body = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "Hello [mini=stall]"}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        received.append(response.readline().removeprefix(b"data: "))
        with suppress(http.client.HTTPException):
            response.read()


def test_several_workers_share_one_port_and_one_store(start_service, call):
    service = start_service(workers=2)
    ids = [service.ask("Hello").json["router"]["decision_id"] for _ in range(10)]
    assert [service.recorded(one).attempts[0].tier for one in ids] == ["small"] * 10
    assert service.process.stop() == 0


def run_serve(service, *arguments, env=None):
    command = [*service.process.command, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}, check=False
    )


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ({"ROUTER_ML_SERVING__PROT": "1"}, "serving.prot: unknown key (did you mean 'port'?)"),
        ({"ROUTER_ML_SERVING__API_KEY_ENV": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
        ({"ROUTER_ML_POLICY__SAFE_TIER": "huge"}, "no tier is called 'huge'"),
        ({"ROUTER_ML_SERVING__SPILL": "/dev/null/spill.jsonl"}, "/dev/null/spill.jsonl: cannot make its folder"),
    ],
)
def test_a_mistake_in_the_configuration_is_explained_and_nothing_starts(service, env, part):
    done = run_serve(service, "--port", "0", env=env)
    assert done.returncode != 0
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_option_is_explained(service):
    done = run_serve(service, "--port", "99999")
    assert (done.returncode, "--port: " in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_workers_do_not_start_with_a_champion_that_cannot_be_used(service, tmp_path):
    (tmp_path / "champion").write_text("nothing\n")
    done = run_serve(service, "--port", "0", "--workers", "2", env={"ROUTER_ML_MODELS_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert "names 'nothing', which is not on the shelf" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_explained(service):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        done = run_serve(service, "--port", port)
    assert done.returncode != 0
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_are_checked():
    from router_ml.config import load_config

    config = load_config(None, {"ROUTER_ML_SERVING__STREAM_ADEQUACY": "2"})
    with pytest.raises(ConfigError, match="stream_adequacy"):
        serving_settings(config)
    assert serving_settings(load_config(None, {})).host == "127.0.0.1"


@pytest.mark.parametrize("wait_s", [0.3, 0.6, 0.9, 1.2, 1.5])
def test_a_service_told_to_stop_while_it_starts_stops(start_service, wait_s):
    home = start_service().home
    command = [sys.executable, "-m", "router_ml.cli", "serve", "--config", str(home / "router.toml")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    time.sleep(wait_s)  # somewhere between the first import and the first request
    process.terminate()
    assert process.wait(20) in (0, -signal.SIGTERM)


def test_a_service_told_to_stop_does_not_wait_for_workers_that_start(start_service, tmp_path):
    with starting_workers(start_service().home, tmp_path, each_s=90) as process:
        process.terminate()
        assert process.wait(30) == 0


def test_a_service_told_to_restart_its_workers_while_they_start_serves_first(start_service, tmp_path):
    with starting_workers(start_service().home, tmp_path, each_s=1) as process:
        process.send_signal(signal.SIGHUP)
        assert any("listening on" in line for line in process.stderr)


@contextmanager
def starting_workers(home, tmp_path, *, each_s):
    """Yield a service whose two workers have begun to start, which takes each of them `each_s` and more."""
    # Python runs this file first of all.
    begun = tmp_path / "begun"
    wait = f"open({str(begun)!r}, 'w').close(); time.sleep({each_s})"
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys, time\nif '--multiprocessing-fork' in sys.orig_argv: {wait}\n"
    )
    command = [sys.executable, "-m", "router_ml.cli", "serve", "--config", str(home / "router.toml"), "--workers", "2"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "SMALL_KEY": "sk-small"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            deadline = time.monotonic() + 60
            while not begun.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            process.wait(60)


def again(service, *command, env=None):
    """Start another service with the configuration of one that runs; `command` may wrap or extend its own."""
    one = service.process
    return type(one)(list(command) or one.command, service.home / "log.2", {**one.env, **(env or {})}).start()


def test_what_the_command_line_says_reaches_the_workers(start_service, call, put_bundle, tmp_path):
    for version in ("one", "two"):
        put_bundle(tmp_path / "models", version)
    (tmp_path / "models" / "champion").write_text("one\n")
    (tmp_path / "models" / "challenger").write_text("two\n")
    env, toml = {"ROUTER_ML_ADMIN_KEY": "sk-admin"}, "[rollout]\ncanary_share = 0.5\n"
    service = start_service(home=tmp_path, toml=toml, env=env, host="127.0.0.2")
    command = [*service.process.command, "--workers", "3", "--host", "127.0.0.1"]
    other = again(service, *command, env={"ROUTER_ML_SERVING__WORKERS": "2"})
    try:
        alone, shared = (rollout_of(url, call) for url in (service.url, other.url))
    finally:
        assert other.stop() == 0
    assert other.url.startswith("http://127.0.0.1:")
    assert threshold(shared) == pytest.approx(3 * threshold(alone))


def rollout_of(url, call):
    """Return the state of a roll-out, once the worker that answers has looked at the shelf for its challenger."""
    deadline = time.monotonic() + 30
    while True:
        state = call(f"{url}/admin/rollout", headers={"authorization": "Bearer sk-admin"}).json
        if state["challenger"] is not None:
            return state
        assert time.monotonic() < deadline
        time.sleep(0.05)


def threshold(state):
    return float(re.findall(r"'threshold': ([0-9.]+)", str(state))[0])


def test_more_connections_than_descriptors_are_refused_and_hinder_nobody(start_service, call):
    service = start_service()
    crowded = again(service, "/bin/sh", "-c", 'ulimit -n 200 && exec "$@"', "sh", *service.process.command)
    where = urlsplit(crowded.url)
    try:
        with ExitStack() as open_:
            crowd = [open_.enter_context(socket.create_connection((where.hostname, where.port))) for _ in range(260)]
            crowd[-1].settimeout(10)
            said = crowd[-1].recv(4096)
            assert said.startswith(b"HTTP/1.1 503 ")
            assert json.loads(said.split(b"\r\n\r\n")[1])["error"]["code"] == "too_many_connections"
            crowd[0].sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b" 200 " in crowd[0].recv(4096)
        deadline = time.monotonic() + 10
        while not answers(crowded.url, call):
            assert time.monotonic() < deadline
    finally:
        assert crowded.stop() == 0
    log = crowded.log.read_text()
    assert log.count("too_many_connections") == 1
    assert "Traceback" not in log


def answers(url, call):
    with suppress(OSError):
        return call(f"{url}/v1/route", {"messages": [{"role": "user", "content": "Hello"}]}).status == 200
    return False
