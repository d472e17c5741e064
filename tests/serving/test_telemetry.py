"""What an operator can see: waits of clients and tiers, retries, circuits, limits, floors, roll-outs, sizes."""

from router_ml.schema import Attempt
from router_ml_serving.telemetry import Telemetry


def test_waits_are_counted_per_tier_and_path():
    telemetry = Telemetry()
    telemetry.calls([Attempt(tier="small", ttft_ms=250.0, latency_ms=900.0), Attempt(tier="small", latency_ms=100.0)])
    for seconds in (0.3, 0.7):
        telemetry.first_byte("/v1/chat/completions", seconds)
    stats = telemetry.stats()
    assert stats["first_token_seconds_count"] == {"small": 1.0}
    assert stats["first_token_seconds_sum"] == {"small": 0.25}
    assert stats["attempt_seconds_count"] == {"small": 2.0}
    assert stats["first_byte_seconds_sum"] == {"/v1/chat/completions": 1.0}


def test_what_happens_beside_the_answers_is_counted():
    telemetry = Telemetry()
    for _ in range(2):
        telemetry.retry("small")
        telemetry.floor("session")
    telemetry.limited("tokens")
    telemetry.rollout("rolled_back")
    stats = telemetry.stats()
    assert stats["upstream_retries"] == {"small": 2.0}
    assert stats["floors"] == {"session": 2.0}
    assert stats["rate_limited"] == {"tokens": 1.0}
    assert stats["rollout"] == {"rolled_back": 1.0}


def test_states_are_those_of_now():
    telemetry, sessions = Telemetry(), ["one"]
    telemetry.watch_size("sessions", lambda: len(sessions))
    telemetry.circuit("small", True)
    sessions.append("two")
    assert telemetry.stats()["circuit_open"] == {"small": 1.0}
    assert telemetry.stats()["remembered"] == {"sessions": 2.0}
    telemetry.circuit("small", False)
    assert 'router_ml_circuit_open{tier="small"} 0.0' in telemetry.exposition().decode()
