"""Small logs whose truth is known: each prompt carries a difficulty in its words, and outcomes are drawn from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

from router_ml.ladder import Ladder, Tier
from router_ml.schema import Attempt, Interaction, RequestBody, Verdict
from router_ml.shelf import Shelf
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.pipeline import Run, train_bundle
from router_ml_training.settings import MlflowSettings, TrainingSettings
from router_ml_training.tracking_client import connected
from tests.training.mlflow_server import MlflowServer

START = datetime(2026, 1, 1, tzinfo=UTC)
TIERS = (
    Tier(name="small", model="mini", input_usd_per_mtok=0.15, output_usd_per_mtok=0.6),
    Tier(name="large", model="maxi", input_usd_per_mtok=2.5, output_usd_per_mtok=10.0),
)
# The same tiers in router.toml, read from the folder of a test.
CONFIG = """
models_dir = "models"
[[tiers]]
name = "small"
model = "mini"
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.6
[[tiers]]
name = "large"
model = "maxi"
input_usd_per_mtok = 2.5
output_usd_per_mtok = 10.0
[training]
learners = ["constant", "linear"]
"""
# One marker word per difficulty, and what each tier achieves on it.
MARKERS = ("greet", "format", "summarise", "derive", "prove")
P_SMALL = np.array([0.97, 0.90, 0.65, 0.30, 0.12])
# Large succeeds nearly always where small does; where small fails, how often depends on the difficulty.
SLIP = 0.08
P_LARGE_IF_FAILED = np.array([0.90, 0.85, 0.75, 0.65, 0.50])
P_LARGE = P_SMALL * (1 - SLIP) + (1 - P_SMALL) * P_LARGE_IF_FAILED
FILLERS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "omega")


@dataclass(frozen=True, slots=True)
class Drawn:
    """Prompts and what each tier would have done: `difficulty` (n,), `quality` (n, 2), `tokens` (n, 2)."""

    prompts: tuple[str, ...]
    difficulty: np.ndarray
    quality: np.ndarray
    tokens: np.ndarray


def draw(n: int, rng: Generator) -> Drawn:
    """Draw n prompts and their outcomes."""
    difficulty = rng.integers(0, len(MARKERS), n)
    prompts = []
    for i, level in enumerate(difficulty):
        words = rng.choice(FILLERS, int(rng.integers(3, 12))).tolist()
        words.insert(int(rng.integers(0, len(words))), MARKERS[level])
        prompts.append(f"{' '.join(words)} number {i}")
    small = rng.random(n) < P_SMALL[difficulty]
    large = rng.random(n) < np.where(small, 1 - SLIP, P_LARGE_IF_FAILED[difficulty])
    tokens = np.stack([rng.integers(50, 150, n), rng.integers(80, 240, n)], axis=1)
    return Drawn(tuple(prompts), difficulty, np.stack([small, large], axis=1).astype(float), tokens)


def log_of(drawn: Drawn, *, policy: str = "audit", labels: np.ndarray | None = None, **tags: Any) -> list[Interaction]:
    """Write the log that a policy leaves behind: `audit` runs both tiers, `chain` the large one after a failure only.

    `labels` (n, 2) replaces what was observed, to log another truth than the prompts'.
    """
    quality = drawn.quality if labels is None else labels
    return [
        Interaction(
            id=f"i{i:05d}",
            ts=START + timedelta(minutes=i),
            tags=dict(tags),
            request=RequestBody(messages=({"role": "user", "content": prompt},)),
            mode="audit" if policy == "audit" else "live",
            attempts=tuple(_attempts(quality[i], drawn.tokens[i], policy)),
        )
        for i, prompt in enumerate(drawn.prompts)
    ]


def _attempts(quality: np.ndarray, tokens: np.ndarray, policy: str) -> Sequence[Attempt]:
    both = [_attempt(tier, float(q), int(t)) for tier, q, t in zip(TIERS, quality, tokens, strict=True)]
    return both if policy == "audit" or quality[0] < 0.5 else both[:1]


def _attempt(tier: Tier, quality: float, tokens: int) -> Attempt:
    verdict = Verdict(adequate=quality >= 0.5, score=quality, source="check")
    return Attempt(
        tier=tier.name,
        model=tier.model,
        input_tokens=100,
        output_tokens=tokens,
        cost_usd=tier.cost_usd(100, tokens),
        verdicts=(verdict,),
    )


@dataclass(frozen=True, slots=True)
class World:
    """What the tests of learning share: the known truth, and functions that draw from it."""

    ladder: Ladder
    markers: tuple[str, ...]
    p_small: np.ndarray
    p_large: np.ndarray
    p_large_if_failed: np.ndarray
    slip: float
    draw: Callable[[int, Generator], Drawn]
    log_of: Callable[..., list[Interaction]]

    def log(self, n: int, seed: int = 0, **options: Any) -> list[Interaction]:
        """Draw n prompts and log them."""
        return self.log_of(self.draw(n, np.random.default_rng(seed)), **options)

    def dataset(self, n: int, seed: int = 0, **options: Any) -> Dataset:
        """Draw n prompts, log them, and build the dataset."""
        return build_dataset(self.log(n, seed, **options), self.ladder.names)


# What a small model says when it is wrong, four times out of five; else it is as smooth as ever.
POOR = ("I am not sure, perhaps it is 7.", "Maybe 3 + 4 = 8, but that seems wrong.", "It could possibly be anything.")


def answered(log: Sequence[Interaction], rng: Generator, *, tell: float = 0.8) -> list[Interaction]:
    """Return a log with answers: good ones are plain, of poor ones the share `tell` gives itself away."""
    return [
        item.model_copy(update={"attempts": tuple(_with_answer(one, rng, tell) for one in item.attempts)})
        for item in log
    ]


def _with_answer(attempt: Attempt, rng: Generator, tell: float) -> Attempt:
    poor = not attempt.verdicts[0].adequate and rng.random() < tell
    words = " ".join(rng.choice(FILLERS, 8).tolist())
    text = f"{POOR[int(rng.integers(len(POOR)))]} {words}" if poor else f"The answer is 7. {words}"
    return attempt.model_copy(update={"response": text, "finish_reason": "stop"})


@pytest.fixture(name="answered", scope="session")
def _answered() -> Callable[..., list[Interaction]]:
    return answered


@pytest.fixture(scope="session")
def config() -> str:
    """Return a router.toml with the tiers of the world, for commands that run in its folder."""
    return CONFIG


@pytest.fixture(scope="session")
def judged_world(world: World) -> Dataset:
    """600 rows of which both tiers' answers and outcomes are known."""
    rng = np.random.default_rng(5)
    return build_dataset(answered(world.log(600, 5), rng), world.ladder.names)


