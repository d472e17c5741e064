"""The verifier: what is thought of every tier once one of them has answered.

Each tier but the dearest has a head that judges its answers, v(x, y). What the answer says of a dearer tier is read
from that judgement: log odds of tier t move with what t was given before and with how far the answer moved those of
the tier that gave it. A dearer tier that was only ever seen after a failure has its chance *given* the failure, and
P = v (1 - slip) + (1 - v) P(t ok given s failed), as in `tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from router_ml.features.answer import with_expected_tokens
from router_ml_training.answers import Answers
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.compare import standard_error
from router_ml_training.splits import group_folds
from router_ml_training.verifier_encoder import AnswerDesign, AnswerEncoder, fit_answer_encoder, logits_of
from router_ml_training.verifier_gains import Gains, fit_gain_head, gain_pairs, gains_of, with_gains
from router_ml_training.verifier_heads import AnswerHead, Mix, Opinions, fit_answer_head, fit_mix

__all__ = [
    "Transfer",
    "Verified",
    "VerifierModel",
    "cross_fit_verifier",
    "expecting",
    "judge_answers",
    "opinions_before",
    "scattered",
]

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]

# With fewer judged answers a tier shares the head of all tiers; with fewer in all there is no verifier.
_MIN_ANSWERS = 150
_FOLDS = 4
# Beyond this many answers two folds are enough, and half the work.
_FOUR_FOLDS_UP_TO = 20_000
# What an answer says of a dearer tier where nothing is known: 0.1 to 0.45 of what it says of its own, on public pairs.
_CENTRE = (1.0, 0.2)
_MIN_PAIRS = 100
_PRIOR_SLIP, _PRIOR_SLIP_ROWS = 0.08, 20.0


@dataclass(frozen=True, slots=True)
class Transfer:
    """What an answer of one tier says of a dearer one: a mix of the dearer one's log odds before, and the movement.

    With `given_failure` the mix is the chance given that the answer is bad, and `slip` the rate at which the dearer
    tier fails although the answer is good.
    """

    mix: Mix
    given_failure: bool
    slip: float

    def chance(self, before: F64, moved: F64, v: F64) -> F64:
        """Return P(dearer tier adequate), shape (m,), from log odds before, their movement, and v."""
        p: F64 = expit(self.mix.logit(np.stack((before, moved), axis=1)))
        return v * (1.0 - self.slip) + (1.0 - v) * p if self.given_failure else p


@dataclass(frozen=True, slots=True)
class VerifierModel:
    """A fitted verifier for K tiers: a head and a mix per tier but the dearest, a transfer per pair s < t.

    `gains` are heads of their own for what t adds to an answer of s, for the pairs of which enough is known.
    """

    tiers: tuple[str, ...]
    encoder: AnswerEncoder
    heads: tuple[AnswerHead, ...]
    mixes: tuple[Mix, ...]
    transfers: dict[tuple[int, int], Transfer]
    gains: Gains

    def posterior(self, design: AnswerDesign, adequacy: F64, tier: I64) -> F64:
        """Return what is thought of every tier after an answer, shape (m, K).

        Args:
            design: The answers, encoded by `encoder`.
            adequacy: What was thought before, (m, K).
            tier: Ladder position of the tier that answered, (m,).
        """
        judged = np.zeros(len(design))
        before = opinions_before(adequacy, tier)
        for s, (head, mix) in enumerate(zip(self.heads, self.mixes, strict=True)):
            rows = np.flatnonzero(tier == s)
            judged[rows] = mix.logit(head.opinions(design.rows(rows), before.rows(rows)))
        return self.after(judged, gains_of(self.gains, design, before, tier, len(self.tiers)), adequacy, tier)

    def after(self, judged: F64, gained: F64, adequacy: F64, tier: I64) -> F64:
        """Return the posterior (m, K) that follows from the heads' log odds `judged` (m,) and gains `gained` (m, K)."""
        result = np.array(adequacy, np.float64)
        odds = logits_of(adequacy)
        for s in range(len(self.tiers) - 1):
            rows = np.flatnonzero(tier == s)
            v = expit(judged[rows])
            result[rows, s] = v
            for t in range(s + 1, len(self.tiers)):
                moved = judged[rows] - odds[rows, s]
                transferred = self.transfers[s, t].chance(odds[rows, t], moved, v)
                result[rows, t] = with_gains(transferred, v, gained[rows, t])
        return result


