"""What a log is worth: a data-quality report, counted in one pass without keeping the log."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from router_ml.schema import Attempt, Interaction
from router_ml_training.labels import evidence_of

__all__ = ["DataQuality", "QualityCounter", "TierQuality"]


@dataclass(frozen=True, slots=True)
class TierQuality:
    """One tier: its attempts, how many broke down (error), of how many interactions its outcome is known, or bad."""

    n_attempts: int
    n_errors: int
    n_known: int
    n_failed: int
    unknown_share: float

    @property
    def failure_rate(self) -> float | None:
        """Share of the known outcomes that are inadequate; None when none is known."""
        return self.n_failed / self.n_known if self.n_known else None

    @property
    def error_share(self) -> float | None:
        """Share of the attempts that broke down; None without attempts."""
        return self.n_errors / self.n_attempts if self.n_attempts else None


@dataclass(frozen=True, slots=True)
class DataQuality:
    """Counts over a log, and what is suspicious about them, in sentences.

    Costs and tokens are missed on attempts without an error, text on requests. The propensity counts are over the
    `n_live` live interactions that have an attempt, and about its first tier.
    """

    n_interactions: int
    n_attempts: int
    n_errors: int
    n_duplicates: int
    n_conflicting: int
    first_ts: datetime | None
    last_ts: datetime | None
    n_out_of_order: int
    n_future: int
    n_missing_cost: int
    n_missing_tokens: int
    n_missing_text: int
    n_without_attempt: int
    n_live: int
    n_propensity_missing: int
    n_propensity_zero: int
    modes: dict[str, int]
    label_sources: dict[str, int]
    tiers: dict[str, TierQuality]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON can hold them."""
        record = asdict(self)
        for name in ("first_ts", "last_ts"):
            record[name] = record[name].isoformat() if record[name] else None
        for name, tier in self.tiers.items():
            record["tiers"][name] |= {"failure_rate": tier.failure_rate, "error_share": tier.error_share}
        return {**record, "warnings": list(self.warnings)}

    def to_text(self) -> str:
        """Return the report for a person, a few lines of plain text."""
        modes = ", ".join(f"{name} {count}" for name, count in self.modes.items()) or "none"
        sources = ", ".join(f"{name} {count}" for name, count in self.label_sources.items()) or "none"
        lines = [
            f"interactions  {self.n_interactions} ({modes}), {self.n_attempts} attempts, {self.n_errors} with an error",
            f"times         {self.first_ts} to {self.last_ts}, {self.n_out_of_order} out of order",
            f"repeated      {self.n_duplicates} duplicates, {self.n_conflicting} with other content",
            f"missing       {self.n_missing_cost} costs, {self.n_missing_tokens} token counts, "
            f"{self.n_missing_text} request texts, {self.n_propensity_missing + self.n_propensity_zero} propensities",
            f"labels        {sources}",
        ]
        for name, tier in self.tiers.items():
            failed = "no outcome known" if tier.failure_rate is None else f"{tier.failure_rate:.1%} of them inadequate"
            lines.append(
                f"tier {name}: {tier.n_attempts} attempts, outcome unknown for {tier.unknown_share:.1%} of the "
                f"interactions, {tier.n_known} known, {failed}"
            )
        return "\n".join([*lines, *(f"warning: {sentence}" for sentence in self.warnings)])


@dataclass(slots=True)
class _TierCounts:
    attempts: int = 0
    errors: int = 0
    known: int = 0
    failed: int = 0


