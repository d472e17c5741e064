"""Interactions -> arrays: features, what is known per tier, when, and which rows belong together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from router_ml.errors import DataError
from router_ml.features import N_BUCKETS, FeatureBatch, Features, featurize, from_stored, stack, text_of
from router_ml.schema import Interaction
from router_ml_training.answers import AnswerCollector, Answers, joined_answers, no_answers
from router_ml_training.columns import Bags, Columns
from router_ml_training.labels import Evidence, evidence_of, thin_retries, thin_rule_refusals
from router_ml_training.reliability import measure_reliability, soften

__all__ = ["Dataset", "build_dataset", "joined"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

_PER_ROW = (
    "dense",
    "text",
    "input_tokens",
    "quality",
    "escalated",
    "cost_usd",
    "output_tokens",
    "group",
    "ts",
    "action",
    "propensity",
    "soft",
    "settled",
    "key",
    "beside",
    "share",
)
_EVIDENCE = tuple(field.name for field in fields(Evidence))
_NOT_WORD = re.compile(r"\W+")
# What the pattern and lower-casing do to a character, for every byte; only ASCII is read through it.
_ASCII_WORDS = bytes(ord(char.lower()) if char.isalnum() or char == "_" else ord(" ") for char in map(chr, range(128)))
_ASCII_WORDS += bytes(128)


@dataclass(frozen=True, slots=True)
class Dataset:
    """n interactions over K tiers, in the order they came.

    `dense` (n, D) float32 and `text` (n, N_BUCKETS) sparse float32 are the features; `quality`, `cost_usd` and
    `output_tokens` are (n, K) float64 with NaN for unknown; `escalated` (n, K) marks outcomes that are known because
    a cheaper tier failed. `group` (n,) int64 is equal for rows that must not be split (same session, same prompt), and
    is the same number in every log; `ts` (n,) float64 are seconds since 1970 (`dated` is false when some of them were
    made up); `digest` identifies ids and evidence. `action` (n,) int64 is the tier that was tried first, -1 where the
    policy did not draw it (audits, decisions without an attempt, a tier of another ladder); `propensity` (n, K) is the
    probability of each tier to be tried first, fixed before the draw, NaN where the log does not say. A chain counts by
    its first tier: what came after it is no part of that draw. `soft` (n, K) float64 is the likelihood of "adequate"
    where opinions that may be wrong are all there is (see `reliability.soften`), NaN elsewhere; `settled` (n, K) marks
    outcomes that people or checks gave. `key` (n,) int64 is each id as a number. An audit in the background is a row of
    its own: `beside` (n,) int64 is then the key of the live row about the same request (0: none), `share` (n,) the
    probability of that audit, NaN elsewhere. `answers` are those that a verifier can learn from, where the log has
    them.
    """

    tiers: tuple[str, ...]
    dense: F32
    text: csr_array
    input_tokens: F64
    quality: F64
    escalated: NDArray[np.bool_]
    cost_usd: F64
    output_tokens: F64
    group: NDArray[np.int64]
    ts: F64
    action: NDArray[np.int64]
    propensity: F64
    digest: str
    simulated: bool
    dated: bool
    soft: F64
    settled: NDArray[np.bool_]
    key: NDArray[np.int64]
    beside: NDArray[np.int64]
    share: F64
    answers: Answers = field(default_factory=no_answers)

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Rows on which every tier's outcome is known, and not because a cheaper tier had failed, shape (n,).

        Escalated rows are complete too, but only because they are hard: they would make every tier look bad.
        """
        return np.asarray(~np.isnan(self.quality).any(axis=1) & ~self.escalated.any(axis=1), np.bool_)

    @property
    def free_quality(self) -> F64:
        """`quality` (n, K) without the outcomes that are known only because a cheaper tier had failed.

        What remains is a fair sample given the request, which is what models may be compared on.
        """
        return np.where(self.escalated, np.nan, self.quality)

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Dataset:
        """Return the rows of that index or mask, in its order."""
        taken = {name: getattr(self, name)[index] for name in _PER_ROW}
        return replace(self, answers=self.answers.of_rows(index, len(self)), **taken)

    def features(self, index: Sequence[int] | NDArray[np.int64]) -> FeatureBatch:
        """Return the features of some rows as the service would score them."""
        return stack([self._one(int(i)) for i in index])

    def _one(self, i: int) -> Features:
        start, end = self.text.indptr[i], self.text.indptr[i + 1]
        ids = self.text.indices[start:end].astype(np.int64)
        return Features(self.dense[i], ids, self.text.data[start:end], float(self.input_tokens[i]))


def joined(first: Dataset, second: Dataset) -> Dataset:
    """Return the rows of two parts of one dataset, the first part's before the second's."""
    both: dict[str, Any] = {}
    for name in _PER_ROW:
        parts = (getattr(first, name), getattr(second, name))
        both[name] = vstack(parts, format="csr") if name == "text" else np.concatenate(parts)
    return replace(first, answers=joined_answers(first.answers, second.answers.shifted(len(first))), **both)


