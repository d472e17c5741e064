"""`router-ml certify`: prove on audited requests which point of a bundle's frontier keeps its promise."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from router_ml.bundle import Bundle
from router_ml.cli.output import emit, table
from router_ml.errors import DataError
from router_ml_training.certification import Terms, certify_policy
from router_ml_training.commands.evaluate import named_bundle
from router_ml_training.commands.workbench import open_workbench, steps
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.bounds import TESTS, check_shares
from router_ml_training.evaluation.certificate import Certificate, Step
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.reading import read_dataset
from router_ml_training.scored import score_with_bundle
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
        dataset = read_dataset([bench.log(location, args.source) for location in args.logs], ladder, progress=progress)
        progress("scoring")
        scored = score_with_bundle(dataset, bundle, ladder)
        progress("certifying")
        found = certify_policy(
            scored,
            bundle.policy,
            date=datetime.now(UTC),
            rng=np.random.default_rng(bench.training.seed),
            terms=Terms(args.loss, args.confidence, bench.training.certify_slice_loss, args.test),
        )
    if found.certificate is None:
        raise DataError(f"{bundle.version} cannot be certified on this log: {found.reason}")
    seen = dataset.digest == bundle.manifest.trained_on.digest
    warnings = _warnings(dataset, bundle, seen=seen)
    record = {"version": bundle.version, "independent": not seen, **found.to_dict(), "warnings": warnings}
    emit(args, record, _text(found, found.certificate, bundle.version, warnings))
    return 0 if found.beyond_constant and not seen else 1


def _warnings(dataset: Dataset, bundle: Bundle, *, seen: bool) -> list[str]:
    if seen:
        return [
            f"This is the log that {bundle.version} was trained on, so it proves nothing. Certify on requests that "
            "came later."
        ]
    last = bundle.manifest.trained_on.last_ts
    early = int((dataset.ts <= last.timestamp()).sum()) if last is not None and dataset.dated else 0
    if not early:
        return []
    return [
        f"{early} of these requests are not later than the newest that {bundle.version} was trained on: the "
        "certificate holds only if it has not seen them."
    ]


def _text(found: Certification, certificate: Certificate, version: str, warnings: Sequence[str]) -> str:
    rows = [_row(step, i == certificate.index) for i, step in enumerate(certificate.steps)]
    best, loss, kept = certificate.best_tier, 100 * certificate.allowed_loss, 100 * certificate.least_kept
    evidence = {
        "pairs": "those with every tier's outcome known",
        "chains and audits": f"{found.n_known} of them audited; loss and saving are estimates",
    }[certificate.evidence]
    return "\n".join(
        (
            *warnings,
            certificate.verdict,
            "",
            table(("", "quality", "price", "loss", "saving", "p"), rows),
            "",
            f"{version} on {certificate.n_rows} of {found.n_rows} requests, {evidence}; they "
            f"count as {certificate.n_units} sessions or prompts.",
            f"Test: {certificate.test}, from safe to bold, up to the first that fails; * is certified. "
            f"{certificate.date:%Y-%m-%d}.",
            f"Of what {best} answers well, a router that loses at most {loss:g} % on what it sends elsewhere leaves at "
            f"least {kept:.1f} % to it, whatever it knows.",
            *([found.labels] if found.labels else []),
            *(f"{note[0].upper()}{note[1:]}." for note in found.notes),
            *_beside(found),
            *_slices(found),
        )
    )


def _beside(found: Certification) -> list[str]:
    beside = found.beside
    if beside is None:
        return []
    facts = {
        "quality gap g": beside.gap,
        "a random mix at the same cost keeps": beside.mix_kept if found.beyond_constant else None,
        "the oracle at this loss saves": beside.oracle_saving,
    }
    said = "; ".join(f"{name} {100 * value:.1f} %" for name, value in facts.items() if value is not None)
    ratio = "" if beside.cost_ratio is None else f"; cost ratio r {beside.cost_ratio:.3g}"
    rows = f"On the {found.n_known:,} requests with every tier's outcome known: "
    return [f"{rows}{said}{ratio}.", *([f"Vacuous: {beside.vacuous}."] if beside.vacuous else [])]


def _slices(found: Certification) -> list[str]:
    if not found.slices:
        return []
    rows = [
        (one.name, one.n_rows, f"{100 * one.loss:.1f} %", f"{100 * one.saving:.1f} %", one.status)
        for one in found.slices
    ]
    text = [
        "",
        table((f"slice, loss at most {100 * found.slice_loss:g} %", "requests", "loss", "saving", "verdict"), rows),
    ]
    if found.pinned:
        text.append(f"Not proven: {', '.join(found.pinned)}. Who cannot afford a loss there pins {found.best_tier}.")
    return text


def _row(step: Step, certified: bool) -> tuple[object, ...]:
    return (
        "*" if certified else "",
        "always best" if step.shadow_price is None else f"{step.quality:g}",
        None if step.shadow_price is None else f"{step.shadow_price:.4g}",
        f"{100 * step.loss:.1f} %",
        f"{100 * step.saving:.1f} %",
        None if step.p_value is None else f"{step.p_value:.2g}",
    )
