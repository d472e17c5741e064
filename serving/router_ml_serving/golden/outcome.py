"""What a run of a golden set means: who fell, who is below the bar, what people and machines are told."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from router_ml.cli.output import table
from router_ml.watch import Watch, WatchedAlarm
from router_ml_serving.golden.history import ALPHA, GoldenHistory, GoldenRun, fall_of

__all__ = ["Outcome", "concluded", "watch_with"]

_KIND = "golden"
# An impossible result is no more convincing than this, and JSON knows no infinity.
_MOST = 1e9


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run; `names` gives each item's digest its id, `bars` the share of items that a tier has to pass."""

    run: GoldenRun
    names: Mapping[str, str]
    bars: Mapping[str, float]

    @property
    def fell(self) -> list[str]:
        """Tiers that passed fewer items than in their earlier runs, beyond chance."""
        return [name for name, tier in self.run.tiers.items() if tier.fell]

    @property
    def below(self) -> list[str]:
        """Tiers that do not pass their share of the items, or of which nothing is known."""
        rates = {name: self.run.tiers[name].pass_rate for name in self.bars}
        return [name for name, rate in rates.items() if rate is None or rate < self.bars[name]]

    @property
    def passed(self) -> bool:
        """Whether something is known, and nothing is wrong with any tier."""
        return any(tier.known for tier in self.run.tiers.values()) and not self.fell and not self.below

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as `--json` prints it: items by their ids, no text."""
        return {
            "slot": self.run.slot,
            "set": self.run.set,
            "passed": self.passed,
            "spent_usd": self.run.spent_usd,
            "judge_usd": self.run.judge_usd,
            "items": len(self.names),
            "left_out": self.run.left_out,
            "tiers": {name: self._tier(name) for name in self.run.tiers},
        }

    def to_text(self) -> str:
        """Return the outcome for people."""
        tiers = {name: self._tier(name) for name in self.run.tiers}
        rows = [
            [
                name,
                tier["passed"],
                tier["known"],
                _share(tier["pass_rate"]),
                _usd(tier["cost_usd"]),
                _ms(tier),
                _verdict(tier),
            ]
            for name, tier in tiers.items()
        ]
        failed = [f"{name} failed: {', '.join(tier['failed'])}" for name, tier in tiers.items() if tier["failed"]]
        unknown = [f"{name} unknown: {', '.join(tier['unknown'])}" for name, tier in tiers.items() if tier["unknown"]]
        spent = f"{_usd(self.run.spent_usd)} USD spent, {_usd(self.run.judge_usd)} of it on the judge"
        left = [f"{self.run.left_out} of {len(self.names)} items left out: the budget is too small for them"]
        head = ["tier", "passed", "known", "rate", "cost_usd", "p50_ms", ""]
        lines = [
            f"golden set {self.run.set}, slot {self.run.slot}",
            "",
            table(head, rows),
            "",
            *failed,
            *unknown,
            spent,
        ]
        return "\n".join([*lines, *(left if self.run.left_out else [])])

    def _tier(self, name: str) -> dict[str, Any]:
        tier, bar = self.run.tiers[name], self.bars.get(name)
        by_result = {result: sorted(self._ids(name, result)) for result in (False, None)}
        return {
            "model": tier.model,
            "known": tier.known,
            "passed": sum(one is True for one in tier.passed.values()),
            "pass_rate": tier.pass_rate,
            "min_pass": bar,
            "below_min_pass": name in self.below,
            "chance": tier.chance,
            "fell": tier.fell,
            "cost_usd": tier.cost_usd,
            "latency_ms_p50": statistics.median(tier.latency_ms) if tier.latency_ms else None,
            "failed": by_result[False],
            "unknown": by_result[None],
        }

    def _ids(self, name: str, result: bool | None) -> list[str]:
        return [self.names.get(item, item) for item, one in self.run.tiers[name].passed.items() if one is result]


def concluded(history: GoldenHistory, run: GoldenRun) -> GoldenRun:
    """Return a run with what its tiers' earlier runs say about it."""
    chances = {name: fall_of(history, run, name) for name in run.tiers}
    tiers = {
        name: tier.model_copy(update={"chance": chance, "fell": chance is not None and chance <= ALPHA})
        for name, tier in run.tiers.items()
        for chance in (chances[name],)
    }
    return run.model_copy(update={"tiers": tiers})


def watch_with(watch: Watch | None, run: GoldenRun, *, bundle: str, now: datetime) -> Watch:
    """Return what is watched with this run's alarms in place of those of the same tiers.

    Args:
        watch: What was found so far; None: nobody has looked at the traffic yet.
        run: A concluded run.
        bundle: The bundle in service.
        now: When.
    """
    watch = watch or Watch(checked=now, bundle=bundle, since=now, until=now, n=0)
    # Of whom nothing is known now, the last word stands.
    chances = {name: tier.chance for name, tier in run.tiers.items() if tier.chance is not None}
    others = [one for one in watch.alarms if one.kind != _KIND or one.tier not in chances]
    ours = [_alarm(run, name, chance) for name, chance in chances.items()]
    return watch.model_copy(update={"alarms": (*others, *ours)})


def _alarm(run: GoldenRun, name: str, chance: float) -> WatchedAlarm:
    tier = run.tiers[name]
    rate = 0.0 if tier.pass_rate is None else tier.pass_rate
    return WatchedAlarm(
        kind=_KIND,
        tier=name,
        direction="fall",
        evidence=min(1.0 / chance, _MOST) if chance > 0.0 else _MOST,
        limit=1.0 / ALPHA,
        rings=tier.fell,
        text=f"golden set: {name} passed {rate:.1%} of {tier.known} items in slot {run.slot}; so few have a chance of "
        f"{chance:.2g} if nothing has changed",
    )


def _verdict(tier: Mapping[str, Any]) -> str:
    if tier["fell"]:
        return f"FELL: so few passes have a chance of {tier['chance']:.2g} if nothing has changed"
    if tier["below_min_pass"]:
        return f"BELOW {tier['min_pass']:.1%}"
    if not tier["known"]:
        return "nothing is known"
    return "" if tier["chance"] is not None else "no earlier run"


def _share(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:.1%}"


def _usd(usd: float) -> str:
    return f"{usd:.6f}"


def _ms(tier: Mapping[str, Any]) -> str | None:
    return None if tier["latency_ms_p50"] is None else f"{tier['latency_ms_p50']:.0f}"
