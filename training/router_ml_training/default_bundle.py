"""The bundle that ships with the project, learned from public outcome tables: what routes before the first own log.

    python -m router_ml_training.default_bundle --outcomes FOLDER --out models/default

Every table contributes one pair of a small and a large model that is like the default ladder's; no feature names a
model, so what is learned is which requests need a strong model at all.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from router_ml.bundle import ManifestDraft, TrainedOn, write_bundle
from router_ml.errors import DataError, RouterError
from router_ml.ladder import CATALOGUE, Ladder, Tier
from router_ml.schema import Interaction
from router_ml_training.assessment import assess
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.learning import Trained, learn
from router_ml_training.pipeline import LIBRARIES, metrics_of
from router_ml_training.settings import TrainingSettings
from router_ml_training.simulate.outcomes import OutcomeTable, load_outcomes
from router_ml_training.simulate.policies import simulate_log

__all__ = ["PublicTable", "interactions", "ladder", "main", "public_tables"]

_QUALITY = 0.97


@dataclass(frozen=True, slots=True)
class PublicTable:
    """One public table, its pair of models, and how many prompts are used, so that no source drowns the others."""

    name: str
    small: str
    large: str
    most: int


# zeroeval_gsm and routellm_gsm8k hold the same questions; one of them is enough.
PUBLIC = (
    PublicTable("routellm_mmlu", "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview", 4000),
    PublicTable("mmlu_pro", "gemini-1.5-flash-002", "gemini-1.5-pro-002", 4000),
    PublicTable("zeroeval_gsm", "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06", 1319),
    PublicTable("hellobench", "llama31_70b", "gpt4o_0806", 647),
    PublicTable("routellm_mtbench", "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview", 160),
)


def ladder() -> Ladder:
    """Return the default ladder: GPT-4o mini and GPT-4o."""
    models = {"small": "gpt-4o-mini", "large": "gpt-4o"}
    return Ladder.of([Tier(name=n, model=m, **CATALOGUE[m].model_dump()) for n, m in models.items()])


def public_tables(folder: Path, tables: Sequence[PublicTable] = PUBLIC, *, seed: int = 0) -> list[OutcomeTable]:
    """Read the public tables, each reduced to its pair of models and to its share of prompts.

    Raises:
        DataError: When a table is missing.
    """
    rng = np.random.default_rng(seed)
    read = []
    for table in tables:
        path = folder / f"{table.name}.parquet"
        if not path.exists():
            raise DataError(f"{path}: missing; the default bundle is made from {', '.join(t.name for t in tables)}")
        pair = load_outcomes(path, {"small": table.small, "large": table.large}).deduplicated()
        rows = np.sort(rng.permutation(len(pair))[: table.most])
        read.append(pair.take(rows))
    return read


def interactions(tables: Sequence[OutcomeTable], prices: Ladder) -> Iterator[Interaction]:
    """Yield the tables' rows with every outcome known, costs at the prices of one ladder."""
    for table in tables:
        for item in simulate_log(table, "full", rng=np.random.default_rng(0)):
            attempts = tuple(
                attempt.model_copy(
                    update={
                        "cost_usd": prices.tier(attempt.tier).cost_usd(
                            attempt.input_tokens or 0, attempt.output_tokens or 0
                        )
                    }
                )
                for attempt in item.attempts
            )
            # The outcomes are real; only the form of a log is lent to them.
            tags = {"ts_assigned": True}
            yield item.model_copy(update={"attempts": attempts, "tags": tags})


def main(argv: Sequence[str] | None = None) -> int:
    """Train the default bundle and put it in place."""
    parser = argparse.ArgumentParser(description="Train the bundle that ships with the project.")
    parser.add_argument("--outcomes", type=Path, required=True, help="folder of the public outcome tables")
    parser.add_argument("--out", type=Path, default=Path("models/default"), help="the bundle's folder, replaced")
    args = parser.parse_args(argv)
    try:
        tables = public_tables(args.outcomes)
        trained, dataset = _train(tables)
        _write(trained, dataset, tables, args.out)
    except RouterError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{args.out}: {trained.competition.choice.verdict}\n")
    return 0


def _train(tables: Sequence[OutcomeTable]) -> tuple[Trained, Dataset]:
    prices = ladder()
    dataset = replace(build_dataset(interactions(tables, prices), prices.names), simulated=False)
    # A small bundle in every checkout: trees would earn little here and double its size.
    settings = TrainingSettings(learners=("constant", "length", "linear"))
    return learn(dataset, prices, settings, price_unit="relative"), dataset


def _write(trained: Trained, dataset: Dataset, tables: Sequence[OutcomeTable], out: Path) -> None:
    rng = np.random.default_rng(1)
    n_train = trained.n_fitted
    assessment = assess(trained.test, trained.policy, quality=_QUALITY, n_train=n_train, rng=rng)
    used = "; ".join(f"{t.models[0]} against {t.models[1]} on {len(t):,} prompts" for t in tables)
    draft = ManifestDraft(
        version="default",
        created=datetime.now(UTC),
        trained_on=TrainedOn(
            digest=dataset.digest,
            n_interactions=len(dataset),
            description=f"public per-prompt outcomes ({', '.join(table.name for table in PUBLIC)}): {used}",
        ),
        learner=trained.learner,
        metrics=metrics_of(assessment),
        libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
    )
    with tempfile.TemporaryDirectory() as folder:
        made = write_bundle(Path(folder), manifest=draft, policy=trained.policy, model=trained.graph)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)


if __name__ == "__main__":
    raise SystemExit(main())
