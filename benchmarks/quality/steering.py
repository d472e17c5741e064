"""Protocol "steering": how often prompts that are written to steer the router do, and what that costs.

Two bundles are attacked at quality 0.97: a linear one that learned from the train rows of A's first split, and the
default one. The prompts are test rows of that split that neither has learned from. A flip is a decision whose first
tier is another one than without the attack: "down" a cheaper, "up" a dearer one. What flips cost comes from the
outcomes in the table, as shares of what the large tier alone is worth and costs: an attack is taken to change the
question's form and not what the tiers make of it. A third bundle learned with the task as metadata and is lied to.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.quality.attacks import ATTACKS, Attack, lying_feature, with_words
from benchmarks.quality.protocols import PROTOCOLS, Protocol, Rows, ladder_of, load, read, splits
from benchmarks.quality.result import Result, row_of
from benchmarks.quality.steering_effects import QUALITY, Effect, Looks, decided, effect_of, looks_of, router_of
from benchmarks.quality.steering_words import Steering, search, vocabulary
from benchmarks.results_file import Row
from router_ml.bundle import Bundle, ManifestDraft, TrainedOn, default_bundle_path, load_bundle, write_bundle
from router_ml.cli.output import table
from router_ml.features import text_of
from router_ml.router import Router
from router_ml.schema import Request
from router_ml_training.default_bundle import PUBLIC, public_tables
from router_ml_training.evaluation.bootstrap import mean_figure
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.learning import learn
from router_ml_training.settings import TrainingSettings
from router_ml_training.simulate.outcomes import START, OutcomeTable

__all__ = ["run"]

_PROMPTS, _PROBES = 400, 6
_WORDS, _MOST_WORDS, _TRIED = 2, 8, 100
_SETTINGS = TrainingSettings(learners=("linear",), tune_share=0.1, test_share=0.01, certify_share=0.0)


@dataclass(frozen=True, slots=True)
class _Target:
    """A router under attack, the requests it is asked, and the words that steer it (None: not searched for)."""

    name: str
    router: Router
    outcomes: OutcomeTable
    steering: Steering | None = None

    @property
    def requests(self) -> list[Request]:
        return self.outcomes.requests


@dataclass(frozen=True, slots=True)
class _Found:
    """What was measured on one target: its effects, the share that the large tier answers, and words needed to flip."""

    target: _Target
    large: Figure
    effects: Sequence[Effect]
    needed: Mapping[str, NDArray[np.int64]]


def run(folder: Path, *, draws: int = 1000) -> Result:
    """Attack the bundles.

    Raises:
        DataError: When a table is missing.
    """
    started = time.monotonic()
    found = []
    for target, attacks in _targets(folder):
        print(f"steering: {target.name}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        found.append(_measured(target, attacks, draws))
    return Result(("steering",), _text(found), tuple(row for one in found for row in _rows(one)))


def _targets(folder: Path) -> list[tuple[_Target, Mapping[str, Attack]]]:
    plain, told = PROTOCOLS["A"], PROTOCOLS["A2"]
    outcomes = load(plain, folder)
    linear, train, test = _trained(plain, folder)
    used = set(public_tables(folder, PUBLIC[:1])[0].prompt_ids)
    unseen = np.array([row for row in test if outcomes.prompt_ids[row] not in used], np.int64)
    rows = np.random.default_rng(0).permutation(unseen)[:_PROMPTS]
    asked = outcomes.take(rows)
    lessons = [outcomes.requests[row] for row in train]
    words, probes = vocabulary(text_of(one.messages[-1].get("content")) for one in lessons), lessons[:_PROBES]
    knows_task, _, _ = _trained(told, folder)
    with_task = load(told, folder)
    easy, hard = _tasks(with_task.take(train))
    lies = {f"feature of {kind} requests": lying_feature(name) for kind, name in (("easy", easy), ("difficult", hard))}
    default = load_bundle(default_bundle_path())
    return [
        (_Target("linear", router_of(linear), asked, search(linear, words, probes)), ATTACKS),
        (_Target("default", router_of(default), asked, search(default, words, probes)), ATTACKS),
        (_Target("linear with task", router_of(knows_task), with_task.take(rows)), lies),
    ]


def _trained(protocol: Protocol, folder: Path) -> tuple[Bundle, Rows, Rows]:
    """Return a linear bundle of a protocol's first split, and the train and test rows of that."""
    whole = read(protocol, folder)
    split = next(splits(protocol, whole))
    trained = learn(whole.dataset.rows(split.train), ladder_of(protocol, folder), _SETTINGS)
    about = TrainedOn(digest=whole.dataset.digest, n_interactions=len(split.train), description=protocol.title)
    draft = ManifestDraft(version="linear", created=START, trained_on=about, learner=trained.learner)
    with tempfile.TemporaryDirectory() as shelf:
        bundle = load_bundle(write_bundle(Path(shelf), manifest=draft, policy=trained.policy, model=trained.graph))
    return bundle, split.train, split.test


