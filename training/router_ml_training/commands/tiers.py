"""`router-ml tiers`: list the tiers of a bundle, add one from few outcomes, solve the policy again at other prices."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from router_ml.bundle import PROFILE, Bundle, ManifestDraft, Metric, PolicySpec, TrainedOn, write_bundle
from router_ml.cli.output import emit, table
from router_ml.errors import UsageError
from router_ml.ladder import Ladder, Tier, price_of
from router_ml_training.commands.evaluate import named_bundle
from router_ml_training.commands.workbench import Workbench, git_commit, open_workbench, steps
from router_ml_training.dataset import Dataset
from router_ml_training.gate import GateReport, compare
from router_ml_training.joining import compare_choices, join_tier
from router_ml_training.pipeline import LIBRARIES, next_version
from router_ml_training.reading import read_dataset
from router_ml_training.repricing import Solved, carried_over, common_factor, solved_again
from router_ml_training.sources import SOURCES
from router_ml_training.tier_graph import GRAPH_FILE, VERIFIER_FILE, reordered
from router_ml_training.tier_text import joined_record, joined_text, kept_table, left_out, quality_record, solved_on

__all__ = ["add_arguments", "run"]

_PRICED = {"name", "model", "input_usd_per_mtok", "output_usd_per_mtok"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    kinds = parser.add_subparsers(dest="what", metavar="{list,add,reprice}")
    listed = kinds.add_parser("list", help="the tiers of a bundle, their prices, and what its policy keeps and saves")
    add = kinds.add_parser("add", help="give a new tier a head from some 300 outcomes; the other heads stay untouched")
    add.add_argument("name", metavar="NAME", help="name of the new tier")
    add.add_argument("--model", help="its upstream model (default: the configuration's)")
    add.add_argument(
        "--outcomes",
        action="append",
        required=True,
        metavar="LOG",
        help="a log in which the new tier was run and judged, and the others where known (may be given several times)",
    )
    add.add_argument("--input-price", type=float, metavar="USD", help="USD per million input tokens")
    add.add_argument("--output-price", type=float, metavar="USD", help="USD per million output tokens")
    reprice = kinds.add_parser("reprice", help="solve the policy again at the prices of the configuration")
    reprice.add_argument(
        "--log", action="append", default=[], metavar="LOG", help="outcomes to solve on (may be given several times)"
    )
    for kind in (add, reprice):
        kind.add_argument("--source", default="native", help=f"kind of log: {', '.join(SOURCES)} (default: native)")
        kind.add_argument("--promote", action="store_true", help="put the bundle into service if it is not worse")
    for kind in (listed, add, reprice):
        kind.add_argument("--bundle", metavar="VERSION", help="version on the shelf, or a folder (default: champion)")
        # The host takes both before the kind; people write them at the end.
        kind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        kind.add_argument("--config", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """List, add or reprice; exit code 1 when a bundle was made that --promote then refused."""
    bench = open_workbench(args)
    bundle = named_bundle(bench, getattr(args, "bundle", None))
    if args.what == "add":
        return _add(args, bench, bundle)
    if args.what == "reprice":
        return _reprice(args, bench, bundle)
    return _list(args, bench, bundle)


def _list(args: argparse.Namespace, bench: Workbench, bundle: Bundle) -> int:
    configured = {tier.name: tier for tier in bench.config.ladder or ()}
    policy = bundle.policy
    rows = [_listed(tier, configured.get(tier.name), policy) for tier in bundle.ladder]
    changed = [tier.name for tier in bundle.ladder if _dearer_or_cheaper(tier, configured.get(tier.name))]
    notes = [
        f"{name} joins with `router-ml tiers add {name}`" for name in configured if name not in bundle.ladder.names
    ]
    if changed:
        notes.append(f"other prices in {bench.config.source}: {', '.join(changed)}; `router-ml tiers reprice`")
    record = {
        "version": bundle.version,
        "best_tier": policy.best_tier,
        "tiers": [tier.model_dump(mode="json", include=_PRICED) for tier in bundle.ladder],
        "repriced": changed,
        "frontier": [point.model_dump() for point in policy.frontier],
    }
    headers = ("", "tier", "model", "USD/Mtok in", "out")
    text = (
        f"tiers of {bundle.version}, cheapest first; * is the best",
        table(headers, rows),
        "",
        kept_table(policy),
        *notes,
    )
    emit(args, record, "\n".join(text))
    return 0


def _add(args: argparse.Namespace, bench: Workbench, bundle: Bundle) -> int:
    now = datetime.now(UTC)
    tier = _new_tier(args, bench, bundle)
    ladder = Ladder.of([*_priced_today(bench, bundle), tier])
    if args.promote:
        _require_configured(bench, ladder)
    with steps() as progress:
        logs = [bench.log(location, args.source) for location in args.outcomes]
        dataset = read_dataset(logs, ladder, progress=progress)
        progress("fitting the new head")
        joined = join_tier(bundle, tier.name, ladder, dataset, seed=bench.training.seed)
        verdict = compare_choices(joined, bundle.policy, quality=bench.config.policy.quality)
        progress("writing the bundle")
        version = next_version(bench.shelf, now)
        described = f"{bundle.version}, and the tier {tier.name} from {', '.join(map(str, logs))}"
        draft = _draft(bundle, version, now, _trained_on(bundle, dataset, described), f"tier {tier.name}")
        metrics = {f"quality_{tier.name}": Metric.model_validate(quality_record(joined))}
        draft = draft.model_copy(update={"metrics": metrics, "simulated": draft.simulated or dataset.simulated})
        policy, graph = joined.solved.policy, joined.graph
        write_bundle(bench.shelf.directory, manifest=draft, policy=policy, model=graph, profile=_profile_of(bundle))
    promoted = args.promote and verdict.passed
    if promoted:
        bench.shelf.promote(version, reason=f"tier {tier.name} added: {verdict.reason}", now=now)
    notes = left_out(bundle, joined.solved.policy, verifier=False)
    record = {"version": version, "promoted": promoted, **joined_record(joined, verdict), "notes": notes}
    if bench.config.ladder is not None and tier.name not in bench.config.ladder.names:
        notes.append(f"Add [[tiers]] '{tier.name}' to {bench.config.source} before you promote it.")
    refused = "; it was not promoted" if args.promote and not promoted else ""
    text = (joined_text(joined, verdict), *notes, f"{_place(version, promoted=promoted)}{refused}")
    emit(args, record, "\n".join(text))
    return 1 if refused else 0


def _reprice(args: argparse.Namespace, bench: Workbench, bundle: Bundle) -> int:
    now = datetime.now(UTC)
    ladder = bench.ladder
    _require_same_tiers(bench, bundle)
    if not args.log and common_factor(bundle.ladder, ladder) == 1.0:
        text = f"the prices of {bench.config.source} are those of {bundle.version}: nothing to solve"
        emit(args, {"version": None, "promoted": False}, text)
        return 0
    gate: GateReport | None = None  # the very same decisions need none
    if args.log:
        solved, trained_on = _solved_on_logs(args, bench, bundle, ladder)
        policy, how, gate = solved.policy, solved_on(solved), _gate(args, bench, bundle, solved)
    else:
        policy, trained_on = carried_over(bundle.policy, ladder), bundle.manifest.trained_on
        how = "every price was multiplied by one number: the same decisions, nothing to solve"
    version = next_version(bench.shelf, now)
    graph = reordered((bundle.path / GRAPH_FILE).read_bytes(), ladder.names)
    draft = _draft(bundle, version, now, trained_on, "")
    # A verifier knows the tiers by their place in the ladder.
    kept = bundle.verifier is not None and ladder.names == bundle.ladder.names
    judging = (bundle.path / VERIFIER_FILE).read_bytes() if kept else None
    profile = _profile_of(bundle)
    write_bundle(bench.shelf.directory, manifest=draft, policy=policy, model=graph, verifier=judging, profile=profile)
    promoted = args.promote and (gate is None or gate.passed)
    if promoted:
        why = "" if gate is None else f": {gate.reason}"
        bench.shelf.promote(version, reason=f"{bundle.version} at other prices{why}", now=now)
    notes = left_out(bundle, policy, verifier=kept)
    record = {
        "version": version,
        "promoted": promoted,
        "policy": how,
        "gate": None if gate is None else asdict(gate),
        "frontier": [point.model_dump() for point in policy.frontier],
        "notes": notes,
    }
    refused = args.promote and not promoted
    judged = [] if gate is None else [f"gate: {'passed' if gate.passed else 'not passed'}: {gate.reason}"]
    place = f"{_place(version, promoted=promoted)}{'; it was not promoted' if refused else ''}"
    emit(args, record, "\n".join((f"policy: {how}", *judged, "", kept_table(policy), "", *notes, place)))
    return 1 if refused else 0


def _profile_of(bundle: Bundle) -> bytes | None:
    # The heads that know its traffic are the same. Prices, and who is asked first, are not held against it.
    return (bundle.path / PROFILE).read_bytes() if PROFILE in bundle.manifest.files else None


def _gate(args: argparse.Namespace, bench: Workbench, bundle: Bundle, solved: Solved) -> GateReport:
    # On the rows it was solved on: nothing but the policy changed, and that keeps a standard error to spare.
    assert solved.scored is not None  # noqa: S101  what `solved_again` returns has them
    champion: Bundle | None = bundle
    if args.bundle is not None:
        champion = named_bundle(bench, None) if bench.shelf.champion() is not None else None
    return compare(solved.scored, solved.policy, champion, bench.ladder, quality=bench.config.policy.quality)


def _solved_on_logs(
    args: argparse.Namespace, bench: Workbench, bundle: Bundle, ladder: Ladder
) -> tuple[Solved, TrainedOn]:
    logs = [bench.log(location, args.source) for location in args.log]
    with steps() as progress:
        dataset = read_dataset(logs, ladder, progress=progress)
        progress("solving the policy")
        solved = solved_again(bundle, ladder, dataset)
    described = f"{bundle.version}, its policy solved again on {', '.join(map(str, logs))}"
    return solved, _trained_on(bundle, dataset, described)


def _require_same_tiers(bench: Workbench, bundle: Bundle) -> None:
    if set(bench.ladder.names) != set(bundle.ladder.names):
        raise UsageError(
            f"{bundle.version} routes between {', '.join(bundle.ladder.names)}, {bench.config.source} has "
            f"{', '.join(bench.ladder.names)}: prices can change only of the same tiers; `router-ml tiers add` adds one"
        )


def _new_tier(args: argparse.Namespace, bench: Workbench, bundle: Bundle) -> Tier:
    name, given = args.name, (args.input_price, args.output_price)
    if name in bundle.ladder.names:
        raise UsageError(f"{bundle.version} has a tier '{name}' already: a new tier needs another name")
    configured = next((tier for tier in bench.config.ladder or () if tier.name == name), None)
    if configured is not None:
        differs = args.model not in (None, configured.model)
        if differs or any(price is not None for price in given):
            raise UsageError(f"{bench.config.source} describes '{name}': change its model or prices there")
        return configured
    if args.model is None:
        raise UsageError(f"{bench.config.source} has no tier '{name}': add it there, or give --model and its prices")
    listed = price_of(args.model)
    prices = (
        given
        if listed is None
        else tuple(
            own if own is not None else usual
            for own, usual in zip(given, (listed.input_usd_per_mtok, listed.output_usd_per_mtok), strict=True)
        )
    )
    if any(price is None or not 0.0 <= price < float("inf") for price in prices):
        raise UsageError(
            f"no price is known for the model '{args.model}': give --input-price and --output-price (USD per million "
            f"tokens, 0 or more), or add the tier to {bench.config.source}"
        )
    return _tier_of(name, args.model, prices)


def _tier_of(name: str, model: str, prices: Sequence[float | None]) -> Tier:
    return Tier.model_validate(
        {"name": name, "model": model, "input_usd_per_mtok": prices[0], "output_usd_per_mtok": prices[1]}
    )


def _priced_today(bench: Workbench, bundle: Bundle) -> list[Tier]:
    configured = bench.config.ladder
    if configured is None:
        return list(bundle.ladder)
    missing = [name for name in bundle.ladder.names if name not in configured.names]
    if missing:
        raise UsageError(
            f"{bench.config.source} lacks {', '.join(missing)}, which {bundle.version} routes to: a tier is added to "
            "a ladder, not put in the place of another; train a bundle for the new ladder"
        )
    return [configured.tier(name) for name in bundle.ladder.names]


def _require_configured(bench: Workbench, ladder: Ladder) -> None:
    configured = bench.config.ladder
    if configured is not None and set(configured.names) != set(ladder.names):
        raise UsageError(
            f"--promote: a service with {bench.config.source} serves {', '.join(configured.names)} and could not load "
            f"a bundle for {', '.join(ladder.names)}: bring the file in line first"
        )


def _draft(bundle: Bundle, version: str, now: datetime, trained_on: TrainedOn, change: str) -> ManifestDraft:
    # Figures and certificates of the old bundle are about another policy.
    learner = bundle.manifest.learner
    return ManifestDraft(
        version=version,
        created=now,
        git_commit=git_commit(),
        trained_on=trained_on,
        learner=f"{learner} + {change}" if change else learner,
        libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
        simulated=bundle.manifest.simulated,
    )


def _trained_on(bundle: Bundle, dataset: Dataset, description: str) -> TrainedOn:
    # The digest is the new log's: nothing can be certified on it. The dates span both.
    old = bundle.manifest.trained_on
    first, last = (datetime.fromtimestamp(float(edge), UTC) for edge in (dataset.ts.min(), dataset.ts.max()))
    dated = dataset.dated and old.first_ts is not None and old.last_ts is not None
    return TrainedOn(
        digest=dataset.digest,
        n_interactions=old.n_interactions + len(dataset),
        first_ts=min(old.first_ts, first) if dated and old.first_ts else None,
        last_ts=max(old.last_ts, last) if dated and old.last_ts else None,
        description=description,
    )


def _place(version: str, *, promoted: bool) -> str:
    return f"{version} is {'in service' if promoted else f'on the shelf; `router-ml promote {version}` serves it'}"


def _listed(tier: Tier, configured: Tier | None, policy: PolicySpec) -> tuple[object, ...]:
    prices: tuple[object, ...] = (tier.input_usd_per_mtok, tier.output_usd_per_mtok)
    return ("*" if tier.name == policy.best_tier else "", tier.name, (configured or tier).model, *prices)


def _dearer_or_cheaper(tier: Tier, configured: Tier | None) -> bool:
    if configured is None:
        return False
    return (tier.input_usd_per_mtok, tier.output_usd_per_mtok) != (
        configured.input_usd_per_mtok,
        configured.output_usd_per_mtok,
    )
