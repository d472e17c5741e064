"""What a conversation's last call leaves behind: a warm prompt cache, a floor for follow-ups, and who was asked again.

All of it is a hint to the next decision, held in the memory of one worker process, as hashes: no prompt is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from router_ml.records import record
from router_ml.schema import Decision, Feedback, Request
from router_ml_serving.recent import Recent
from router_ml_serving.turns import Turn, fingerprint, likeness, turn_of, words_of

__all__ = ["NOTHING_KNOWN", "SessionHint", "Sessions", "dearest_floor", "retry_feedback"]

AskedAgain = Literal["retry", "rephrase"]
# Words in common, among all words of both questions, from which on one counts as the other in other words.
_ALIKE = 0.6
# Whoever asks the same a third time is a script or a poll: from then on it says nothing about the answers.
_MOST_IN_A_ROW = 2


@record
class SessionHint:
    """What is known of a session before it is decided who answers.

    The prompt cache of tier `warm` holds `warm_tokens` of this prompt; nothing cheaper than `floor` should answer this
    follow-up; decision `retry_of` was `asked_again` about, which nobody is told twice. None where nothing is known.
    """

    warm: str | None = None
    warm_tokens: int = 0
    floor: str | None = None
    retry_of: str | None = None
    asked_again: AskedAgain | None = None


NOTHING_KNOWN = SessionHint()


@dataclass(slots=True)
class _Session:
    # Of the last answered request: when, by whom, how long its prompt was, and what it looked like.
    answered_s: float
    tier: str
    input_tokens: int
    turn: Turn
    words: bytes
    # The tier that the last turn that was more than "go on" needed, or a follow-up of it.
    floor: str
    # Whose answer may be asked about again (None: nobody's any more), and how often in a row that has happened.
    decision_id: str | None
    repeats: int


class Sessions:
    """Remembers the last call of every session, by tenant and session id; without a session id there is none.

    `look` before a decision, `note` after its answer; both take microseconds and never wait.

    Args:
        limit: Sessions at most; the one that was silent for longest makes room.
        ttl_s: A session that was silent for longer is over.
        clock: Monotonic seconds.
        cache_idle_s: How long providers keep the prompt of an idle conversation.
        repeat_s: Asking again within this time says that the answer was not good enough; 0: it says nothing.
    """

    def __init__(
        self,
        limit: int,
        ttl_s: float,
        clock: Callable[[], float],
        *,
        cache_idle_s: float = 300.0,
        repeat_s: float = 180.0,
    ) -> None:
        self._sessions: Recent[_Session] = Recent(limit, ttl_s, clock)
        self._clock = clock
        self._cache_idle_s = cache_idle_s
        self._repeat_s = repeat_s

    def __len__(self) -> int:
        return len(self._sessions)

    def look(self, request: Request) -> SessionHint:
        """Return what the session of a request says about it.

        A conversation that begins with all messages of the last call finds that call's prompt in the cache. A last
        question that is the same (`retry`), or has most of its words (`rephrase`), after the same messages and within
        `repeat_s`, is one that was asked again: the answer was not built upon. The loops of agents are not, nor is the
        third time in a row, nor "yes" in other words.
        """
        session = None if request.session_id is None else self._sessions.get(_key(request))
        if session is None:
            return NOTHING_KNOWN
        turn = turn_of(request.messages)
        idle_s = self._clock() - session.answered_s
        before = session.turn
        warm = idle_s < self._cache_idle_s and fingerprint(request.messages, before.n) == before.whole
        retry_of, asked_again = None, None
        if session.decision_id is not None and idle_s < self._repeat_s and session.repeats < _MOST_IN_A_ROW:
            asked_again = _asked_again(session, turn, request)
        if asked_again is not None:
            retry_of, session.decision_id = session.decision_id, None
        return SessionHint(
            warm=session.tier if warm else None,
            warm_tokens=session.input_tokens if warm else 0,
            floor=session.floor if turn.follow_up else None,
            retry_of=retry_of,
            asked_again=asked_again,
        )

    def note(
        self,
        request: Request,
        decision: Decision,
        tier: str,
        input_tokens: int,
        *,
        answered: bool = True,
        escalated: bool = False,
    ) -> None:
        """Remember who answered a request.

        Args:
            request: What was asked.
            decision: What was decided.
            tier: The tier whose answer the client got.
            input_tokens: Length of its prompt.
            answered: False where only the decision was asked for: asking again then says nothing about an answer.
            escalated: True where a cheaper tier's answer was refused first, so that this conversation needs this tier.
                Who answered because of an error, or was drawn to explore, is not known to be needed.
        """
        if request.session_id is None:
            return
        key, turn = _key(request), turn_of(request.messages)
        before = self._sessions.get(key)
        again = before is not None and _asked_again(before, turn, request) is not None
        # A follow-up is as difficult as what it follows, and more so if even that tier was not enough for it.
        needed = tier if escalated else decision.planned or decision.tier
        follows = before is not None and turn.follow_up and not escalated
        session = _Session(
            answered_s=self._clock(),
            tier=tier,
            input_tokens=input_tokens,
            turn=turn,
            words=words_of(request.messages) if turn.asks else b"",
            floor=before.floor if before is not None and follows else needed,
            decision_id=decision.decision_id if answered and turn.asks else None,
            repeats=before.repeats + 1 if before is not None and again else 0,
        )
        self._sessions.put(key, session)


def dearest_floor(ladder: Sequence[str], *floors: tuple[str | None, str]) -> tuple[str | None, str]:
    """Return the dearest of several floors with its reason; (None, "") when there is none on this ladder.

    Args:
        ladder: Names of the tiers, cheapest first.
        floors: Tier and reason; a tier that is None, or not on the ladder, is no floor.
    """
    known = [(ladder.index(tier), why) for tier, why in floors if tier is not None and tier in ladder]
    if not known:
        return None, ""
    place, why = max(known, key=lambda found: found[0])
    return ladder[place], why


def retry_feedback(hint: SessionHint, ts: datetime) -> Feedback:
    """Return the weak negative about decision `hint.retry_of`; its key makes it count once, whoever sends it."""
    return Feedback(ts=ts, source="retry", adequate=False, reason=hint.asked_again, key="retry")


def _key(request: Request) -> int:
    return hash((request.tenant, request.session_id))


def _asked_again(session: _Session, turn: Turn, request: Request) -> AskedAgain | None:
    before = session.turn
    if not turn.asks or turn.n != before.n or turn.earlier != before.earlier:
        return None
    if turn.whole == before.whole:
        return "retry"
    return "rephrase" if session.words and likeness(session.words, words_of(request.messages)) >= _ALIKE else None