def build_dataset(interactions: Iterable[Interaction], tiers: Sequence[str]) -> Dataset:
    """Turn a log into arrays, one pass, one interaction at a time.

    Args:
        interactions: The log, in any order; rows without text must carry their features.
        tiers: Tier names, cheapest first.

    Raises:
        DataError: When no interaction is left, or none says anything about any tier.
    """
    bags, columns, answers = Bags(), Columns(), AnswerCollector(tiers)
    policies: dict[tuple[str | None, str], int] = {}
    digest = hashlib.sha256()
    simulated, dated, n_calls, n_broken = False, True, 0, 0
    for item in interactions:
        features = from_stored(item.features) if item.features else featurize(item.to_request())
        bags.add(features.ids, features.counts)
        evidence = evidence_of(item, tiers)
        # What runs in the background is judged by others, and at another rate, than what clients see.
        stratum = policies.setdefault((item.policy_version, item.mode), len(policies))
        numbers = _stable_number(_group_key(item)), _stable_number(item.id), item.ts.timestamp(), stratum
        drawn = *_first_draw(item, tiers), *_ran_beside(item)
        answers.add(numbers[1], item, ~np.isnan(evidence.quality))
        said = [getattr(evidence, name) for name in _EVIDENCE]
        columns.add(features.dense, features.input_tokens, *numbers, *drawn, *said)
        simulated = simulated or bool(item.tags.get("simulated"))
        dated = dated and not item.tags.get("ts_assigned")
        n_calls += len(item.attempts)
        n_broken += sum(attempt.error is not None for attempt in item.attempts)
        digest.update(item.id.encode())
        digest.update(evidence.quality.tobytes())
    text, gathered = bags.matrix(N_BUCKETS), list(columns.arrays())
    if not gathered:
        raise DataError("the log holds no interaction: it is empty, or everything in it was left out")
    dense, input_tokens, group, keys, ts, strata, action, propensity, beside, share, *all_said = gathered
    known = Evidence(*all_said)
    quality, soft = _outcomes(known, strata, _draws(keys, len(tiers)))
    dataset = Dataset(
        tuple(tiers),
        dense,
        text,
        input_tokens,
        quality,
        known.escalated,
        known.cost_usd,
        known.output_tokens,
        group,
        ts,
        action,
        propensity,
        digest.hexdigest()[:16],
        simulated,
        dated,
        soft,
        known.settled,
        keys,
        beside,
        share,
        answers.collected(),
    )
    _refuse_unlearnable(dataset, broken=0 < n_calls == n_broken)
    return dataset


def _outcomes(known: Evidence, stratum: NDArray[np.int64], draw: F64) -> tuple[F64, F64]:
    """Return outcomes and soft evidence, (n, K) each, from the evidence of n interactions."""
    quality = thin_rule_refusals(known.quality, known.answered, known.rule_only, stratum, draw)
    # Who asked for the decision only and tells us afterwards has an answer too, though no attempt.
    truth = np.where(known.settled, known.quality, np.nan)
    reliability = measure_reliability(known.opinions, truth, known.answered | known.settled)
    opinions = thin_retries(known.opinions, ~np.isnan(quality), known.answered, stratum, draw)
    return quality, soften(quality, known.settled, opinions, reliability)


def _refuse_unlearnable(dataset: Dataset, *, broken: bool) -> None:
    known = (~np.isnan(dataset.quality)).sum(axis=0)
    if not known.any():
        why = ""
        if broken:
            why = " (every call ended in an error, which says nothing about the answers of a tier that works)"
        elif not np.isnan(dataset.soft).all():
            why = " (a verifier's verdicts are the router's own opinion, and teach it nothing new)"
        raise DataError(
            f"none of the {len(dataset)} interactions says whether an answer was good enough{why}: record feedback, "
            "verdicts or escalations first"
        )
    silent = [name for name, count in zip(dataset.tiers, known, strict=True) if count == 0]
    if silent:
        raise DataError(
            f"no outcome is known for the tier{'s' if len(silent) > 1 else ''} {', '.join(silent)} in "
            f"{len(dataset)} interactions; there is nothing to choose between: explore or audit that tier, "
            "or take it out of the ladder"
        )


def _first_draw(item: Interaction, tiers: Sequence[str]) -> tuple[int, list[float]]:
    """Return the tier that the log's policy drew (-1: none) and the probability it gave each tier (NaN: unknown)."""
    # A client that asked for one tier by name left the policy nothing to draw.
    drawn = item.mode == "live" and item.attempts and len(item.candidates) != 1
    first = item.attempts[0].tier if drawn else None
    known = first in tiers and bool(item.propensity)
    return (
        tiers.index(first) if first in tiers else -1,
        [item.propensity.get(name, 0.0) if known else float("nan") for name in tiers],
    )


def _ran_beside(item: Interaction) -> tuple[int, float]:
    """Return the key of the decision that an audit ran beside (0: none), and the probability of the audit."""
    live, share = item.tags.get("beside"), item.tags.get("share")
    if item.mode != "audit" or not isinstance(live, str):
        return 0, float("nan")
    chance = float(share) if isinstance(share, (int, float)) and 0.0 < share <= 1.0 else float("nan")
    return _stable_number(live), chance


def _group_key(item: Interaction) -> str:
    if item.session_id is not None:
        return f"session {item.session_id}"
    for message in reversed(item.request.messages):
        if message.get("role") == "user":
            words = _words(text_of(message.get("content")))
            if not words:  # a picture alone: equal words would say nothing
                break
            return "prompt " + hashlib.sha256(words).hexdigest()[:16]
    return f"id {item.id}"


def _words(text: str) -> bytes:
    """Return the words in lower case, single spaces between them."""
    if text.isascii():  # the same, at a tenth of the cost
        return b" ".join(text.encode("ascii").translate(_ASCII_WORDS).split())
    return _NOT_WORD.sub(" ", text.lower()).strip().encode("utf-8", "surrogatepass")


def _draws(keys: NDArray[np.int64], n_tiers: int) -> F64:
    # One number in [0, 1) per row and tier, from the row's own key: a longer log draws the same ones.
    draws: F64 = (keys[:, None] / 2.0**64 + 0.5 + np.arange(n_tiers) * 0.6180339887498949) % 1.0
    return draws


def _stable_number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)