@dataclass(slots=True)
class QualityCounter:
    """Adds up what a data-quality report needs, one interaction at a time.

    Args:
        now: What is later than this lies in the future.
        adequate_bar: A quality from here on counts as adequate.
    """

    now: datetime
    adequate_bar: float = 1.0
    _counts: Counter[str] = field(default_factory=Counter)
    _modes: Counter[str] = field(default_factory=Counter)
    _sources: Counter[str] = field(default_factory=Counter)
    _tiers: dict[str, _TierCounts] = field(default_factory=dict)
    _first: datetime | None = None
    _last: datetime | None = None

    def add(self, item: Interaction) -> None:
        """Count one interaction."""
        self._counts["interactions"] += 1
        self._counts["without_attempt"] += not item.attempts
        self._counts["missing_text"] += not item.request.messages
        self._modes[item.mode] += 1
        self._add_time(item.ts)
        self._add_propensity(item)
        for feedback in item.feedback:
            self._sources[feedback.source] += feedback.adequate is not None or feedback.score is not None
        for attempt in item.attempts:
            self._add_attempt(attempt)
        self._add_outcomes(item)

    def _add_time(self, ts: datetime) -> None:
        self._counts["future"] += ts > self.now
        if self._last is not None and ts < self._last:
            self._counts["out_of_order"] += 1
        self._first = ts if self._first is None else min(self._first, ts)
        self._last = ts if self._last is None else max(self._last, ts)

    def _add_propensity(self, item: Interaction) -> None:
        if item.mode != "live" or not item.attempts:
            return
        self._counts["live"] += 1
        p = item.propensity.get(item.attempts[0].tier)
        self._counts["propensity_missing"] += p is None
        self._counts["propensity_zero"] += p == 0.0

    def _add_attempt(self, attempt: Attempt) -> None:
        tier = self._tier(attempt.tier)
        tier.attempts += 1
        self._counts["attempts"] += 1
        for verdict in attempt.verdicts:
            self._sources[verdict.source] += verdict.adequate is not None or verdict.score is not None
        if attempt.error is not None:
            tier.errors += 1
            self._counts["errors"] += 1
            return
        self._counts["missing_cost"] += attempt.cost_usd is None
        self._counts["missing_tokens"] += attempt.input_tokens is None or attempt.output_tokens is None

    def _add_outcomes(self, item: Interaction) -> None:
        names = list({attempt.tier: None for attempt in item.attempts})
        for name, quality in zip(names, evidence_of(item, names).quality.tolist(), strict=True):
            if not math.isnan(quality):
                self._tiers[name].known += 1
                self._tiers[name].failed += quality < self.adequate_bar
        for name in item.candidates:
            self._tier(name)

    def _tier(self, name: str) -> _TierCounts:
        if name not in self._tiers:
            self._tiers[name] = _TierCounts()
        return self._tiers[name]

    def result(self, *, duplicates: int = 0, conflicting: int = 0) -> DataQuality:
        """Return the report on what was counted so far, with the numbers of rows left out as already seen."""
        n = self._counts["interactions"]
        quality = DataQuality(
            n_interactions=n,
            n_attempts=self._counts["attempts"],
            n_errors=self._counts["errors"],
            n_duplicates=duplicates,
            n_conflicting=conflicting,
            first_ts=self._first,
            last_ts=self._last,
            n_out_of_order=self._counts["out_of_order"],
            n_future=self._counts["future"],
            n_missing_cost=self._counts["missing_cost"],
            n_missing_tokens=self._counts["missing_tokens"],
            n_missing_text=self._counts["missing_text"],
            n_without_attempt=self._counts["without_attempt"],
            n_live=self._counts["live"],
            n_propensity_missing=self._counts["propensity_missing"],
            n_propensity_zero=self._counts["propensity_zero"],
            modes=dict(sorted(self._modes.items())),
            label_sources={name: count for name, count in sorted(self._sources.items()) if count},
            tiers={
                name: TierQuality(tier.attempts, tier.errors, tier.known, tier.failed, 1 - tier.known / n)
                for name, tier in self._tiers.items()
            },
        )
        return replace(quality, warnings=tuple(_warnings(quality)))


# Below this, intervals are so wide that hardly any router can be told from a constant model.
_FEW_INTERACTIONS = 500
_MANY_ERRORS = 0.2
# Sources that say what is true; all others judge, each with its own bias.
_TRUTH = frozenset({"check", "human"})


def _warnings(quality: DataQuality) -> Iterator[str]:
    if quality.n_interactions < _FEW_INTERACTIONS:
        yield f"only {quality.n_interactions} interactions: expect wide intervals, and the constant model to win"
    yield from _tier_warnings(quality)
    sources = list(quality.label_sources)
    if not sources:
        yield "no attempt was judged and no feedback came: there is nothing to learn adequacy from"
    elif len(sources) == 1 and sources[0] not in _TRUTH:
        yield f"all labels come from one source, '{sources[0]}': its mistakes will be learned as truth"
    yield from _row_warnings(quality)


def _tier_warnings(quality: DataQuality) -> Iterator[str]:
    tried = [name for name, tier in quality.tiers.items() if tier.n_attempts]
    if len(tried) == 1:
        yield f"only the tier '{tried[0]}' was ever tried: nothing can be learned about choosing another one"
    for name, tier in quality.tiers.items():
        if tier.error_share is not None and tier.error_share > _MANY_ERRORS:
            yield f"{tier.error_share:.0%} of the attempts of tier '{name}' ended in an error, which is no evidence"
        if not tier.n_known:
            yield f"the outcome of tier '{name}' is never known: its adequacy can only be guessed"
        elif not tier.n_failed:
            yield f"none of the {tier.n_known} known outcomes of tier '{name}' is a failure: is failure recorded?"
        elif tier.n_failed == tier.n_known:
            yield f"all {tier.n_known} known outcomes of tier '{name}' are failures: is success recorded?"


def _row_warnings(quality: DataQuality) -> Iterator[str]:
    facts = {
        "interactions are older than one before them; splits go by time, not by position": quality.n_out_of_order,
        "interactions lie in the future: is the clock or the time zone wrong?": quality.n_future,
        "interactions have no attempt": quality.n_without_attempt,
        "attempts have no cost, and are left out of what is said about money": quality.n_missing_cost,
        "attempts lack a token count": quality.n_missing_tokens,
        "live interactions do not say with which probability their tier was chosen": quality.n_propensity_missing,
        "live interactions were sent to a tier of propensity 0, which cannot be": quality.n_propensity_zero,
        "rows have the id of an earlier row but other content; the first was kept": quality.n_conflicting,
    }
    for sentence, count in facts.items():
        if count:
            yield f"{count} {sentence}"
