"""Bounded memory: never more than its limit, nothing older than its time, and what is used stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router_ml_serving.recent import Recent


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_value_lasts_for_its_time_after_it_was_last_put() -> None:
    clock = Clock()
    recent: Recent[str] = Recent(10, 60.0, clock)
    recent.put(1, "a")
    clock.now_s = 59.0
    assert recent.get(1) == "a"
    recent.put(1, "b")
    clock.now_s = 118.0
    assert recent.get(1) == "b"
    clock.now_s = 120.0
    assert recent.get(1) is None
    assert len(recent) == 0


def test_what_was_used_last_stays_when_there_is_no_room() -> None:
    recent: Recent[str] = Recent(2, 60.0, Clock())
    recent.put(1, "a")
    recent.put(2, "b")
    assert recent.get(1) == "a"
    recent.put(3, "c")
    assert [recent.get(key) for key in (1, 2, 3)] == ["a", None, "c"]


@given(st.lists(st.tuples(st.integers(), st.booleans()), max_size=60), st.integers(1, 5))
def test_no_sequence_of_keys_makes_it_grow_beyond_its_limit(uses: list[tuple[int, bool]], limit: int) -> None:
    recent: Recent[int] = Recent(limit, 60.0, Clock())
    for key, puts in uses:
        if puts:
            recent.put(key, key)
            assert recent.get(key) == key
        else:
            assert recent.get(key) in (key, None)
        assert len(recent) <= limit
