"""How the tiers are doing: a circuit breaker for each, and how fast they answer. One event loop, no locks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from router_ml.ladder import Tier
from router_ml_serving.speeds import Speeds

__all__ = ["REFUSED", "Health"]

log = logging.getLogger(__name__)

# The ticket of a call that must not go out.
REFUSED = -1
_LONGEST_OPEN_S = 120.0
# An upstream that asks for hours is asked again before: quotas are raised, and clocks are wrong.
_LONGEST_ASKED_S = 600.0
# With every circuit open there is nobody else to ask: each tier is probed this often, one call at a time.
_LAST_RESORT_S = 1.0
_SHARE, _LEAST_CALLS = 0.5, 20
_SLOTS, _SLOT_S = 6, 5.0
# Nobody who waits longer than this, and than so many usual answers, hangs up out of impatience alone.
_PATIENT_S, _PATIENT_ANSWERS = 5.0, 4.0


@dataclass(slots=True)
class _Circuit:
    # One tier. Tickets number the periods between two changes, so that what a call of an earlier period says is
    # recognised as old; while open, tickets above `opened` belong to probes.
    name: str
    ticket: int = 0
    opened: int = 0
    until_s: float | None = None  # None: closed
    pause_s: float = 0.0
    probe_s: float | None = None  # when the running probe went out
    asked_s: float = -math.inf  # when the last probe went out
    in_a_row: int = 0
    slots: list[int] = field(default_factory=lambda: [-1] * _SLOTS)
    good: list[int] = field(default_factory=lambda: [0] * _SLOTS)
    bad: list[int] = field(default_factory=lambda: [0] * _SLOTS)

    def count(self, now_s: float, *, good: bool) -> None:
        slot = int(now_s // _SLOT_S)
        i = slot % _SLOTS
        if self.slots[i] != slot:
            self.slots[i], self.good[i], self.bad[i] = slot, 0, 0
        if good:
            self.good[i] += 1
        else:
            self.bad[i] += 1

    def is_mostly_failing(self, now_s: float) -> bool:
        newest = int(now_s // _SLOT_S)
        recent = [i for i, slot in enumerate(self.slots) if 0 <= newest - slot < _SLOTS]
        bad = sum(self.bad[i] for i in recent)
        calls = bad + sum(self.good[i] for i in recent)
        return calls >= _LEAST_CALLS and bad >= _SHARE * calls


class Health:
    """Opens a tier's circuit when its calls keep failing, and closes it when a probe succeeds.

    Closed, every call may go out. Open, none may for `open_s`, twice as long each time a probe has failed, at most two
    minutes. Then one call may, the probe; it decides. When all tiers are open nobody else could answer: each is probed
    once a second then, so that the first sign of life is seen.

    Args:
        tiers: The ladder, in its order; `Tier.latency_ms` is what their speed is taken for while it is not
            measured. Those
            without a `base_url` are never called, and so have no say in whether all are open.
        failures: Failures in a row that open a circuit; 0 never opens one. Half of 20 calls or more within 30 s do too.
        open_s: How long a circuit is open at first.
        clock: Seconds, never going back.
        on_change: Told the tier, and whether its circuit is open now.
    """

    def __init__(
        self,
        tiers: Iterable[Tier],
        *,
        failures: int,
        open_s: float,
        clock: Callable[[], float] = time.perf_counter,
        on_change: Callable[[str, bool], None] = lambda _tier, _is_open: None,
    ) -> None:
        self._failures = failures
        self._open_s = open_s
        self._clock = clock
        self._on_change = on_change
        self._circuits: dict[str, _Circuit] = {}
        self._unhealthy: frozenset[str] = frozenset()
        self._until_s = math.inf  # until when that holds
        self._latency, self._ttft = Speeds(clock), Speeds(clock)
        self.follow(tiers)

    def follow(self, tiers: Iterable[Tier]) -> None:
        """Take over another ladder, as when a bundle is swapped; what is known of tiers that stay is kept."""
        ladder = list(tiers)
        for tier in ladder:
            self._circuits.setdefault(tier.name, _Circuit(tier.name))
        self._reachable = [self._circuits[tier.name] for tier in ladder if tier.base_url is not None]
        self._latency.follow({tier.name: tier.latency_ms for tier in ladder})
        self._ttft.follow({tier.name: 0.0 for tier in ladder})

    def unhealthy(self) -> frozenset[str]:
        """Return the tiers that must not be called now; one that is due for its probe is not among them."""
        if self._until_s < math.inf and self._clock() >= self._until_s:
            self._look()
        return self._unhealthy

    def latency_ms(self) -> tuple[float, ...] | None:
        """Return how long whole answers have been taking per tier, in the ladder's order; None before the first."""
        return self._latency.all()

    def expected_s(self, tier: str) -> float:
        """Return how long a whole answer of a tier usually takes, in seconds; 0 when nothing is known."""
        return self._latency.of(tier) / 1e3

    def ttft_ms(self) -> tuple[float, ...] | None:
        """Return the same for the first bytes of streams; 0 for tiers that have sent none yet."""
        return self._ttft.all()

    def begin(self, tier: str) -> int:
        """Ask to call a tier now; who gets a ticket must report how the call ended.

        Returns:
            The call's ticket, or `REFUSED`.
        """
        circuit = self._circuit(tier)
        if circuit.until_s is None:
            return circuit.ticket
        now_s = self._clock()
        if circuit.probe_s is not None and now_s - circuit.probe_s < self._open_s:
            return REFUSED
        if now_s < self._due_s(circuit, circuit.until_s):
            return REFUSED
        circuit.ticket += 1
        circuit.probe_s = circuit.asked_s = now_s
        self._look()
        return circuit.ticket

    def is_current(self, tier: str, ticket: int) -> bool:
        """Say whether the circuit has been closed ever since the ticket was given: only then is a retry welcome."""
        circuit = self._circuit(tier)
        return circuit.until_s is None and circuit.ticket == ticket

    def again_s(self, tier: str) -> float:
        """Return the time until a refused tier is probed next, in seconds."""
        circuit = self._circuit(tier)
        if circuit.until_s is None:
            return 0.0
        due_s = self._due_s(circuit, circuit.until_s)
        if circuit.probe_s is not None:
            due_s = max(due_s, circuit.probe_s + self._open_s)
        return max(due_s - self._clock(), 0.0)

    def first_byte(self, tier: str, ticket: int, ttft_ms: float) -> None:
        """Report the first bytes of a stream: from a probe, they are enough to close the circuit."""
        circuit = self._circuit(tier)
        self._ttft.note(tier, ttft_ms)
        if circuit.until_s is not None:
            self._probed_well(circuit, ticket)

    def succeeded(self, tier: str, ticket: int, latency_ms: float | None = None) -> None:
        """Report a call that was answered.

        Args:
            tier: Who answered.
            ticket: The call's.
            latency_ms: How long the whole answer took; None for a refusal of the request, which says nothing of that.
        """
        circuit = self._circuit(tier)
        if latency_ms is not None:
            self._latency.note(tier, latency_ms)
        if circuit.until_s is not None:
            self._probed_well(circuit, ticket)
        elif ticket == circuit.ticket:
            circuit.in_a_row = 0
            circuit.count(self._clock(), good=True)

    def failed(self, tier: str, ticket: int, *, asked_s: float | None = None) -> None:
        """Report a call that failed through no fault of its request.

        Args:
            tier: Who failed.
            ticket: The call's.
            asked_s: How long the upstream wants to be left alone. More than `open_s` opens the circuit at once, for
                just that long (at most ten minutes).
        """
        if not self._failures:
            return
        circuit, now_s = self._circuit(tier), self._clock()
        pause_s = min(asked_s, _LONGEST_ASKED_S) if asked_s is not None and asked_s > self._open_s else None
        if circuit.until_s is None:
            if ticket != circuit.ticket:
                return
            circuit.in_a_row += 1
            circuit.count(now_s, good=False)
            if pause_s is None and circuit.in_a_row < self._failures and not circuit.is_mostly_failing(now_s):
                return
            self._open(circuit, now_s, pause_s)
        elif ticket > circuit.opened:
            self._probed_ill(circuit, now_s, pause_s)

    def abandoned(self, tier: str, ticket: int, *, unanswered_s: float | None = None, too_late: bool = False) -> None:
        """Report a call that its caller gave up.

        Early, that says nothing; if it was the probe, the next call is. A tier that kept its caller waiting for the
        first byte, for more than 5 s and four usual answers, or until the request's own deadline, has failed.

        Args:
            tier: Who was called.
            ticket: The call's.
            unanswered_s: How long nothing had come; None when the answer had begun.
            too_late: The deadline of the request ended the call, and no client that hung up.
        """
        if unanswered_s is not None:
            patience_s = max(_PATIENT_S, _PATIENT_ANSWERS * self.expected_s(tier))
            if too_late or unanswered_s > patience_s:
                self.failed(tier, ticket)
                return
        circuit = self._circuit(tier)
        if circuit.probe_s is not None and ticket == circuit.ticket:
            circuit.probe_s, circuit.asked_s = None, -math.inf
            self._look()

    def _circuit(self, tier: str) -> _Circuit:
        found = self._circuits.get(tier)
        if found is None:
            found = self._circuits[tier] = _Circuit(tier)
        return found

    def _due_s(self, circuit: _Circuit, until_s: float) -> float:
        if self._reachable and all(other.until_s is not None for other in self._reachable):
            return min(until_s, circuit.asked_s + _LAST_RESORT_S)
        return until_s

    def _open(self, circuit: _Circuit, now_s: float, pause_s: float | None) -> None:
        circuit.pause_s = self._open_s
        circuit.until_s = now_s + (pause_s or self._open_s)
        circuit.ticket += 1
        circuit.opened = circuit.ticket
        circuit.probe_s, circuit.asked_s = None, now_s
        log.warning(
            "circuit_opened",
            extra={"tier": circuit.name, "for_s": pause_s or self._open_s, "failures": circuit.in_a_row},
        )
        self._look()
        self._on_change(circuit.name, True)

    def _probed_ill(self, circuit: _Circuit, now_s: float, pause_s: float | None) -> None:
        circuit.probe_s = None
        if pause_s is not None:
            circuit.until_s = now_s + pause_s
        elif circuit.until_s is not None and now_s >= circuit.until_s:
            circuit.pause_s = min(circuit.pause_s * 2.0, _LONGEST_OPEN_S)
            circuit.until_s = now_s + circuit.pause_s
        self._look()

    def _probed_well(self, circuit: _Circuit, ticket: int) -> None:
        if ticket <= circuit.opened:
            return  # it went out before the circuit opened
        circuit.until_s = circuit.probe_s = None
        circuit.ticket += 1
        circuit.in_a_row = 0
        circuit.slots = [-1] * _SLOTS
        log.info("circuit_closed", extra={"tier": circuit.name})
        self._look()
        self._on_change(circuit.name, False)

    def _look(self) -> None:
        now_s = self._clock()
        found = {}
        for circuit in self._circuits.values():
            if circuit.until_s is None:
                continue
            ends_s = circuit.until_s
            if circuit.probe_s is not None:
                ends_s = max(ends_s, circuit.probe_s + self._open_s)
            if now_s < ends_s:
                found[circuit.name] = ends_s
        self._unhealthy = frozenset(found)
        self._until_s = min(found.values(), default=math.inf)
