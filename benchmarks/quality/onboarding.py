"""Protocol L: the middle tier of G joins a trained pair with 300 labelled prompts, instead of a full retraining.

Small and large are learned from every training row. The middle tier's head is fitted on the outcomes of 300 prompts
drawn from the training rows, which the pair's heads have seen: its input are their scores as the bundle gives them. The
share kept is the gain in CS(0.97) over the pair's router, which never calls the middle tier, divided by the gain of a
full retraining on all rows. One learner, `linear`, on both sides: the others take longer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.figures import AIQ, CS97, Drawn, Panel, Swept, figure, figures, gain, random_saving, reference
from benchmarks.quality.protocols import PROTOCOLS, Rows, Split, Table, ladder_of, read, splits
from benchmarks.quality.result import Result, row_of
from benchmarks.results_file import Row, goal_text
from router_ml.cli.output import table as text_table
from router_ml.ladder import Ladder
from router_ml_training.encoder import fit_encoder
from router_ml_training.evaluation.baselines import oracle_sweep
from router_ml_training.evaluation.curves import Sweep, price_sweep
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.frontier import expected_cost
from router_ml_training.learners import LEARNERS
from router_ml_training.onboarding import Answers, cross_fit, fit_head, fit_lengths
from router_ml_training.splits import group_folds
from router_ml_training.tasks import cross_fit_adequacy
from router_ml_training.tokens import fit_tokens

__all__ = ["run"]

F64: TypeAlias = NDArray[np.float64]

MUST, AIM = 0.85, 0.95
N_LABELS, N_DRAWS = 300, 5
_LEARNER = "linear"
_FOLDS = 4
PAIR, FULL, ORACLE = "small and large", "full retraining", "oracle"
NEW, MEAN = "300 labels", "300 labels, mean only"
_NEW_TIER, _KNOWN = 1, np.array([0, 2])


@dataclass(frozen=True, slots=True)
class _Fold:
    """Adequacy (m, 3) and expected cost (m, 3) of the test rows of one fold, by router."""

    test: Rows
    scores: Mapping[str, tuple[F64, F64]]


def run(folder: Path, *, draws: int = 1000) -> Result:
    """Add the middle tier with few labels, five times, and compare with the pair and with full retraining."""
    protocol, started = PROTOCOLS["G"], time.monotonic()
    ladder, table = ladder_of(protocol, folder), read(protocol, folder)
    folds = []
    for number, split in enumerate(splits(protocol, table), start=1):
        folds.append(_fold(table, split, ladder))
        sys.stderr.write(f"L: fold {number}, {time.monotonic() - started:.0f} s\n")
    panel = _panel(table, folds)
    drawn = figures(table.dataset, [panel], draws=draws)
    return _result(panel, drawn)


def _fold(table: Table, split: Split, ladder: Ladder) -> _Fold:
    train, test = table.dataset.rows(split.train), table.dataset.rows(split.test)
    encoder = fit_encoder(train)
    fold = group_folds(train.group, _FOLDS, np.random.default_rng(0))
    # The heads of the tiers are fitted one by one: those of the pair are those of the full model.
    model, _ = cross_fit_adequacy(train, fold, encoder, LEARNERS.load(_LEARNER), seed=0)
    tokens = fit_tokens(train, encoder)
    design = encoder.encode(test)
    adequacy, lengths = model.predict(design), tokens.predict(design)
    scores = {FULL: (adequacy, expected_cost(test, lengths, ladder))}
    for draw in range(N_DRAWS):
        rows = train.rows(np.random.default_rng(draw).permutation(len(train))[:N_LABELS])
        seen = encoder.encode(rows)
        answers = Answers(
            model.predict(seen)[:, _KNOWN],
            rows.quality[:, _KNOWN],
            rows.dense,
            rows.quality[:, _NEW_TIER],
            rows.group,
        )
        length = fit_lengths(rows.output_tokens[:, _NEW_TIER], tokens.predict(seen)[:, _KNOWN], 0)
        joined_lengths = lengths.copy()
        joined_lengths[:, _NEW_TIER] = lengths[:, _KNOWN[length.of]] * length.ratio
        cost = expected_cost(test, joined_lengths, ladder)
        learned = cross_fit(answers, seed=0).learned
        for name, wanted in ((NEW, learned), (MEAN, False)):
            joined = adequacy.copy()
            head = fit_head(answers, learned=wanted)
            joined[:, _NEW_TIER] = head.probability(adequacy[:, _KNOWN], test.dense)
            scores[_draw(name, draw)] = joined, cost
    return _Fold(split.test, scores)


def _panel(table: Table, folds: list[_Fold]) -> Panel:
    rows = np.concatenate([fold.test for fold in folds])
    outcomes = Outcomes(table.dataset.quality[rows], table.dataset.cost_usd[rows])
    swept = []
    for name in folds[0].scores:
        adequacy, cost = (np.concatenate([fold.scores[name][i] for fold in folds]) for i in (0, 1))
        swept.append(Swept(name, (CS97, AIQ), price_sweep(adequacy, cost, rng=np.random.default_rng(0))))
        if name == FULL:
            two = price_sweep(adequacy[:, _KNOWN], cost[:, _KNOWN], rng=np.random.default_rng(0))
            swept.append(Swept(PAIR, (CS97,), _among_all(two)))
    swept.append(Swept(ORACLE, (CS97, AIQ), oracle_sweep(outcomes, rng=np.random.default_rng(0))))
    return Panel(rows, outcomes, tuple(swept))


def _among_all(sweep: Sweep) -> Sweep:
    # A sweep of the pair, in columns of the whole ladder.
    return replace(sweep, start=_KNOWN[sweep.start], source=_KNOWN[sweep.source], target=_KNOWN[sweep.target])


def _result(panel: Panel, drawn: Mapping[tuple[str, str], Drawn]) -> Result:
    n = panel.outcomes.n
    pair, full = drawn[PAIR, CS97], drawn[FULL, CS97]
    saved = {name: _mean([drawn[_draw(name, draw), CS97] for draw in range(N_DRAWS)]) for name in (NEW, MEAN)}
    kept = {name: figure(_share(one, pair, full)) for name, one in saved.items()}
    facts = reference([panel])
    rows = [
        row_of("L", "share kept of the gain of full retraining", kept[NEW], n, must=MUST, aim=AIM),
        row_of("L", f"share kept by {MEAN}", kept[MEAN], n),
        *(row_of("L", f"{CS97} of {name}", figure(one), n) for name, one in _routers(drawn, saved).items()),
        row_of("L", f"{CS97} of random mix", Figure(random_saving([panel])), n),
        row_of("L", f"gain of {FULL} over {PAIR}", gain(full, pair), n),
        row_of("L", f"gain of {NEW} over {PAIR}", gain(saved[NEW], pair), n),
        row_of("L", f"{AIQ} of {FULL}", figure(drawn[FULL, AIQ]), n),
        row_of("L", f"{AIQ} of {NEW}", figure(_mean([drawn[_draw(NEW, d), AIQ] for d in range(N_DRAWS)])), n),
        *(row_of("L", f"share kept in draw {d}", _single(drawn, d), n) for d in range(N_DRAWS)),
        row_of("L", "quality gap g", Figure(facts["g"]), n),
        row_of("L", "cost ratio r", Figure(facts["r"]), n),
    ]
    return Result(("L",), _text(rows, n), tuple(rows))


def _routers(drawn: Mapping[tuple[str, str], Drawn], saved: Mapping[str, Drawn]) -> dict[str, Drawn]:
    return {
        PAIR: drawn[PAIR, CS97],
        **saved,
        FULL: drawn[FULL, CS97],
        ORACLE: drawn[ORACLE, CS97],
    }


def _single(drawn: Mapping[tuple[str, str], Drawn], draw: int) -> Figure:
    return Figure(_share(drawn[_draw(NEW, draw), CS97], drawn[PAIR, CS97], drawn[FULL, CS97]).value)


def _mean(several: list[Drawn]) -> Drawn:
    return Drawn(
        float(np.mean([one.value for one in several])),
        np.asarray(np.mean([one.draws for one in several], axis=0), np.float64),
    )


def _share(new: Drawn, pair: Drawn, full: Drawn) -> Drawn:
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (new.draws - pair.draws) / (full.draws - pair.draws)
    return Drawn((new.value - pair.value) / (full.value - pair.value), draws)


def _draw(name: str, draw: int) -> str:
    return f"{name} #{draw}"


def _text(rows: list[Row], n: int) -> str:
    cells = [(row.metric, *(None if x is None else f"{x:.3f}" for x in (row.value, row.low, row.high))) for row in rows]
    headline = rows[0]
    return "\n".join(
        (
            "L: onboarding on MMLU-Pro: the middle tier of G joins small and large with 300 labelled prompts",
            f"{n:,} test rows, {N_DRAWS} draws of {N_LABELS} prompts in each of 5 folds; learner {_LEARNER} throughout",
            "",
            text_table(("figure", "value", "low", "high"), cells),
            f"{headline.metric}: must {MUST:g}, aim {AIM:g}: {goal_text(headline)}",
        )
    )
