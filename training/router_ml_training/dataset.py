"""Interactions -> arrays: features, what is known per tier, when, and which rows belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from router_ml.errors import DataError
from router_ml.features import N_BUCKETS, FeatureBatch, Features, stack
from router_ml.schema import Interaction
from router_ml_training.answers import Answers, below, joined_answers, no_answers
from router_ml_training.blocks import PER_ROW, BlockBuilder, RowBlock, Stratum
from router_ml_training.labels import Evidence, thin_retries, thin_rule_refusals
from router_ml_training.reliability import measure_reliability, soften

__all__ = ["Dataset", "build_dataset", "facts_of", "joined"]

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
    builder = BlockBuilder(tiers)
    for item in interactions:
        builder.add(item)
    block = builder.built()
    facts = facts_of([block], tiers)
    unread = np.flatnonzero(~below(block.key, block.material.ceiling))
    return replace(facts, text=block.text, answers=replace(block.material.answers, unread=unread))


def facts_of(blocks: Sequence[RowBlock], tiers: Sequence[str], *, silent: bool = False) -> Dataset:
    """Return the rows of blocks as one dataset, without words and answers.

    Args:
        blocks: In the order of the log.
        tiers: Tier names, cheapest first.
        silent: Whether rows that say nothing about some tier will do, for whoever does not learn from them.

    Raises:
        DataError: When there is no row, or none says anything about any tier.
    """
    if not sum(map(len, blocks)):
        raise DataError("the log holds no interaction: it is empty, or everything in it was left out")
    known = Evidence(*(_column([getattr(block.evidence, name) for block in blocks]) for name in _EVIDENCE))
    row = {name: _column([getattr(block, name) for block in blocks]) for name in PER_ROW}
    quality, soft = _outcomes(known, _strata(blocks), _draws(row["key"], len(tiers)))
    dataset = Dataset(
        tiers=tuple(tiers),
        dense=row["dense"],
        text=_no_words(len(quality)),
        input_tokens=row["input_tokens"],
        quality=quality,
        escalated=known.escalated,
        cost_usd=known.cost_usd,
        output_tokens=known.output_tokens,
        group=row["group"],
        ts=row["ts"],
        action=row["action"],
        propensity=row["propensity"],
        digest=_digest(row["key"], known),
        simulated=bool(row["simulated"].any()),
        dated=not row["assigned"].any(),
        soft=soft,
        settled=known.settled,
        key=row["key"],
        beside=row["beside"],
        share=row["share"],
    )
    if not silent:
        _refuse_unlearnable(dataset, broken=0 < int(row["calls"].sum()) == int(row["broken"].sum()))
    return dataset


def _no_words(n: int) -> csr_array:
    nothing = np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(n + 1, np.int32)
    return csr_array(nothing, shape=(n, N_BUCKETS))


def _column(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _strata(blocks: Sequence[RowBlock]) -> NDArray[np.int64]:
    # Every block has counted the policies it met; together they are counted again.
    numbers: dict[Stratum, int] = {}
    found = [
        np.array([numbers.setdefault(name, len(numbers)) for name in block.strata], np.int64)[block.stratum]
        for block in blocks
    ]
    return np.concatenate(found)


def _digest(keys: NDArray[np.int64], known: Evidence) -> str:
    digest = hashlib.sha256(keys.tobytes())
    for name in _EVIDENCE:
        digest.update(getattr(known, name).tobytes())
    return digest.hexdigest()[:16]


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


def _draws(keys: NDArray[np.int64], n_tiers: int) -> F64:
    # One number in [0, 1) per row and tier, from the row's own key: a longer log draws the same ones.
    draws: F64 = (keys[:, None] / 2.0**64 + 0.5 + np.arange(n_tiers) * 0.6180339887498949) % 1.0
    return draws