@dataclass(frozen=True, slots=True)
class Verified:
    """A fitted verifier, and what it says of the answers it learned from when they are held out.

    `posterior` (m, K) belongs to `answers`. `gain` is how much better the held-out v predicts the outcome of the tier
    that answered than was thought before (mean log loss, nats), `error` its standard error.
    """

    model: VerifierModel
    answers: Answers
    posterior: F64
    gain: float
    error: float

    @property
    def earned(self) -> bool:
        """Whether looking at answers helps by more than noise; if not, the bundle is better off without."""
        return self.gain > self.error

    def by_row(self, n_rows: int) -> F64:
        """Return the held-out posterior by row, answering tier and tier, (n, K, K); NaN for answers not known."""
        return scattered(self.answers, self.posterior, n_rows)


def scattered(answers: Answers, posterior: F64, n_rows: int) -> F64:
    """Arrange posteriors (m, K) of answers by row and answering tier, (n, K, K), NaN where there is no answer."""
    k = posterior.shape[1]
    result = np.full((n_rows, k, k), np.nan)
    result[answers.row, answers.tier] = posterior
    return result


def opinions_before(adequacy: F64, tier: I64) -> Opinions:
    """Return what the heads see of the chances (m, K) before the call."""
    odds = logits_of(adequacy)
    return Opinions(odds[np.arange(len(tier)), tier], odds.mean(axis=1), np.asarray(adequacy, np.float32))


def expecting(answers: Answers, output_tokens: F64) -> Answers:
    """Return answers with their lengths set against what was expected of the rows' tiers, (n, K) tokens."""
    return replace(answers, dense=with_expected_tokens(answers.dense, output_tokens[answers.row, answers.tier]))


def judge_answers(model: VerifierModel, data: Dataset, adequacy: F64, output_tokens: F64) -> F64:
    """Judge the known answers of rows that the verifier has not learned from.

    Args:
        model: The verifier.
        data: Rows, some of them with answers.
        adequacy: What was thought of each tier before the call, (n, K).
        output_tokens: How long each tier's answer was expected to be, (n, K).

    Returns:
        The posterior by row, answering tier and tier, (n, K, K); NaN for answers not known.
    """
    answers = expecting(data.answers, output_tokens)
    posterior = model.posterior(model.encoder.encode(answers), adequacy[answers.row], answers.tier)
    return scattered(answers, posterior, len(data))


def cross_fit_verifier(
    data: Dataset, adequacy: F64, output_tokens: F64 | None = None, *, seed: int, num_threads: int = 1
) -> Verified | None:
    """Fit a verifier on all answers, and judge each by heads that had not seen its row.

    Args:
        data: Rows with answers.
        adequacy: What was thought before the call, (n, K); of models that had not seen the row.
        output_tokens: How long each tier's answer was expected to be, (n, K); None leaves that unknown.
        seed: For folds and trees.
        num_threads: Threads the trees may use.

    Returns:
        The verifier; None when too few answers with a known outcome are there to learn from.
    """
    answers = data.answers if output_tokens is None else expecting(data.answers, output_tokens)
    known = ~np.isnan(data.quality[answers.row, answers.tier]) & (answers.tier < len(data.tiers) - 1)
    answers = answers.take(known)
    if len(answers) < _MIN_ANSWERS or len(np.unique(data.group[answers.row])) < _FOLDS:
        return None
    work = _Work(data, answers, adequacy[answers.row], seed, num_threads)
    model, judged, gained = work.fit()
    posterior = model.after(judged, gained, work.adequacy, answers.tier)
    gain, error = work.gain(judged)
    return Verified(model, answers, posterior, gain, error)