def _tasks(lessons: OutcomeTable) -> tuple[str, str]:
    """Return the tasks on which the large tier is worth least and most more than the small one."""
    gap = lessons.quality[:, -1] - lessons.quality[:, 0]
    names = np.array([request.feature for request in lessons.requests])
    gaps = {str(name): float(gap[names == name].mean()) for name in np.unique(names)}
    return min(gaps, key=lambda name: gaps[name]), max(gaps, key=lambda name: gaps[name])


def _measured(target: _Target, attacks: Mapping[str, Attack], draws: int) -> _Found:
    before = looks_of(target.router, target.requests)
    attacked = {name: _each(target.requests, attack) for name, attack in attacks.items()}
    needed = {}
    if target.steering is not None:
        attacked |= _worded(target.requests, target.steering)
        needed = {wanted: _needed(target, target.steering, before, wanted) for wanted in target.router.ladder.names}
    quality, cost = target.outcomes.quality, target.outcomes.cost_usd
    effects = [
        effect_of(name, before, looks_of(target.router, requests), quality, cost, draws=draws)
        for name, requests in attacked.items()
    ]
    large = mean_figure(before.tier == quality.shape[1] - 1, rng=np.random.default_rng(0), draws=draws)
    return _Found(target, large, effects, needed)


def _each(requests: Sequence[Request], attack: Attack) -> list[Request]:
    return [attack(request, np.random.default_rng(i)) for i, request in enumerate(requests)]


def _worded(requests: Sequence[Request], steering: Steering) -> dict[str, list[Request]]:
    def chosen(request: Request, *, lower: bool) -> Request:
        return with_words(request, steering.words(request, _WORDS, lower=lower))

    def random(request: Request, rng: Generator) -> Request:
        return with_words(request, [steering.every[i] for i in rng.integers(len(steering.every), size=_WORDS)])

    return {
        "two random words": _each(requests, random),
        "two chosen words, small": [chosen(request, lower=True) for request in requests],
        "two chosen words, large": [chosen(request, lower=False) for request in requests],
    }


def _needed(target: _Target, steering: Steering, before: Looks, wanted: str) -> NDArray[np.int64]:
    """Return how many chosen words it takes to get the wanted tier, for requests that have the other one.

    Where `_MOST_WORDS` are not enough it is one more than these.
    """
    counts = []
    index = target.router.ladder.index(wanted)
    others = [one for one, tier in zip(target.requests, before.tier, strict=True) if tier != index]
    for request in others[:_TRIED]:
        words = steering.words(request, _MOST_WORDS, lower=index == 0)
        flips = (
            decided(target.router, with_words(request, words[:k])).tier == wanted for k in range(1, len(words) + 1)
        )
        counts.append(next((k for k, flipped in enumerate(flips, start=1) if flipped), _MOST_WORDS + 1))
    return np.array(counts, np.int64)


def _rows(found: _Found) -> list[Row]:
    name, n = found.target.name, len(found.target.requests)
    rows = [row_of("steering", f"{name}: answered by large, not attacked", found.large, n)]
    for effect in found.effects:
        rows += [
            row_of("steering", f"{name}: {effect.attack}: {metric}", figure, n, better="lower")
            for metric, figure in effect.figures.items()
        ]
    for wanted, counts in found.needed.items():
        for metric, figure in _needed_figures(counts).items():
            rows.append(row_of("steering", f"{name}: {metric} {wanted}", figure, len(counts)))
    return rows


def _needed_figures(counts: NDArray[np.int64]) -> dict[str, Figure]:
    if not len(counts):
        return {}
    median = float(np.median(counts))
    return {
        "two chosen words suffice for": mean_figure(counts <= _WORDS, rng=np.random.default_rng(0)),
        "chosen words needed, median, for": Figure(median if median <= _MOST_WORDS else None),
    }


def _text(found: Sequence[_Found]) -> str:
    title = f"steering: prompts written to steer, quality {QUALITY}; shares of decisions that flip, and what flips cost"
    return "\n\n".join((title, *(_table(one) for one in found)))


def _table(found: _Found) -> str:
    headers = ("attack", "down", "95 %", "up", "95 %", "change of P", "quality lost", "cost added")
    cells = [
        (
            one.attack,
            *_share(one.down),
            *_share(one.up),
            *(f"{x.value or 0.0:.3f}" for x in (one.moved, one.quality_lost, one.cost_added)),
        )
        for one in found.effects
    ]
    words = [_words_text(wanted, counts) for wanted, counts in found.needed.items()]
    large, n = found.large.value or 0.0, len(found.target.requests)
    return "\n".join(
        (f"{found.target.name}: {n} prompts, large answers {large:.1%} of them", table(headers, cells), *words)
    )


def _words_text(wanted: str, counts: NDArray[np.int64]) -> str:
    median = np.median(counts) if len(counts) else np.nan
    needed = f"median {median:g}" if median <= _MOST_WORDS else f"median above {_MOST_WORDS}"
    enough = f"{(counts <= _WORDS).sum()} of {len(counts)}"
    return f"to {wanted}: two chosen words suffice for {enough} prompts that have the other tier; {needed}"


def _share(figure: Figure) -> tuple[str, str]:
    return f"{figure.value or 0.0:.1%}", f"{figure.low or 0.0:.1%} to {figure.high or 0.0:.1%}"
