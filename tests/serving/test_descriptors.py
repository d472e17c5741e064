"""As many connections as fit, and one line in the log when they do not."""

import logging
import resource
import subprocess
import sys

from router_ml_serving.descriptors import Room, raise_limit


def test_some_descriptors_are_kept_for_everything_else():
    assert Room(1024).places == 960
    assert Room(100).places == 50


def test_a_crowd_is_turned_away_and_logged_once(caplog):
    room = Room(164)
    with caplog.at_level(logging.WARNING):
        assert room.has_place(100)
        assert [room.has_place(101) for _ in range(5)] == [False] * 5
        assert room.has_place(95)
        assert not room.has_place(101)
        assert len(caplog.records) == 1
        assert room.has_place(50)
        assert not room.has_place(101)
    assert [record.message for record in caplog.records] == ["too_many_connections"] * 2


def test_the_limit_is_raised_as_far_as_it_goes():
    program = (
        "import resource\n"
        "from router_ml_serving.descriptors import raise_limit\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))\n"
        "print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    told, soft = map(int, done.stdout.split())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert soft == hard
    assert told == (2**31 if hard == resource.RLIM_INFINITY else hard)


def test_raising_it_twice_changes_nothing():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert raise_limit() == raise_limit()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
