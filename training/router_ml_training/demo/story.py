"""The demo as a sequence of steps; every step uses the commands and the service a user would use."""

from __future__ import annotations

import contextlib
import io
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from router_ml import cli
from router_ml.bundle import Bundle, load_bundle
from router_ml.config import Config, load_config
from router_ml.durable import replace_file
from router_ml.errors import RouterError
from router_ml.router import Router
from router_ml.shelf import Shelf
from router_ml.store import open_store
from router_ml_training.assessment import Assessment, assess, headline
from router_ml_training.certification import certify_policy
from router_ml_training.dataset import build_dataset
from router_ml_training.demo.material import Parts, config_text, cut, ladder_of, write_history
from router_ml_training.demo.processes import service, standin
from router_ml_training.demo.replay import replay
from router_ml_training.demo.traffic import Traffic, judge_background, send
from router_ml_training.evaluation.report import ModelFacts, ReportData, render_report, summary_table
from router_ml_training.evaluation.strategies import measure, random_mix, vacuity
from router_ml_training.importance import bundle_chances, importance_of
from router_ml_training.reporting import data_facts, gate_lines, report_data
from router_ml_training.scored import score_with_bundle
from router_ml_training.simulate.outcomes import OutcomeTable
from router_ml_training.slice_figures import slice_figures
from router_ml_training.sources import Reject, SourceOptions
from router_ml_training.sources import outcomes as outcomes_source

__all__ = ["DemoOptions", "DemoResult", "run_demo"]

_RELOAD_S = 30.0
# Background calls end and are stored soon after the answers that they ran beside.
_SETTLE_S = 1.0
# Below this a first model on half of the log would be noise: the first training then takes all of it.
_HALVE_FROM = 2000
_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to show: `policy` names the logging policy of the past ("outcomes": everything is known)."""

    directory: Path
    policy: str
    quality: float
    n_live: int
    audit_share: float
    learners: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came of it: the record for scripts, the report, and where its page is."""

    record: dict[str, Any]
    report: ReportData
    page: Path

    def to_text(self) -> str:
        """Return the closing table."""
        return f"{summary_table(self.report)}\n\nreport: {self.page}"


Say = Callable[[str], None]


def run_demo(table: OutcomeTable, description: str, options: DemoOptions, say: Say) -> DemoResult:
    """Play the whole cycle on a table of known outcomes.

    Args:
        table: What every tier would have answered.
        description: What the table is, for the report.
        options: See `DemoOptions`.
        say: Shows one line to the person who watches.
    """
    home = options.directory
    rng = np.random.default_rng(options.seed)
    parts = cut(table, options.n_live, by_time=table.dated, rng=rng)
    upstream = home / "upstream.parquet"
    parts.live.frame.write_parquet(upstream)
    with contextlib.ExitStack() as stack:
        say(f"starting {len(table.tiers)} stand-in upstreams that answer from the known outcomes")
        urls = {
            tier: stack.enter_context(standin(upstream, model))
            for tier, model in zip(table.tiers, table.models, strict=True)
        }
        ladder = ladder_of(table, urls)
        config = home / "router.toml"
        text = config_text(
            ladder, directory=home, quality=options.quality, seed=options.seed, learners=options.learners
        )
        replace_file(config, text.encode())
        first, logs = _learn_from_the_past(parts, config, options, say)
        served = _serve_and_retrain(parts, config, logs, options, say)
    return _closing(parts, config, first, served, description, options, say)


