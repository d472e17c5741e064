"""One training run as a pure function: a dataset and settings in, a policy and its graph out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import PolicySpec
from router_ml.errors import DataError
from router_ml.ladder import Ladder
from router_ml.manifest import PriceUnit
from router_ml_training.candidates import Competition, compete
from router_ml_training.certification_evidence import can_certify
from router_ml_training.dataset import Dataset
from router_ml_training.export import ParityReport, check_parity, to_onnx
from router_ml_training.frontier import expected_cost, feature_bounds, solve_frontier
from router_ml_training.learners.boosting import Grow, grow_here
from router_ml_training.scored import Scored, reckoned_cost, score_with_models
from router_ml_training.settings import TrainingSettings
from router_ml_training.splits import Split, split_rows
from router_ml_training.tokens import TokenModel, cross_fit_tokens
from router_ml_training.verifier_training import Judge, learn_to_judge

__all__ = [
    "Fitted",
    "Progress",
    "SplitBy",
    "Trained",
    "export",
    "fit",
    "learn",
    "score",
    "split_log",
    "trained_from",
]

Progress: TypeAlias = Callable[[str], None]
SplitBy: TypeAlias = Literal["time", "group"]

# More rows would cost minutes and gigabytes, and gain less than the figures can show.
_TRAIN_ON, _MEASURE_ON = 120_000, 60_000


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: the competition, the models, the policy, the graph that passed its gate, the held-out rows.

    `certify` are the rows that nothing has touched; None where too little is known to prove anything. `judge` is the
    verifier, None where it did not earn its place.
    """

    ladder: Ladder
    split: Split
    split_by: SplitBy
    competition: Competition
    tokens: TokenModel
    policy: PolicySpec
    graph: bytes
    parity: ParityReport
    test: Scored
    certify: Scored | None = None
    judge: Judge | None = None

    @property
    def n_fitted(self) -> int:
        """How many rows the models were fitted on."""
        return len(self.competition.fitted)

    @property
    def n_solved(self) -> int:
        """How many rows with every tier's outcome the frontier's prices rest on."""
        return int(self.competition.held_out.complete.sum())

    @property
    def learner(self) -> str:
        """Name of the learner that was kept."""
        return self.competition.choice.name


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is learned from train and tune rows, before it is drawn as a graph.

    `judge` is the verifier, None where it did not earn its place.
    """

    competition: Competition
    tokens: TokenModel
    policy: PolicySpec
    judge: Judge | None


def learn(
    dataset: Dataset,
    ladder: Ladder,
    settings: TrainingSettings,
    *,
    price_unit: PriceUnit = "usd",
    tokens: TokenModel | None = None,
    progress: Progress = lambda _: None,
) -> Trained:
    """Split, fit all candidates, keep one, solve its policy, export it through the parity gate.

    Args:
        dataset: Everything that is known; its tiers are the ladder's.
        ladder: Prices.
        settings: Learners, shares of the splits, seed.
        price_unit: What the policy's shadow price is per; see `PolicySpec`.
        tokens: How long answers are expected to be; None: that is learned too.
        progress: Told what is being done, one short phrase at a time.

    Raises:
        DataError: When there is too little to learn from.
        ParityError: When the exported graph is not the trained model.
    """
    split, by = split_log(dataset, ladder, settings)
    train, tune, test = (dataset.rows(rows) for rows in (split.train, split.tune, split.test))
    fitted = fit(train, tune, ladder, settings, price_unit=price_unit, tokens=tokens, progress=progress)
    graph, parity = export(fitted, dataset, ladder, settings, progress=progress)
    aside = score(dataset.rows(split.certify), fitted, ladder) if len(split.certify) else None
    return trained_from(fitted, ladder, split, by, graph, parity, score(test, fitted, ladder), aside)


def trained_from(
    fitted: Fitted,
    ladder: Ladder,
    split: Split,
    split_by: SplitBy,
    graph: bytes,
    parity: ParityReport,
    test: Scored,
    certify: Scored | None,
) -> Trained:
    """Return a finished run from its parts."""
    return Trained(
        ladder,
        split,
        split_by,
        fitted.competition,
        fitted.tokens,
        fitted.policy,
        graph,
        parity,
        test,
        certify,
        fitted.judge,
    )


def split_log(dataset: Dataset, ladder: Ladder, settings: TrainingSettings) -> tuple[Split, SplitBy]:
    """Return which rows learn, tune, certify and test, and how they were told apart; words are not looked at.

    Args:
        dataset: Everything that is known; its tiers are the ladder's.
        ladder: The tiers to learn about.
        settings: Shares of the splits, seed.

    Raises:
        DataError: When there is too little to learn from.
    """
    if dataset.tiers != ladder.names:
        raise DataError(f"the dataset is about {', '.join(dataset.tiers)}, the ladder has {', '.join(ladder.names)}")
    by: SplitBy = "time" if dataset.dated else "group"
    split = _split(dataset, by, settings)
    _require_every_tier(dataset.quality[split.train], dataset.tiers)
    return split, by


def fit(
    train: Dataset,
    tune: Dataset,
    ladder: Ladder,
    settings: TrainingSettings,
    *,
    learners: Sequence[str] | None = None,
    refit: bool = False,
    price_unit: PriceUnit = "usd",
    tokens: TokenModel | None = None,
    grow: Grow = grow_here,
    progress: Progress = lambda _: None,
) -> Fitted:
    """Let learners compete, learn answer lengths and the verifier, solve the policy.

    Args:
        train: Rows to learn from, with words and answers.
        tune: Rows to calibrate, to choose and to solve the policy on.
        ladder: Prices.
        settings: Learners, seed, threads.
        learners: Who competes; None: those of the settings.
        refit: Who wins is known: they may be fitted more quickly, see `compete`.
        price_unit: What the policy's shadow price is per.
        tokens: How long answers are expected to be; None: that is learned too.
        grow: Where trees are grown.
        progress: Told what is being done.

    Raises:
        DataError: When no outcome is known on the tune rows.
        ParityError: When the exported verifier is not the trained one.
    """
    competition = compete(
        train,
        tune,
        settings.learners if learners is None else learners,
        seed=settings.seed,
        num_threads=settings.num_threads,
        refit=refit,
        on_start=lambda name: progress(f"fitting '{name}'"),
        grow=grow,
    )
    model = competition.winner
    fitted, held_out = competition.fitted, competition.held_out
    known = tokens is not None
    if tokens is None:
        tokens, lengths = cross_fit_tokens(fitted, model.encoder, seed=settings.seed, num_threads=settings.num_threads)
    if known or held_out is not fitted:
        lengths = tokens.predict(model.encoder.encode(held_out))
    progress("solving the policy")
    adequacy, cost = competition.adequacy[competition.choice.name], expected_cost(held_out, lengths, ladder)
    judged = Scored(held_out, adequacy, cost, spent_usd=reckoned_cost(held_out, ladder))
    if len(held_out.answers):
        progress("learning to judge answers")
    rng = np.random.default_rng(settings.seed)
    judge = learn_to_judge(judged, lengths, seed=settings.seed, num_threads=settings.num_threads, rng=rng)
    if judge is not None:
        judged = judge.on_held_out(judged)
    return Fitted(competition, tokens, _policy(fitted, judged, ladder, price_unit), judge)


def export(
    fitted: Fitted,
    replay: Dataset,
    ladder: Ladder,
    settings: TrainingSettings,
    *,
    progress: Progress = lambda _: None,
) -> tuple[bytes, ParityReport]:
    """Draw the fitted models as one graph, and replay rows through both.

    Args:
        fitted: What was learned.
        replay: Rows to replay, with words.
        ladder: Prices, to compare decisions.
        settings: Seed.
        progress: Told what is being done.

    Raises:
        ParityError: When the graph is not the trained model.
    """
    progress("exporting, with the parity gate")
    model = fitted.competition.winner
    graph = to_onnx(model, fitted.tokens)
    parity = check_parity(
        graph,
        model,
        fitted.tokens,
        replay,
        ladder=ladder,
        shadow_price=fitted.policy.shadow_price(0.97),
        price_unit=fitted.policy.price_unit,
        rng=np.random.default_rng(settings.seed),
    )
    return graph, parity


def score(rows: Dataset, fitted: Fitted, ladder: Ladder) -> Scored:
    """Return rows that nothing was learned from with what the fitted models say of them."""
    model, tokens, judge = fitted.competition.winner, fitted.tokens, fitted.judge
    scored = score_with_models(rows, model, tokens, ladder)
    return scored if judge is None else judge.on(scored, tokens.predict(model.encoder.encode(rows)))


def _split(dataset: Dataset, by: SplitBy, settings: TrainingSettings) -> Split:
    split = split_rows(
        dataset.group,
        dataset.ts,
        by=by,
        tune_share=settings.tune_share,
        test_share=settings.test_share,
        certify_share=settings.certify_share,
    )
    # Rows that could prove nothing are better learned from.
    aside = dataset.rows(split.certify)
    if not can_certify(aside, settings.certify_loss, settings.certify_confidence):
        split = split.without_certify()
    return split.at_most(_TRAIN_ON, _MEASURE_ON, np.random.default_rng(settings.seed))


def _policy(train: Dataset, tune: Scored, ladder: Ladder, unit: PriceUnit) -> PolicySpec:
    outcomes, rows = tune.outcomes()
    judged = tune.judged(unit)
    frontier = solve_frontier(
        tune.adequacy[rows],
        tune.cost_in(unit)[rows],
        outcomes,
        tune.dataset.group[rows],
        None if judged is None else judged.rows(rows),
    )
    return PolicySpec(
        tiers=ladder.tiers,
        best_tier=ladder.names[outcomes.best_tier],
        price_unit=unit,
        frontier=frontier,
        bounds=feature_bounds(train),
        plans=None if judged is None else judged.spec(),
    )


def _require_every_tier(quality: NDArray[np.float64], tiers: tuple[str, ...]) -> None:
    known = (~np.isnan(quality)).sum(axis=0)
    silent = [name for name, count in zip(tiers, known, strict=True) if count == 0]
    if silent:
        raise DataError(
            f"no outcome of {', '.join(silent)} is known in the {len(quality)} interactions kept for training: "
            "collect a longer log, or audit that tier"
        )