@pytest.fixture(scope="session")
def chances(world: World) -> Callable[[Dataset], np.ndarray]:
    """Return what an honest prompt model would say: the world's own chances, (n, 2), by the marker of each row."""

    def of(data: Dataset) -> np.ndarray:
        level = world.draw(len(data), np.random.default_rng(5)).difficulty
        return np.stack([world.p_small[level], world.p_large[level]], axis=1)

    return of


@pytest.fixture(scope="session")
def world() -> World:
    """A two-tier world whose truth is known."""
    return World(Ladder.of(TIERS), MARKERS, P_SMALL, P_LARGE, P_LARGE_IF_FAILED, SLIP, draw, log_of)


@pytest.fixture(scope="session")
def trained_run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on 400 rows, its bundle on a shelf of its own; nothing may change it."""
    shelf = Shelf(tmp_path_factory.mktemp("models"))
    settings = TrainingSettings(learners=("constant", "linear"), seed=3)
    now = datetime(2026, 2, 1, tzinfo=UTC)
    data = world.dataset(400, policy="chain")
    return train_bundle(data, world.ladder, settings, shelf, quality=0.97, now=now, description="400 made up")


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database, empty: making one takes it many seconds, copying one does not."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with connected(MlflowSettings(tracking_uri=f"sqlite:///{file}")) as mlflow:
        mlflow.search_experiments()
    return file


@pytest.fixture
def mlflow_local(mlflow_database: Path, tmp_path: Path) -> MlflowSettings:
    """MLflow in a folder of the test: a database of its own, artifacts beside it."""
    shutil.copyfile(mlflow_database, tmp_path / "mlflow.db")
    return MlflowSettings(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifacts=str(tmp_path / "artifacts"))


@pytest.fixture(scope="session")
def mlflow_server(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server, which the tests share: each takes an experiment and a model name of its own."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow_server"), mlflow_database)
    try:
        yield server.start()
    finally:
        server.stop()
