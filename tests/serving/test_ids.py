"""Names of decisions: ULIDs that anybody's reader understands, each one once, in the order of time."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from router_ml_serving.ids import DecisionIds


class Entropy:
    """Counts in place of chance, and notes how often it was asked."""

    def __init__(self, first=0):
        self.number, self.asked = first, 0

    def __call__(self, n):
        self.asked += 1
        drawn = b"".join((self.number + i).to_bytes(10, "big") for i in range(n // 10))
        self.number += n // 10
        return drawn


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 256))
def test_a_name_is_a_ulid_of_its_time_and_chance(time_ms, chance):
    # The middle of a millisecond: seconds are a float.
    name = DecisionIds(lambda: (time_ms + 0.5) / 1e3, Entropy(chance)).next()
    found = ULID.from_str(name)
    assert (len(name), found.milliseconds) == (26, time_ms)
    assert int.from_bytes(found.bytes[6:], "big") == chance


def test_every_name_is_a_new_one_although_the_system_is_seldom_asked():
    entropy = Entropy()
    ids = DecisionIds(lambda: 1.0, entropy)
    assert len({ids.next() for _ in range(1000)}) == 1000
    assert entropy.asked == 4


def test_names_sort_by_time():
    times = iter([1.0, 1.001, 2.0, 1e6])
    ids = DecisionIds(lambda: next(times), Entropy(2**79))
    names = [ids.next() for _ in range(4)]
    assert names == sorted(names)


def test_time_and_chance_are_the_systems_unless_others_are_given():
    first, second = DecisionIds().next(), DecisionIds().next()
    assert first != second
    assert abs((datetime.now(UTC) - ULID.from_str(first).datetime).total_seconds()) < 60
