"""The bundle that ships with the project, learned from public outcome tables: what routes before the first own log.

    python -m router_ml_training.default_bundle --outcomes FOLDER --out models/default

No feature names a model, so what is learned is which requests need a strong model at all. Of every table the cheaper
half of its models stands for the small tier and the dearer half for the large one, each with its mean: what one pair of
models happens to get right says little about another pair. For the same reason only the length of a prompt is looked
at. Words tell the tables apart rather than the requests: with one table left out at a time, a model of words loses to
length on the tables that were left out (`benchmarks/quality/cold_start.py` measures the recipe that way).

Nor is it learned how long an answer will be: what words tell of it in some tables is mostly wrong of another. Every
answer is expected to be as long as those of the mean table, so that what is expected to differ between requests in cost
is what is known of them, the length of the prompt.
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
import polars as pl

from router_ml.bundle import ManifestDraft, TrainedOn, write_bundle
from router_ml.errors import DataError, RouterError
from router_ml.features import DENSE_NAMES
from router_ml.ladder import CATALOGUE, Ladder, Tier
from router_ml.schema import Interaction
from router_ml_training.assessment import assess
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.learning import Trained, learn
from router_ml_training.pipeline import LIBRARIES, metrics_of
from router_ml_training.settings import TrainingSettings
from router_ml_training.simulate.outcomes import OutcomeTable, load_outcomes, outcome_table
from router_ml_training.simulate.policies import simulate_log
from router_ml_training.tokens import TokenModel

__all__ = ["PUBLIC", "PublicTable", "halves", "interactions", "ladder", "learn_from", "main", "public_tables"]

_QUALITY = 0.97
_LEARNERS = ("constant", "length")


@dataclass(frozen=True, slots=True)
class PublicTable:
    """One public table, and how many of its prompts are used, so that no source drowns the others."""

    name: str
    most: int


# zeroeval_gsm and routellm_gsm8k hold the same questions; one of them is enough.
PUBLIC = (
    PublicTable("routellm_mmlu", 4000),
    PublicTable("mmlu_pro", 4000),
    PublicTable("zeroeval_gsm", 1319),
    PublicTable("hellobench", 647),
    PublicTable("routellm_mtbench", 160),
)


def ladder() -> Ladder:
    """Return the default ladder: GPT-4o mini and GPT-4o."""
    models = {"small": "gpt-4o-mini", "large": "gpt-4o"}
    return Ladder.of([Tier(name=n, model=m, **CATALOGUE[m].model_dump()) for n, m in models.items()])


def public_tables(folder: Path, tables: Sequence[PublicTable] = PUBLIC, *, seed: int = 0) -> list[OutcomeTable]:
    """Read the public tables, each reduced to its two halves of models and to its share of prompts.

    Raises:
        DataError: When a table is missing.
    """
    rng = np.random.default_rng(seed)
    read = []
    for table in tables:
        path = folder / f"{table.name}.parquet"
        if not path.exists():
            raise DataError(f"{path}: missing; the default bundle is made from {', '.join(t.name for t in tables)}")
        pair = halves(load_outcomes(path)).deduplicated()
        rows = np.sort(rng.permutation(len(pair))[: table.most])
        read.append(pair.take(rows))
    return read


def halves(table: OutcomeTable) -> OutcomeTable:
    """Return a table of two tiers: the mean of the cheaper half of the models, and that of the dearer half."""
    middle = len(table.models) // 2
    half = {model: int(i >= middle) for i, model in enumerate(table.models)}
    sizes = (middle, len(table.models) - middle)
    names = [f"{'cheaper' if i == 0 else 'dearer'} {size} of {len(table.models)}" for i, size in enumerate(sizes)]
    numbers = ("quality", "cost_usd", "input_tokens", "output_tokens")
    frame = (
        table.frame.with_columns(model=pl.col("model").replace_strict(half).replace_strict(dict(enumerate(names))))
        .group_by("prompt_id", "model", maintain_order=True)
        .agg(pl.col("prompt", "ts", "ts_assigned").first(), pl.col(*numbers).cast(pl.Float64).mean())
    )
    return outcome_table(frame, dict(zip(("small", "large"), names, strict=True)))


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
        trained, dataset = learn_from(tables)
        _write(trained, dataset, tables, args.out)
    except RouterError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{args.out}: {trained.competition.choice.verdict}\n")
    return 0


def learn_from(tables: Sequence[OutcomeTable]) -> tuple[Trained, Dataset]:
    """Learn as for the default bundle from some tables of two tiers."""
    prices = ladder()
    dataset = replace(build_dataset(interactions(tables, prices), prices.names), simulated=False)
    settings = TrainingSettings(learners=_LEARNERS)
    return learn(dataset, prices, settings, price_unit="typical", tokens=_mean_lengths(tables)), dataset


def _mean_lengths(tables: Sequence[OutcomeTable]) -> TokenModel:
    # Traffic is one table more, whatever it is: every table counts the same, however long it is.
    tokens = np.mean([table.output_tokens.mean(axis=0) for table in tables], axis=0)
    weights = np.zeros((len(DENSE_NAMES), len(tokens)), np.float32)
    return TokenModel(weights, np.log(np.maximum(tokens, 1.0)).astype(np.float32))


def _write(trained: Trained, dataset: Dataset, tables: Sequence[OutcomeTable], out: Path) -> None:
    rng = np.random.default_rng(1)
    n_train = trained.n_fitted
    assessment = assess(trained.test, trained.policy, quality=_QUALITY, n_train=n_train, rng=rng)
    used = "; ".join(f"{t.models[0]} models against {t.models[1]} on {len(t):,} prompts" for t in tables)
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
        made = write_bundle(
            Path(folder),
            manifest=draft,
            policy=trained.policy,
            model=trained.graph,
            verifier=None if trained.judge is None else trained.judge.graph,
        )
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)


if __name__ == "__main__":
    raise SystemExit(main())