def _learn_from_the_past(
    parts: Parts, config: Path, options: DemoOptions, say: Say
) -> tuple[dict[str, Any], list[Path]]:
    """Write the past as logs, import them, train a first champion on the older half."""
    n = len(parts.history)
    halves = [range(n // 2), range(n // 2, n)] if n >= _HALVE_FROM else [range(n)]
    logs: list[Path] = []
    for number, rows in enumerate(halves, start=1):
        raw = options.directory / f"log-{number}.jsonl"
        written = write_history(
            parts.history.take(list(rows)),
            options.policy,
            raw,
            audit_share=options.audit_share,
            seed=options.seed + number,
        )
        logs.append(options.directory / f"log-{number}.parquet")
        arguments = ["ingest", str(written), "--out", str(logs[-1]), "--config", str(config)]
        if options.policy == "outcomes":
            named = ",".join(f"{t}={m}" for t, m in zip(parts.history.tiers, parts.history.models, strict=True))
            arguments += ["--source", "outcomes", "--tiers", named]
        imported = _command(arguments, say)
        say(f"  {imported['n_written']:,} interactions imported, {imported['n_rejected']} rejected")
    first = _command(["train", str(logs[0]), "--promote", "--config", str(config)], say)
    say(f"  {first['version']}: {first['verdict']}")
    return first, logs


@dataclass(frozen=True, slots=True)
class _Served:
    """What was served before, between and after two retrainings, and what came of these."""

    before: Traffic
    after: Traffic
    retrained: dict[str, Any]
    again: dict[str, Any]


def _serve_and_retrain(parts: Parts, config: Path, logs: Sequence[Path], options: DemoOptions, say: Say) -> _Served:
    """Serve live traffic, retrain from what the service recorded, watch it reload, serve the rest, retrain again."""
    n = len(parts.live)
    before = parts.live.take(list(range(n * 3 // 4)))
    after = parts.live.take(list(range(n * 3 // 4, n)))
    rng = np.random.default_rng(options.seed + 10)
    with service(config, options.directory / "service.log") as url:
        say(f"service at {url}; the official OpenAI client sends {len(before)} requests")
        first = _send(before, config, url, rng, _every(100, say), say)
        retrained = _retrain(config, logs, url, say)
        say(f"{len(after)} more requests")
        second = _send(after, config, url, rng, lambda _: None, say)
        say("and again, with what has come since")
        again = _retrain(config, logs, url, say)
    return _Served(first, second, retrained, again)


def _send(
    table: OutcomeTable, config: Path, url: str, rng: np.random.Generator, progress: Callable[[int], None], say: Say
) -> Traffic:
    traffic = send(table, url, rng=rng, progress=progress)
    say(_told(traffic))
    time.sleep(_SETTLE_S)
    with open_store(load_config(config, {}).store.url) as store:
        judged = judge_background(table, store.scan(), url)
    say(f"  in the background, never shown: {judged['audit']} audits and {judged['shadow']} shadows, all judged")
    return traffic


def _retrain(config: Path, logs: Sequence[Path], url: str, say: Say) -> dict[str, Any]:
    arguments = ["retrain", "--config", str(config)]
    for log in logs:
        arguments += ["--log", str(log)]
    retrained = _command(arguments, say)
    say(f"  {retrained['why_these_learners']}")
    verb = "promoted" if retrained["promoted"] else "not promoted"
    say(f"  {retrained['version']} {verb}: {retrained['reason']}")
    for gate in retrained["gates"]:
        if not gate["passed"]:
            say(f"  gate {gate['name']} {'failed' if gate['required'] else 'warns'}: {gate['detail']}")
    if retrained["promoted"]:
        _wait_for_version(url, retrained["version"])
        say(f"  the running service now answers with {retrained['version']}, without a restart")
    return retrained


def _closing(
    parts: Parts,
    config: Path,
    first: dict[str, Any],
    served: _Served,
    description: str,
    options: DemoOptions,
    say: Say,
) -> DemoResult:
    """Measure the champion on the future that nothing has seen, and write the page."""
    say(f"measuring the champion on {len(parts.future):,} requests that nothing has seen")
    settings = load_config(config, {})
    bundle = load_bundle(Shelf(settings.models_dir).champion_path())
    n_train = next(
        run["n_train"] for run in (served.again, served.retrained, first) if run["version"] == bundle.version
    )
    assessment, report = _measure(parts, bundle, settings, description, options, n_train)
    page = options.directory / "report.html"
    replace_file(page, render_report(report).encode())
    retrained, again = served.retrained, served.again
    record = {
        "simulated": report.data.simulated,
        "logged_by": options.policy,
        "g": assessment.figures["quality_gap"].value,
        "r": assessment.figures["cost_ratio"].value,
        **headline(assessment),
        "escalation_rate": assessment.router.escalation_rate,
        "versions": {
            "first": first["version"],
            "retrained": retrained["version"],
            "again": again["version"],
            "champion": bundle.version,
        },
        "retrained": _promotion(retrained),
        "retrained_again": _promotion(again),
        "live": {"before_retraining": served.before.record(), "after_retraining": served.after.record()},
        "report": str(page),
    }
    return DemoResult(record, report, page)


def _promotion(retrained: dict[str, Any]) -> dict[str, Any]:
    return {
        "promoted": retrained["promoted"],
        "gate": retrained["reason"],
        "learners": retrained["learners"],
        "steps": {step["name"]: step["state"] for step in retrained["steps"]},
        "mlflow_run_id": retrained["mlflow_run_id"],
    }


def _measure(
    parts: Parts, bundle: Bundle, settings: Config, description: str, options: DemoOptions, n_train: int
) -> tuple[Assessment, ReportData]:
    # A call that failed says nothing about quality; such requests are left out of what is compared.
    future, ladder = (
        parts.future.take(np.flatnonzero(~parts.future.failed.any(axis=1))),
        settings.ladder or bundle.ladder,
    )
    path = options.directory / "future.parquet"
    future.frame.write_parquet(path)
    named = dict(zip(future.tiers, future.models, strict=True))
    rows = outcomes_source.read(str(path), SourceOptions(tiers=named))
    dataset = build_dataset((row for row in rows if not isinstance(row, Reject)), ladder.names)
    rng = np.random.default_rng(options.seed + 20)
    scored = score_with_bundle(dataset, bundle, ladder)
    measured = assess(
        scored,
        bundle.policy,
        quality=options.quality,
        n_train=n_train,
        rng=rng,
    )
    quiet = settings.exploration.model_copy(update={"up": 0.0})
    router = Router(bundle, settings.policy, quiet, settings.use_cases, settings.ladder)
    played = replay(router, future, rng=rng)
    # The table orders its tiers by what they cost in all, the ladder by the price of a typical call.
    column = np.array([ladder.index(name) for name in future.tiers])[played.column]
    strategy = measure(
        "router",
        quality=played.quality,
        cost=played.cost_usd,
        column=column,
        outcomes=measured.outcomes,
        rng=rng,
        escalated=played.escalated,
    )
    mix = random_mix(measured.outcomes, strategy.cost_usd, name="random mix at the same cost")
    others = [mix if other.name == mix.name else other for other in measured.strategies[1:]]
    slices = slice_figures(dataset, strategy, played.quality, played.cost_usd, measured.outcomes, rng=rng, draws=_DRAWS)
    assessment = replace(
        measured,
        slices=slices,
        strategies=(strategy, *others),
        vacuous=vacuity(measured.outcomes, strategy, options.quality),
    )
    report = report_data(
        assessment,
        title="Router demo",
        created=datetime.now(UTC),
        data=data_facts(dataset, assessment, description),
        model=ModelFacts(bundle.manifest.learner, bundle.version, bundle.manifest.mlflow_run_id),
        choice=None,
        certification=certify_policy(scored, bundle.policy, date=datetime.now(UTC), rng=rng),
        importance=importance_of(scored, bundle.policy, bundle_chances(bundle), quality=options.quality, rng=rng),
        gates=gate_lines(Shelf(settings.models_dir), bundle.version),
        notes=(
            f"The log that was learned from was written by the logging policy '{options.policy}'.",
            *_judging(bundle, options.quality),
        ),
    )
    return assessment, report


def _judging(bundle: Bundle, quality: float) -> tuple[str, ...]:
    if bundle.verifier is None:
        return ("Answers are judged by rules alone: a learned verifier did not earn its place.",)
    if not bundle.policy.operating(quality)[1]:
        return ("A learned verifier judges answers, but at this quality single attempts save more than plans of two.",)
    return ("A learned verifier judges answers: a plan tries one tier, and jumps to another where that is worth it.",)


def _command(arguments: Sequence[str], say: Say) -> dict[str, Any]:
    """Run a command of router-ml as a user would, and return its JSON."""
    say(f"$ router-ml {' '.join(arguments)}")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = cli.main([*arguments, "--json"])
    if code != 0:
        raise RouterError(f"`router-ml {arguments[0]}` ended with exit code {code}; its own message is above")
    record: dict[str, Any] = json.loads(out.getvalue())
    return record


def _wait_for_version(url: str, version: str) -> None:
    started = time.monotonic()
    while time.monotonic() - started < _RELOAD_S:
        with urllib.request.urlopen(f"{url}/v1/policy", timeout=5) as reply:  # noqa: S310  our own service
            if version in reply.read().decode():
                return
        time.sleep(0.1)
    raise RouterError(f"the service still answers with an older bundle {_RELOAD_S:.0f} s after {version} was promoted")


def _told(traffic: Traffic) -> str:
    shares = ", ".join(f"{tier} {count}" for tier, count in sorted(traffic.answered_by.items()))
    counts = f"escalated {traffic.escalated}; streamed {traffic.streamed}; failed {traffic.failed}"
    return f"  answered by: {shares}; {counts}; thumbs up {traffic.thumbs_up}, down {traffic.thumbs_down}"


def _every(n: int, say: Say) -> Callable[[int], None]:
    def progress(done: int) -> None:
        if done % n == 0:
            say(f"  {done} requests answered")

    return progress
