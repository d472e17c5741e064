"""`router-ml golden`: ask every tier the golden set again, check the answers, and tell what got worse."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from router_ml.cli.output import emit
from router_ml.config import Config, load_config, parse_section
from router_ml.errors import ConfigError, UsageError
from router_ml.ladder import Ladder, Tier
from router_ml.registry import did_you_mean
from router_ml.shelf import Shelf
from router_ml.store import EventStore, open_store
from router_ml.watch import update_watch
from router_ml_serving import logs
from router_ml_serving.golden.evidence import evidence_of_item
from router_ml_serving.golden.history import GoldenHistory, GoldenRun, TierRun, locked, read_history
from router_ml_serving.golden.items import GoldenSet, read_golden
from router_ml_serving.golden.outcome import Outcome, concluded, watch_with
from router_ml_serving.golden.purse import Purse
from router_ml_serving.golden.running import Asking, ItemResult, run_items
from router_ml_serving.health import Health
from router_ml_serving.settings import GoldenSettings, golden_settings, serving_settings
from router_ml_serving.upstream import HttpUpstream

__all__ = ["add_arguments", "run"]

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--file", type=Path, help="the golden set, JSON lines (default: golden.file)")
    parser.add_argument(
        "--tier", action="append", metavar="NAME", help="ask this tier only (may be given several times)"
    )
    parser.add_argument(
        "--budget", type=float, metavar="USD", help="what the run may cost (default: golden.budget_usd)"
    )
    parser.add_argument("--judge", metavar="TIER", help="the tier that judges (default: golden.judge)")
    parser.add_argument(
        "--min-pass",
        action="append",
        default=[],
        type=_bar,
        metavar="[TIER=]SHARE",
        help="share of the items that every tier, or this one, has to pass (may be given several times)",
    )
    parser.add_argument(
        "--slot", help="name of the run: begun again under the same name, it goes on (default: today's date, UTC)"
    )


def run(args: argparse.Namespace) -> int:
    """Ask, keep the results, and compare; exit code 1 when a tier fell or is below its share, or nothing is known.

    Raises:
        ConfigError: When the golden set or the configuration cannot be used.
        UsageError: When a tier is named that is not there.
        StoreError: When the results cannot be kept.
        RouterError: When another run is at work.
    """
    config, now = load_config(args.config, os.environ), datetime.now(UTC)
    settings, serving = _settings(args, config), serving_settings(config)
    logs.configure(serving.log_level, serving.log_format)
    ladder = _callable_ladder(config)
    tiers = (
        tuple(ladder) if not args.tier else tuple(_tier(ladder, name, "--tier") for name in dict.fromkeys(args.tier))
    )
    golden = read_golden(settings.file)
    judge = _judge(settings, ladder, golden)
    bars = _bars(args.min_pass, [tier.name for tier in tiers])
    with locked(config.models_dir), open_store(config.store.url) as store:
        history = read_history(config.models_dir)
        fresh = GoldenRun(
            slot=args.slot or f"{now:%Y-%m-%d}",
            set=golden.digest,
            judge=judge.model if judge and any(item.judge for item in golden.items) else None,
            started=now,
            tiers={tier.name: TierRun(model=tier.model) for tier in tiers},
        )
        book = _Book(config, golden, store, history, history.begun(fresh))
        book.run = concluded(history, asyncio.run(_ask(book, settings, tiers, judge)))
        if any(tier.passed for tier in book.run.tiers.values()):
            history.with_run(book.run).write(config.models_dir)
        _tell_watch(config, book.run)
    outcome = Outcome(book.run, {item.digest: item.id for item in golden.items}, bars)
    emit(args, outcome.to_dict(), outcome.to_text())
    return 0 if outcome.passed else 1


@dataclass
class _Book:
    # What a run has found so far: kept in the store and in golden.json after every item.
    config: Config
    golden: GoldenSet
    store: EventStore
    history: GoldenHistory
    run: GoldenRun

    def record(self, result: ItemResult) -> None:
        evidence = evidence_of_item(
            result,
            set_digest=self.golden.digest,
            slot=self.run.slot,
            ts=datetime.now(UTC),
            keep_text=self.config.store.text,
        )
        if any(attempt.error is None for attempt in result.attempts):
            self.store.append([evidence])
        self.run = _with_result(self.run, result)
        self.history.with_run(self.run).write(self.config.models_dir)


async def _ask(book: _Book, settings: GoldenSettings, tiers: tuple[Tier, ...], judge: Tier | None) -> GoldenRun:
    serving = serving_settings(book.config)
    asked = {tier.name: tier for tier in (*tiers, *((judge,) if judge else ()))}.values()
    health = Health([*asked], failures=serving.breaker_failures, open_s=serving.breaker_s)
    upstream = HttpUpstream(serving, os.environ, tiers=asked, health=health)
    asking = Asking(tiers, judge, upstream, settings.max_tokens, settings.concurrency, time.perf_counter)
    done = set(next(iter(book.run.tiers.values())).passed)
    todo = [item for item in book.golden.items if item.digest not in done]
    await upstream.start()
    try:
        purse = Purse(settings.budget_usd, book.run.spent_usd)
        left_out = await run_items(todo, asking, purse, book.record, slot=book.run.slot)
    finally:
        await upstream.close()
    if left_out:
        sys.stderr.write(f"{len(left_out)} items left out: {settings.budget_usd:g} USD do not pay for them\n")
    return book.run.model_copy(update={"left_out": len(left_out)})


def _with_result(run: GoldenRun, result: ItemResult) -> GoldenRun:
    tiers = dict(run.tiers)
    for attempt in result.attempts:
        tier = tiers[attempt.tier]
        adequate = attempt.verdicts[0].adequate if attempt.verdicts else None
        took = [attempt.latency_ms] if attempt.error is None and attempt.latency_ms is not None else []
        tiers[attempt.tier] = tier.model_copy(
            update={
                "passed": {**tier.passed, result.item.digest: adequate},
                "cost_usd": tier.cost_usd + (attempt.cost_usd or 0.0),
                "latency_ms": [*tier.latency_ms, *took],
            }
        )
    return run.model_copy(update={"tiers": tiers, "judge_usd": run.judge_usd + result.judge_usd})


def _settings(args: argparse.Namespace, config: Config) -> GoldenSettings:
    given = {"file": args.file, "budget_usd": args.budget, "judge": args.judge}
    values = {
        **golden_settings(config).model_dump(),
        **{key: value for key, value in given.items() if value is not None},
    }
    return parse_section(GoldenSettings, values, where="command line", prefix="golden.")


def _callable_ladder(config: Config) -> Ladder:
    if config.ladder is None or any(tier.base_url is None for tier in config.ladder):
        raise ConfigError(f"{config.source}: tiers: every tier needs a base_url, or it cannot be asked")
    return config.ladder


def _tier(ladder: Ladder, name: str, where: str) -> Tier:
    if name not in ladder.names:
        hint = did_you_mean(name, list(ladder.names))
        raise UsageError(f"{where}: no tier is called '{name}'{hint}; tiers: {', '.join(ladder.names)}")
    return ladder.tier(name)


def _judge(settings: GoldenSettings, ladder: Ladder, golden: GoldenSet) -> Tier | None:
    if settings.judge is not None:
        return _tier(ladder, settings.judge, "golden.judge")
    wanted = next((item.id for item in golden.items if item.judge), None)
    if wanted is not None:
        raise ConfigError(
            f"{settings.file}: item {wanted!r} is to be judged; set golden.judge to a tier, or pass --judge"
        )
    return None


def _bar(text: str) -> tuple[str | None, float]:
    name, found, share = text.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value <= 1.0:
        message = f"expected a share such as 0.9, or small=0.9, got '{text}'"
        raise argparse.ArgumentTypeError(message)
    return (name if found else None), value


def _bars(given: Sequence[tuple[str | None, float]], tiers: Sequence[str]) -> Mapping[str, float]:
    bars: dict[str, float] = {}
    for name, share in sorted(given, key=lambda one: one[0] is not None):
        if name is not None and name not in tiers:
            raise UsageError(f"--min-pass: no tier that is asked is called '{name}'; asked: {', '.join(tiers)}")
        bars |= dict.fromkeys(tiers, share) if name is None else {name: share}
    return bars


def _tell_watch(config: Config, run: GoldenRun) -> None:
    shelf = Shelf(config.models_dir)
    for name, tier in run.tiers.items():
        if tier.fell:
            log.warning("golden_fell", extra={"tier": name, "chance": tier.chance, "slot": run.slot})
    bundle, now = shelf.champion_path().name, datetime.now(UTC)
    update_watch(config.models_dir, lambda last: watch_with(last, run, bundle=bundle, now=now))
