"""`router-ml certify`: prove on audited requests which point of a bundle's frontier keeps its promise."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from router_ml.bundle import Bundle
from router_ml.cli.output import emit, table
from router_ml.errors import DataError
from router_ml_training.commands.evaluate import named_bundle
from router_ml_training.commands.workbench import open_workbench, steps
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.bounds import TESTS, check_shares, units_needed
from router_ml_training.evaluation.certificate import Candidate, Certificate, Step, certify
from router_ml_training.evaluation.curves import choose
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.reading import Log, read_dataset
from router_ml_training.scored import Scored, score_with_bundle
from router_ml_training.sources import SOURCES

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("logs", nargs="+", metavar="LOG", help="logs with an audited share that nothing learned from")
    parser.add_argument("--source", default="native", help=f"kind of log: {', '.join(SOURCES)} (default: %(default)s)")
    parser.add_argument("--bundle", metavar="VERSION", help="version on the shelf, or a folder (default: the champion)")
    parser.add_argument(
        "--loss", type=float, default=0.03, help="share of the best tier's quality that may be lost (default: 0.03)"
    )
    parser.add_argument(
        "--confidence", type=float, default=0.95, help="how sure a certificate has to be (default: 0.95)"
    )
    parser.add_argument("--test", choices=TESTS, default="betting", help="how it is tested (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print what is certified; 1 when that is no more than the constant model."""
    check_shares(args.loss, args.confidence)
    bench = open_workbench(args)
    bundle = named_bundle(bench, args.bundle)
    ladder = bench.config.ladder or bundle.ladder
    with steps() as progress:
        dataset = read_dataset([Log(location, args.source) for location in args.logs], ladder, progress=progress)
        audited = _audited(dataset, args)
        progress("scoring")
        scored = score_with_bundle(audited, bundle, ladder)
        progress("certifying")
        certificate = certify(
            _outcomes(scored, bundle),
            _candidates(scored, bundle),
            tiers=ladder.names,
            date=datetime.now(UTC),
            rng=np.random.default_rng(bench.training.seed),
            allowed_loss=args.loss,
            confidence=args.confidence,
            test=args.test,
            groups=audited.group,
        )
    seen = dataset.digest == bundle.manifest.trained_on.digest
    warnings = _warnings(audited, bundle, seen=seen)
    record = {"version": bundle.version, "independent": not seen, **certificate.to_dict(), "warnings": warnings}
    emit(args, record, _text(certificate, bundle.version, len(dataset), warnings))
    return 0 if certificate.beyond_constant and not seen else 1


def _audited(dataset: Dataset, args: argparse.Namespace) -> Dataset:
    rows = np.flatnonzero(dataset.complete)
    needed = units_needed(args.loss, args.confidence, test=args.test)
    if len(rows) < needed:
        raise DataError(
            f"the outcome of every tier is known for {len(rows)} of {len(dataset)} requests, and at least {needed} are "
            f"needed to certify a loss of {100 * args.loss:g} % with {100 * args.confidence:g} % confidence (escalated "
            "ones do not count, they are the hard ones): run and judge every tier on a random share of requests"
        )
    return dataset.rows(rows)


def _outcomes(scored: Scored, bundle: Bundle) -> Outcomes:
    known = scored.dataset.cost_usd
    cost = np.where(np.isnan(known), scored.cost_usd, known)
    # The reference is the bundle's own best tier: chosen by this log, it would depend on what it is tested on.
    best = scored.dataset.tiers.index(bundle.policy.best_tier)
    return Outcomes(scored.dataset.quality, cost, best=best)


def _candidates(scored: Scored, bundle: Bundle) -> list[Candidate]:
    cost = scored.cost_in(bundle.policy.price_unit)
    return [
        Candidate(point.quality, point.shadow_price, choose(scored.adequacy, cost, point.shadow_price))
        for point in bundle.policy.frontier
    ]


def _warnings(audited: Dataset, bundle: Bundle, *, seen: bool) -> list[str]:
    if seen:
        return [
            f"This is the log that {bundle.version} was trained on, so it proves nothing. Certify on requests that "
            "came later."
        ]
    last = bundle.manifest.trained_on.last_ts
    early = int((audited.ts <= last.timestamp()).sum()) if last is not None and audited.dated else 0
    if not early:
        return []
    return [
        f"{early} of these requests are not later than the newest that {bundle.version} was trained on: the "
        "certificate holds only if it has not seen them."
    ]


def _text(certificate: Certificate, version: str, n_log: int, warnings: Sequence[str]) -> str:
    rows = [_row(step, i == certificate.index) for i, step in enumerate(certificate.steps)]
    best, loss, kept = certificate.best_tier, 100 * certificate.allowed_loss, 100 * certificate.least_kept
    return "\n".join(
        (
            *warnings,
            certificate.verdict,
            "",
            table(("", "quality", "price", "loss", "saving", "p"), rows),
            "",
            f"{version} on {certificate.n_rows} of {n_log} requests, those with every tier's outcome known; they "
            f"count as {certificate.n_units} sessions or prompts.",
            f"Test: {certificate.test}, from safe to bold, up to the first that fails; * is certified. "
            f"{certificate.date:%Y-%m-%d}.",
            f"Of what {best} answers well, a router that loses at most {loss:g} % on what it sends elsewhere leaves at "
            f"least {kept:.1f} % to it, whatever it knows.",
        )
    )


def _row(step: Step, certified: bool) -> tuple[object, ...]:
    return (
        "*" if certified else "",
        "always best" if step.shadow_price is None else f"{step.quality:g}",
        None if step.shadow_price is None else f"{step.shadow_price:.4g}",
        f"{100 * step.loss:.1f} %",
        f"{100 * step.saving:.1f} %",
        None if step.p_value is None else f"{step.p_value:.2g}",
    )
