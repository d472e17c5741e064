"""Upstreams that fail and recover: what is tried again, what opens a circuit, and what ends at once."""

import asyncio
import json
import socket
import time

import pytest

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml_serving.failures import CircuitOpen, RefusedByUpstream
from router_ml_serving.health import Health
from router_ml_serving.settings import ServingSettings
from router_ml_serving.upstream import HttpUpstream

SETTINGS = ServingSettings(connect_s=0.3, idle_s=0.8, total_s=5.0)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Clock:
    s = 1000.0

    def __call__(self):
        return self.s


class Pauses(list):
    """Waits no time, and remembers how long it was to be."""

    async def __call__(self, seconds):
        self.append(round(seconds, 3))
        await asyncio.sleep(0)


def tier(base_url, name="small"):
    return Tier(name=name, model="mini", base_url=base_url, input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)


def body(behaviour, **fields):
    messages = [{"role": "user", "content": f"{time.perf_counter_ns()} [mini={behaviour}]"}]
    return json.dumps({"model": "mini", "messages": messages, **fields}).encode()


def with_client(work, settings=SETTINGS, **parts):
    """Run `work` with a started client."""

    async def go():
        client = HttpUpstream(settings, {}, **{"uniform": lambda _, high: high, **parts})
        await client.start()
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(go())


def complete(where, sent, *, deadline_s=None, **parts):
    return with_client(lambda client: client.complete(where, sent, deadline_s=deadline_s), **parts)


@pytest.fixture
def small(upstream):
    upstream.calls()
    return tier(f"{upstream.url}/v1")


@pytest.fixture
def pauses():
    return Pauses()


