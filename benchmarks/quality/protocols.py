"""The protocols: which table, which pair of models, which rows are learned from and which are measured.

Rows are sorted by `prompt_id`. Prompts that are equal after lower-casing and collapsing non-word characters share a
side, and train wins: a measured row whose twin is learned from is learned from too, and not measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from router_ml.errors import DataError
from router_ml.ladder import Ladder, Tier
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.simulate.outcomes import OutcomeTable, load_outcomes
from router_ml_training.simulate.policies import simulate_log

__all__ = [
    "PROTOCOLS",
    "PUBLISHED_GSM8K",
    "PUBLISHED_MMLU",
    "Protocol",
    "Published",
    "Rows",
    "Split",
    "Table",
    "ladder_of",
    "load",
    "read",
    "splits",
]

Rows: TypeAlias = NDArray[np.int64]
Goal: TypeAlias = tuple[float, float]

_N_TRAIN = 10_000
_N_SEEDS = 5
_N_FOLDS = 5
_NOT_WORD = re.compile(r"\W+")


@dataclass(frozen=True, slots=True)
class Published:
    """A figure from a paper: another training set and the whole table as test set, so a landmark, not a rival."""

    name: str
    apgr: float


# Ong et al. 2024, RouteLLM, arXiv 2406.18665v4, tables 2 and 3, routers trained on Arena plus augmentation.
PUBLISHED_MMLU = (
    Published("RouteLLM sw_ranking (published)", 0.603),
    Published("RouteLLM causal LLM 8B (published)", 0.600),
    Published("RouteLLM mf (published)", 0.597),
    Published("RouteLLM BERT (published)", 0.572),
)
PUBLISHED_GSM8K = (
    Published("RouteLLM causal LLM 8B (published)", 0.622),
    Published("RouteLLM sw_ranking (published)", 0.568),
    Published("RouteLLM mf (published)", 0.565),
    Published("RouteLLM BERT (published)", 0.531),
)


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol; `goals` are (must, aim) by metric, for what the product would serve; `medium` makes three tiers."""

    name: str
    title: str
    table: str
    small: str
    large: str
    by: Literal["seeds", "folds"]
    task: bool = False
    goals: Mapping[str, Goal] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    medium: str | None = None

    @property
    def models(self) -> Mapping[str, str]:
        """Tier name to model."""
        middle = {} if self.medium is None else {"medium": self.medium}
        return {"small": self.small, **middle, "large": self.large}


_MIXTRAL, _GPT4 = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
_LLAMA_8B, _LLAMA_70B, _PRO = "Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct", "gemini-1.5-pro-002"
_ALL: tuple[Protocol, ...] = (
    Protocol(
        "A",
        "MMLU, prompt text only",
        "routellm_mmlu",
        _MIXTRAL,
        _GPT4,
        "seeds",
        goals={"APGR": (0.69, 0.73)},
        published=PUBLISHED_MMLU,
    ),
    Protocol(
        "A2",
        "MMLU, prompt text and the task as metadata",
        "routellm_mmlu",
        _MIXTRAL,
        _GPT4,
        "seeds",
        task=True,
        goals={"APGR": (0.71, 0.75)},
        published=PUBLISHED_MMLU,
    ),
    Protocol(
        "G",
        "MMLU-Pro in three tiers, prompt text only",
        "mmlu_pro",
        _LLAMA_8B,
        _PRO,
        "folds",
        goals={"AIQ": (0.646, 0.655)},
        medium=_LLAMA_70B,
    ),
    Protocol(
        "G2",
        "MMLU-Pro in three tiers, prompt text and the task as metadata",
        "mmlu_pro",
        _LLAMA_8B,
        _PRO,
        "folds",
        task=True,
        goals={"AIQ": (0.651, 0.665)},
        medium=_LLAMA_70B,
    ),
)

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


@dataclass(frozen=True, slots=True)
class Table:
    """A table in the order of the protocols: its features and outcomes, (n,) each, and which prompts are twins."""

    dataset: Dataset
    twin: Rows

    def __len__(self) -> int:
        return len(self.dataset)


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers; `seed` is for what is drawn while learning on it."""

    seed: int
    train: Rows
    test: Rows


def read(protocol: Protocol, folder: Path) -> Table:
    """Read the table of a protocol and featurise its prompts.

    Raises:
        DataError: When the table is missing or no such table.
    """
    table = load(protocol, folder)
    dataset = build_dataset(simulate_log(table, "full", rng=np.random.default_rng(0)), table.tiers)
    return Table(dataset, _twins(table))


def load(protocol: Protocol, folder: Path) -> OutcomeTable:
    """Read the rows of a protocol as they are in its table; `read` has the same ones in the same order.

    Raises:
        DataError: When the table is missing or no such table.
    """
    table = load_outcomes(folder / f"{protocol.table}.parquet", protocol.models, task_as_feature=protocol.task)
    if protocol.by != "seeds":
        return table
    contaminated = np.array([bool(flag) for flag in table.cells("contaminated")[:, 0]], np.bool_)
    return table.take(np.flatnonzero(~contaminated))


def ladder_of(protocol: Protocol, folder: Path) -> Ladder:
    """Return the tiers of a protocol with the prices that its table was made with.

    Raises:
        DataError: When the price list is missing or lacks a model.
    """
    path = folder / "prices.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected model, input_usd_per_mtok, output_usd_per_mtok")
    prices = {row["model"]: row for row in pl.read_csv(path).iter_rows(named=True)}
    missing = [model for model in protocol.models.values() if model not in prices]
    if missing:
        raise DataError(f"{path}: no price of {', '.join(missing)}")
    names = ("input_usd_per_mtok", "output_usd_per_mtok")
    return Ladder.of(
        [
            Tier(name=tier, model=model, **{name: prices[model][name] for name in names})
            for tier, model in protocol.models.items()
        ]
    )


def splits(protocol: Protocol, table: Table) -> Iterator[Split]:
    """Yield the splits of a protocol, the same ones for ever."""
    n = len(table)
    if protocol.by == "seeds":
        for seed in range(_N_SEEDS):
            order = np.random.default_rng(seed).permutation(n)
            yield _apart(seed, order[:_N_TRAIN], order[_N_TRAIN:], table.twin)
        return
    folds = KFold(_N_FOLDS, shuffle=True, random_state=0)
    for seed, (train, test) in enumerate(folds.split(np.arange(n))):
        yield _apart(seed, train, test, table.twin)


def _apart(seed: int, train: Rows, test: Rows, twin: Rows) -> Split:
    learned = np.isin(twin[test], twin[train])
    return Split(seed, np.concatenate((train, test[learned])), test[~learned])


def _twins(table: OutcomeTable) -> Rows:
    numbers: dict[str, int] = {}
    prompts = table.cells("prompt")[:, 0]
    keys = [_NOT_WORD.sub(" ", str(prompt).lower()).strip() for prompt in prompts]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