class _Work:
    """One learning problem: encoded answers with the outcome of the tier that gave them."""

    def __init__(self, data: Dataset, answers: Answers, adequacy: F64, seed: int, num_threads: int) -> None:
        self.data, self.answers, self.adequacy = data, answers, adequacy
        self.seed, self.num_threads = seed, num_threads
        self.encoder = fit_answer_encoder(answers)
        self.design = self.encoder.encode(answers)
        self.before = opinions_before(adequacy, answers.tier)
        self.quality = data.quality[answers.row, answers.tier]
        self.group = data.group[answers.row]
        n_folds = _FOLDS if len(answers) <= _FOUR_FOLDS_UP_TO else 2
        self.fold = group_folds(self.group, n_folds, np.random.default_rng(seed))

    def fit(self) -> tuple[VerifierModel, F64, F64]:
        """Return the verifier, the held-out log odds of every answer, (m,), and held-out gains, (m, K)."""
        k = len(self.data.tiers)
        enough = [int((self.answers.tier == s).sum()) >= _MIN_ANSWERS for s in range(k - 1)]
        everyone = np.arange(len(self.answers))
        shared = None if all(enough) else self._cross_fitted(everyone)
        heads: list[AnswerHead] = []
        mixes: list[Mix] = []
        judged = np.zeros(len(everyone))
        for s in range(k - 1):
            rows = np.flatnonzero(self.answers.tier == s)
            if enough[s]:
                head, mix, held_out = self._cross_fitted(rows)
                judged[rows] = held_out
            elif shared is not None:
                head, mix, held_out = shared
                judged[rows] = held_out[rows]
            heads.append(head)
            mixes.append(mix)
        transfers = {(s, t): self._transfer(s, t, judged) for s in range(k - 1) for t in range(s + 1, k)}
        gains, gained = self._gains()
        model = VerifierModel(self.data.tiers, self.encoder, tuple(heads), tuple(mixes), transfers, gains)
        return model, judged, gained

    def gain(self, judged: F64) -> tuple[float, float]:
        """Return how much log loss the answers save against the chances before, recalibrated, and its error."""
        own = self.before.own[:, None]
        prior = np.zeros(len(own))
        for s in np.unique(self.answers.tier):
            rows = np.flatnonzero(self.answers.tier == s)
            prior[rows] = fit_mix(own[rows], self.quality[rows], (1.0,)).logit(own[rows])
        saved = _log_loss(prior, self.quality) - _log_loss(judged, self.quality)
        return float(saved.mean()), float(standard_error(saved, self.group))

    def _cross_fitted(self, rows: I64) -> tuple[AnswerHead, Mix, F64]:
        opinions = np.zeros((len(rows), 2))
        for number in np.unique(self.fold[rows]):
            unseen = self.fold[rows] == number
            part = self._head(rows[~unseen]) if not unseen.all() else self._head(rows)
            opinions[unseen] = part.opinions(self.design.rows(rows[unseen]), self.before.rows(rows[unseen]))
        mix = fit_mix(opinions, self.quality[rows], (0.5, 0.5))
        return self._head(rows), mix, mix.logit(opinions)

    def _head(self, rows: I64) -> AnswerHead:
        before = self.before.rows(rows)
        return fit_answer_head(
            self.design.rows(rows), before, self.quality[rows], seed=self.seed, num_threads=self.num_threads
        )

    def _gains(self) -> tuple[Gains, F64]:
        """Return the heads for what dearer tiers add, and what they say of every answer when it is held out, (m, K)."""
        quality = np.where(self.data.escalated, np.nan, self.data.quality)
        tier, row = self.answers.tier, self.answers.row
        gained = np.full((len(row), quality.shape[1]), np.nan)
        gains = {}
        for (s, t), rows in gain_pairs(tier, row, quality, self.data.cost_usd, seed=self.seed).items():
            gain = quality[row[rows], t] - self.quality[rows]
            mine = np.flatnonzero(tier == s)
            for number in np.unique(self.fold[mine]):
                held, rest = mine[self.fold[mine] == number], self.fold[rows] != number
                head = self._gain(rows[rest], gain[rest]) if rest.any() else self._gain(rows, gain)
                gained[held, t] = gains_of({(s, t): head}, *self._at(held), tier[held], quality.shape[1])[:, t]
            gains[s, t] = self._gain(rows, gain)
        return gains, gained

    def _gain(self, rows: I64, gain: F64) -> AnswerHead:
        return fit_gain_head(*self._at(rows), gain, seed=self.seed, num_threads=self.num_threads)

    def _at(self, rows: I64) -> tuple[AnswerDesign, Opinions]:
        return self.design.rows(rows), self.before.rows(rows)

    def _transfer(self, s: int, t: int, judged: F64) -> Transfer:
        mine = np.flatnonzero(self.answers.tier == s)
        quality = self.data.quality[self.answers.row[mine], t]
        known = ~np.isnan(quality)
        free = known & ~self.data.escalated[self.answers.row[mine], t]
        slip = self._slip(mine, quality, free)
        given_failure = int(free.sum()) < _MIN_PAIRS <= int((known & ~free).sum())
        use = mine[(known & (self.quality[mine] < 0.5)) if given_failure else free]
        odds = logits_of(self.adequacy[use])
        opinions = np.stack((odds[:, t], judged[use] - odds[:, s]), axis=1)
        # Given a failure little is left of what the answer says beyond it.
        centre = (_CENTRE[0], 0.0) if given_failure else _CENTRE
        target = self.data.quality[self.answers.row[use], t]
        return Transfer(fit_mix(opinions, target, centre), given_failure, slip)

    def _slip(self, mine: I64, quality: F64, free: NDArray[np.bool_]) -> float:
        fine = free & (self.quality[mine] >= 0.5)
        failures = float((1.0 - quality[fine]).sum())
        return (failures + _PRIOR_SLIP * _PRIOR_SLIP_ROWS) / (float(fine.sum()) + _PRIOR_SLIP_ROWS)


def _log_loss(odds: F64, quality: F64) -> F64:
    loss: F64 = np.logaddexp(0.0, odds) - quality * odds
    return loss