@pytest.mark.parametrize(
    ("behaviour", "waited"),
    [
        ("500-silent-times-2", [0.25, 0.5]),
        ("529-silent-times-1", [0.25]),
        ("429-silent-times-1", [0.25]),
        ("429-soon-times-1", [0.25]),
        ("429-ms-times-1", [0.27]),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_a_passing_fault_is_not_seen(small, upstream, pauses, behaviour, waited, streams):
    async def work(client):
        if not streams:
            return (await client.complete(small, body(behaviour))).body
        return b"".join([chunk async for chunk in client.stream(small, body(behaviour, stream=True))])

    retried = []
    assert b"mini" in with_client(work, sleep=pauses, on_retry=retried.append)
    assert pauses == waited
    assert len(upstream.calls()) == 1 + len(waited)
    assert retried == ["small"] * len(waited)


@pytest.mark.parametrize("behaviour", ["429", "429-date", "429-late", "501-silent", "400"])
def test_what_takes_too_long_or_will_not_pass_is_handed_on_at_once(small, upstream, pauses, behaviour):
    with pytest.raises(RefusedByUpstream) as caught:
        complete(small, body(behaviour), sleep=pauses)
    assert pauses == []
    assert len(upstream.calls()) == 1
    assert json.loads(caught.value.body)["error"]["message"] == f"scripted {behaviour}"
    assert ("retry-after" in caught.value.headers) is (behaviour != "501-silent")


def test_a_date_is_waited_for_when_there_is_time(small, pauses):
    patient = SETTINGS.model_copy(update={"retry_s": 20.0})
    assert complete(small, body("429-date-times-1"), settings=patient, sleep=pauses).status == 200
    assert pauses == [9.25]


def test_a_lasting_fault_is_handed_on_after_the_last_try(small, upstream, pauses):
    with pytest.raises(RefusedByUpstream):
        complete(small, body("503-silent"), sleep=pauses)
    assert len(upstream.calls()) == 3


def test_nothing_is_tried_again_when_nobody_waits_any_more(small, pauses):
    with pytest.raises(RefusedByUpstream):
        complete(small, body("500-silent-times-1"), deadline_s=time.perf_counter(), sleep=pauses)
    assert pauses == []


def test_a_storm_of_errors_is_not_answered_with_three_times_the_load(small, upstream, pauses):
    async def work(client):
        sent = [client.complete(small, body("500-silent")) for _ in range(60)]
        return await asyncio.gather(*sent, return_exceptions=True)

    assert all(isinstance(one, RefusedByUpstream) for one in with_client(work, sleep=pauses))
    assert 60 < len(upstream.calls()) <= 60 + 10 + 12


def test_nobody_there_is_tried_again_and_is_a_connect_error(pauses):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UpstreamError) as caught:
        complete(tier(f"http://127.0.0.1:{port}/v1"), body("ok"), sleep=pauses)
    assert (caught.value.kind, len(pauses)) == ("connect", 2)


def test_a_connection_that_never_stands_is_tried_again(pauses):
    # Nobody accepts, and the queue of those who wait to be accepted is full.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        with pytest.raises(UpstreamError) as caught:
            complete(tier(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"), body("ok"), sleep=pauses)
        for one in waiting:
            one.close()
    assert (caught.value.kind, len(pauses)) == ("connect", 2)


@pytest.mark.parametrize("behaviour", ["hang", "reset", "broken-json"])
def test_work_that_the_upstream_may_bill_is_not_asked_for_twice(small, upstream, pauses, behaviour):
    with pytest.raises(UpstreamError):
        complete(small, body(behaviour), sleep=pauses)
    assert len(upstream.calls()) == 1


def test_a_stream_that_broke_off_is_not_started_anew(small, upstream, pauses):
    got = []

    async def work(client):
        async for chunk in client.stream(small, body("reset", stream=True)):
            got.append(chunk)  # noqa: PERF401  what came before the fault is looked at

    with pytest.raises(UpstreamError) as caught:
        with_client(work, sleep=pauses)
    assert caught.value.kind == "reset"
    assert got
    assert len(upstream.calls()) == 1


def test_cancelling_ends_a_pause_at_once(small, upstream):
    async def work(client):
        task = asyncio.create_task(client.complete(small, body("500-silent")))
        while not upstream_calls:
            await asyncio.sleep(0.01)
        task.cancel()
        started = time.monotonic()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled(), time.monotonic() - started

    upstream_calls = []

    async def sleep(seconds):
        upstream_calls.append(seconds)
        await asyncio.sleep(60)

    cancelled, took_s = with_client(work, sleep=sleep)
    assert cancelled
    assert took_s < 1.0
    assert len(upstream.calls()) == 1


@pytest.mark.parametrize(("n_answers", "n_connections"), [(1, 2), (0, 1)])
def test_only_a_pooled_connection_that_turns_out_dead_is_replaced(pauses, n_answers, n_connections):
    # A server whose first connection gives so many answers, and hangs up on the next request; later ones are fine.
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        left = n_answers if len(connections) == 1 else 10
        try:
            while left and await reader.read(65536):
                writer.write(ANSWER)
                left -= 1
            await reader.read(65536)
        finally:
            writer.close()

    async def work(client):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        where = tier(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        try:
            for _ in range(n_answers + 1):
                await client.complete(where, b"{}")
        finally:
            server.close()

    if n_answers:
        with_client(work, sleep=pauses)
    else:
        with pytest.raises(UpstreamError) as caught:
            with_client(work, sleep=pauses)
        assert caught.value.kind == "reset"
    assert len(connections) == n_connections
    assert pauses == []


def test_a_storm_opens_the_circuit_and_a_probe_closes_it(small, upstream, pauses):
    changes, clock = [], Clock()
    health = Health([small], failures=3, open_s=0.3, clock=clock, on_change=lambda *change: changes.append(change))

    async def work(client):
        for _ in range(3):
            with pytest.raises(RefusedByUpstream):
                await client.complete(small, body("500-silent"))
        # One tier alone: it is probed each second, or when its time has come.
        with pytest.raises(CircuitOpen, match=r"'small' .* tried again in 1 s") as caught:
            await client.complete(small, body("ok"))
        assert (caught.value.kind, caught.value.headers) == ("open", {"retry-after": "1"})
        clock.s += 0.3
        return (await client.complete(small, body("ok"))).status

    assert with_client(work, health=health, sleep=pauses) == 200
    assert changes == [("small", True), ("small", False)]
    assert len(upstream.calls()) == 3 * 3 + 1
    assert health.latency_ms() is not None


def test_a_probe_is_one_call_and_a_request_behind_it_is_refused(small, upstream, pauses):
    clock = Clock()
    health = Health([small], failures=1, open_s=0.3, clock=clock)

    async def work(client):
        with pytest.raises(RefusedByUpstream):
            await client.complete(small, body("500-silent"))
        clock.s += 0.3
        sent = [client.complete(small, body("500-silent")) for _ in range(5)]
        return [type(one) for one in await asyncio.gather(*sent, return_exceptions=True)]

    assert with_client(work, health=health, sleep=pauses) == [RefusedByUpstream] + [CircuitOpen] * 4
    assert pauses == [0.25, 0.5], "those of the call that opened the circuit"
    assert len(upstream.calls()) == 3 + 1


def test_pauses_end_when_others_have_opened_the_circuit(small, upstream):
    health = Health([small], failures=1, open_s=5.0)

    async def sleep(_):
        health.failed("small", health.begin("small"))

    with pytest.raises(RefusedByUpstream):
        complete(small, body("500-silent"), health=health, sleep=sleep)
    assert len(upstream.calls()) == 1


@pytest.mark.parametrize("behaviour", ["400", "403", "404"])
def test_a_fault_of_the_request_opens_nothing(small, behaviour):
    health = Health([small], failures=1, open_s=5.0)
    with pytest.raises(UpstreamError):
        complete(small, body(behaviour), health=health)
    assert health.unhealthy() == frozenset()


@pytest.mark.parametrize("behaviour", ["401", "429-late", "hang", "broken-json"])
def test_a_fault_of_the_upstream_counts(small, behaviour):
    health = Health([small], failures=1, open_s=5.0)
    with pytest.raises(UpstreamError):
        complete(small, body(behaviour), health=health)
    assert health.unhealthy() == {"small"}


def test_an_answer_without_choices_counts_and_is_handed_on_for_its_bill(small):
    health = Health([small], failures=1, open_s=5.0)
    reply = complete(small, body("no-choices"), health=health)
    assert reply.parsed["usage"]["prompt_tokens"] == 100
    assert health.unhealthy() == {"small"}


def test_an_error_in_place_of_a_stream_counts(small):
    health = Health([small], failures=1, open_s=5.0)
    with pytest.raises(RefusedByUpstream):
        with_client(lambda client: anext(client.stream(small, body("says-error", stream=True))), health=health)
    assert health.unhealthy() == {"small"}


@pytest.mark.parametrize(("cut_after_s", "state"), [(0.1, {"small"}), (60.0, frozenset()), (None, frozenset())])
@pytest.mark.parametrize("streams", [False, True])
def test_a_tier_that_a_deadline_cuts_off_has_failed(small, streams, cut_after_s, state):
    health = Health([small], failures=1, open_s=5.0)
    cut_s = None if cut_after_s is None else time.perf_counter() + cut_after_s

    async def work(client):
        sent = body("hang", stream=streams)
        stream = client.stream(small, sent, cut_s=cut_s)
        call = anext(stream) if streams else client.complete(small, sent, cut_s=cut_s)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await call

    with_client(work, health=health)
    assert health.unhealthy() == state


def test_a_stream_is_answered_with_its_end_mark(small):
    health = Health([small], failures=1, open_s=5.0)

    async def work(client):
        started = time.perf_counter()
        chunks = client.stream(small, body("linger", stream=True))
        async for chunk in chunks:
            if b"[DONE]" in chunk:
                assert health.latency_ms() != (0.0,)
        return time.perf_counter() - started

    assert with_client(work, health=health) < 1.0


def test_a_stream_that_ends_as_usual_leaves_its_connection_for_the_next(small):
    async def work(client):
        for _ in range(3):
            assert [chunk async for chunk in client.stream(small, body("ok", stream=True))]
        return sum(len(pooled) for pooled in client._session.connector._conns.values())

    assert with_client(work) == 1


def test_a_client_that_leaves_says_nothing_about_the_tier(small):
    health = Health([small], failures=1, open_s=5.0)

    async def work(client):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.complete(small, body("slow")), 0.1)
        chunks = client.stream(small, body("stall", stream=True))
        await anext(chunks)
        await chunks.aclose()

    with_client(work, health=health)
    assert health.unhealthy() == frozenset()
    ttft_ms = health.ttft_ms()
    assert ttft_ms is not None
    assert ttft_ms[0] > 0.0


def test_a_client_that_reads_slowly_does_not_make_its_tier_slow(small):
    health = Health([small], failures=1, open_s=5.0)

    async def work(client):
        started = time.perf_counter()
        async for _ in client.stream(small, body("ok", stream=True)):
            await asyncio.sleep(0.5)
        return (time.perf_counter() - started) * 1e3

    took_ms = with_client(work, health=health)
    latency_ms = health.latency_ms()
    assert latency_ms is not None
    assert 0.0 < latency_ms[0] <= took_ms - 500.0
