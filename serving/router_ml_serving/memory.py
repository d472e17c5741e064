"""Template memory: classes of requests whose first answer keeps being refused start at the tier they needed.

It corrects the router between two trainings. A class is what a prompt template makes alike, under one policy version:
a new bundle starts with an empty memory, and has learnt from the log what this one knew. In one worker's memory only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, sqrt
from typing import Any

from router_ml.features import text_of
from router_ml.schema import Attempt, Decision, Request
from router_ml_serving.recent import Recent

__all__ = ["TemplateMemory", "accepted"]

# The head of the system prompt names the template, as in the feature block `metadata`.
_TEMPLATE_CHARS = 160
_TEXT_CHARS = 2048
_TOOLS = 64
_DIGITS = b"0123456789"
# After three times the time constant 5 % of an observation is left.
_FORGOTTEN = 3.0
# More likely refused than not: see `_Tally.refuted`.
_EVEN = 0.5


@dataclass(slots=True)
class _Tally:
    """How one tier did when it answered a class first: sums of observations, each fading with its age.

    `expected` sums what the router itself expected to be refused, `needed` is the tier that was accepted instead,
    `cost_ratio` this tier's expected cost over that one's.
    """

    at_s: float
    n: float = 0.0
    refused: float = 0.0
    expected: float = 0.0
    needed: str | None = None
    cost_ratio: float = 0.0

    def add(self, at_s: float, ttl_s: float, *, refused: bool, expected: float | None) -> None:
        """Add one observation; `expected` None: as usual in this class."""
        fades = exp((self.at_s - at_s) / ttl_s)
        usual = self.expected / self.n if self.n else _EVEN
        self.n, self.refused, self.expected = (
            self.n * fades + 1.0,
            self.refused * fades + refused,
            self.expected * fades,
        )
        self.expected += usual if expected is None else expected
        self.at_s = at_s

    def refuted(self, at_s: float, ttl_s: float) -> bool:
        """Return whether trying this tier first does not pay for this class.

        With p the chance that its answer is refused, trying first costs c + p C instead of C, and pays in money while
        p < 1 - c / C. Nearly every cheap tier passes that: at a twentieth of the price even where 19 of 20 answers are
        refused. But a refused answer also makes the client wait twice, which pays in time while p < 1 - t / T, about
        1/2 for a model twice as fast; and where most answers of a class are refused, the adequacy that put it there is
        wrong, and so is the promise of quality for what the judge lets pass. So the bar is 1/2, lower where the tiers
        cost nearly the same.

        p is the mean of the observations and one more at what the router expected, e, so that one escalation is enough
        for a class that nobody has seen before, and one success outweighs it again. Where the router expected as many
        refusals there is nothing to correct: it has weighed them. So the refusals must also be more than e of the
        observations by a standard error of so many, sqrt(n e (1 - e)). One refusal is, where the router expected less
        than every second one; and as observations fade the error does so more slowly, so that every floor ends although
        p tends to e, whatever the bar.
        """
        if not self.n or at_s - self.at_s > _FORGOTTEN * ttl_s:
            return False
        fades = exp((self.at_s - at_s) / ttl_s)
        usual, n = self.expected / self.n, self.n * fades
        error = sqrt(max(n * usual * (1.0 - usual), 0.0))
        p = (self.refused * fades + usual) / (n + 1.0)
        return (self.refused - self.expected) * fades > error and p > min(_EVEN, 1.0 - self.cost_ratio)


@dataclass(slots=True)
class _Class:
    tallies: dict[str, _Tally] = field(default_factory=dict)


class TemplateMemory:
    """Remembers which classes of requests needed a dearer tier than the router thought.

    Args:
        limit: Classes at most; the one that was not seen for longest makes room.
        ttl_s: Time constant in which observations fade.
        clock: Monotonic seconds.
    """

    def __init__(self, limit: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._classes: Recent[_Class] = Recent(limit, _FORGOTTEN * ttl_s, clock)
        self._ttl_s = ttl_s
        self._clock = clock

    def __len__(self) -> int:
        return len(self._classes)

    def floor(self, request: Request, ladder: Sequence[str], version: str) -> str | None:
        """Return the tier below which this request should not start, or None.

        Args:
            request: What is asked.
            ladder: Names of the tiers, cheapest first.
            version: The policy version that decides.
        """
        found = self._classes.get(_class_of(request, version)[0]) if self._classes else None
        if found is None:
            return None
        now = self._clock()
        refuted = (tally.needed for tally in found.tallies.values() if tally.refuted(now, self._ttl_s))
        return max((tier for tier in refuted if tier in ladder), key=ladder.index, default=None)

    def learn(self, request: Request, decision: Decision, attempts: Sequence[Attempt]) -> None:
        """Learn from a live exchange: who answered first, and whether the next one's answer was taken instead.

        An error is no evidence. Nor is a request that both tiers failed: a dearer start would not have helped it.

        Args:
            request: What was asked.
            decision: What was decided; where the client named its tier there is nothing to correct.
            attempts: What was tried, in order.
        """
        if not decision.adequacy or not attempts or attempts[0].error is not None:
            return
        first, needed = attempts[0].tier, None
        if not accepted(attempts[0]):
            if len(attempts) < 2 or not accepted(attempts[1]):
                return
            needed = attempts[1].tier
        key, named = _class_of(request, decision.policy_version)
        found = self._classes.get(key)
        if found is None:
            # Of single texts only the refused are worth a place: nearly all of them never come again.
            if needed is None and not named:
                return
            found = _Class()
        now = self._clock()
        tally = found.tallies.setdefault(first, _Tally(now))
        tally.add(now, self._ttl_s, refused=needed is not None, expected=1.0 - decision.adequacy[first])
        if needed is not None:
            costs = decision.expected_cost_usd
            tally.needed, tally.cost_ratio = needed, _ratio(costs[first], costs[needed])
        self._classes.put(key, found)

    def note(self, request: Request, version: str, tier: str, *, adequate: bool) -> None:
        """Learn from a tier that was run in the background, so that a class can come back to it.

        Only what is held against a tier needs such evidence; of others nothing is remembered here.

        Args:
            request: What was asked.
            version: The policy version that decided it.
            tier: Who was run.
            adequate: Whether its answer would have been taken.
        """
        key = _class_of(request, version)[0]
        found = self._classes.get(key)
        tally = found.tallies.get(tier) if found is not None else None
        if found is None or tally is None:
            return
        tally.add(self._clock(), self._ttl_s, refused=not adequate, expected=None)
        self._classes.put(key, found)


def accepted(attempt: Attempt) -> bool:
    """Return whether an attempt gave an answer that no judge has refused."""
    return attempt.error is None and not any(verdict.adequate is False for verdict in attempt.verdicts)


def _ratio(cost: float, of: float) -> float:
    return cost / of if of > 0.0 else 1.0


def _class_of(request: Request, version: str) -> tuple[int, bool]:
    """Return the class of a request, and whether a template, feature or use case names it (else its text does)."""
    template = _template(request.messages)
    named = bool(template or request.feature or request.use_case)
    text = b"" if named else _text(request.messages)
    tools = tuple(map(_tool_name, request.tools[:_TOOLS])) if request.tools else ()
    return hash((version, request.tenant, request.feature, request.use_case, template, tools, text)), named


def _template(messages: Sequence[Mapping[str, Any]]) -> str:
    # Every client puts it first; looking through a long conversation for another place would cost more than it finds.
    head = messages[0] if messages else {}
    return text_of(head.get("content"))[:_TEMPLATE_CHARS] if head.get("role") in ("system", "developer") else ""


def _text(messages: Sequence[Mapping[str, Any]]) -> bytes:
    asked = (message.get("content") for message in reversed(messages) if message.get("role") == "user")
    text = text_of(next(asked, None))[:_TEXT_CHARS]
    return text.encode("utf-8", "surrogatepass").translate(None, _DIGITS)


def _tool_name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    return str(function.get("name")) if isinstance(function, Mapping) else ""
