"""What the demo works on: a table of known outcomes, cut into a past log, live traffic and a held-out future."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from router_ml.errors import DataError
from router_ml.ladder import Ladder, Tier, price_of
from router_ml_training.simulate.outcomes import OutcomeTable
from router_ml_training.simulate.policies import LogOptions, simulate_log

__all__ = ["Parts", "config_text", "cut", "ladder_of", "write_history"]

I64: TypeAlias = NDArray[np.int64]

_FUTURE_SHARE = 0.2
_LIVE_SHARE = 0.15
_FEWEST = 100


@dataclass(frozen=True, slots=True)
class Parts:
    """The table in three: `history` was logged, `live` is sent through the service, `future` only measures."""

    history: OutcomeTable
    live: OutcomeTable
    future: OutcomeTable


def cut(table: OutcomeTable, n_live: int, *, by_time: bool, rng: np.random.Generator) -> Parts:
    """Cut a table by time, or by prompt at random where it has no times; the future has no prompt of the past.

    Args:
        table: Known outcomes of n prompts.
        n_live: Requests to send through the service, at most 15 % of the table.
        by_time: Whether the table's times mean something.
        rng: Draws the parts.

    Raises:
        DataError: With fewer than 100 prompts.
    """
    n = len(table)
    if n < _FEWEST:
        raise DataError(f"{n} prompts are too few for a demo: at least {_FEWEST} are needed")
    order = np.argsort(np.array([t.timestamp() for t in table.ts]), kind="stable") if by_time else rng.permutation(n)
    groups = table.group[order]
    n_future = round(n * _FUTURE_SHARE)
    n_live = min(n_live, int(n * _LIVE_SHARE))
    before, future = order[: n - n_future], order[n - n_future :]
    # An equal prompt on both sides would be measured on what was learned by heart.
    future = future[~np.isin(table.group[future], groups[: n - n_future])]
    return Parts(
        history=table.take(before[: len(before) - n_live]),
        live=table.take(before[len(before) - n_live :]),
        future=table.take(future),
    )


def ladder_of(table: OutcomeTable, base_urls: Mapping[str, str]) -> Ladder:
    """Return the table's tiers as a ladder, at catalogue prices or, for other models, at the prices its costs show.

    Args:
        table: Known outcomes, with tokens and costs.
        base_urls: Tier name to where it is served.
    """
    tiers = []
    for t, (name, model) in enumerate(zip(table.tiers, table.models, strict=True)):
        price = price_of(model)
        if price is None:
            per_token = _fitted_prices(table, t)
            prices = {"input_usd_per_mtok": per_token[0], "output_usd_per_mtok": per_token[1]}
        else:
            prices = price.model_dump(exclude_none=True)
        tiers.append(Tier(name=name, model=model, base_url=base_urls[name], **prices))
    return Ladder.of(tiers)


def write_history(table: OutcomeTable, policy: str, path: Path, *, audit_share: float, seed: int) -> Path:
    """Write what a logging policy would have left behind; "outcomes" writes the table itself.

    Returns:
        The file: JSON lines of interactions, or a Parquet table of outcomes.
    """
    if policy == "outcomes":
        target = path.with_suffix(".outcomes.parquet")
        table.frame.write_parquet(target)
        return target
    options = LogOptions(audit_share=audit_share, bar=_bar(table))
    with path.open("w", encoding="utf-8") as file:
        for interaction in simulate_log(table, policy, rng=np.random.default_rng(seed), options=options):
            file.write(interaction.to_json() + "\n")
    return path


def config_text(ladder: Ladder, *, directory: Path, quality: float, seed: int, learners: Sequence[str]) -> str:
    """Return the demo's router.toml; every path in it is absolute, so that it works from any folder."""
    home = directory.resolve().as_posix()
    tiers = "\n".join(
        f"""
[[tiers]]
name = "{tier.name}"
model = "{tier.model}"
base_url = "{tier.base_url}"
input_usd_per_mtok = {tier.input_usd_per_mtok!r}
output_usd_per_mtok = {tier.output_usd_per_mtok!r}"""
        for tier in ladder
    )
    names = ", ".join(f'"{name}"' for name in learners)
    return f"""# Written by `router-ml demo`, whose stand-in upstreams have ended since. Without them:
# router-ml route --config {home}/router.toml "Hello"
models_dir = "{home}/models"
{tiers}

[policy]
quality = {quality}

[exploration]
up = 0.02
audit = 0.1
shadow = 0.1

[store]
url = "sqlite:///{home}/router_ml.db"

[serving]
spill = "{home}/router_ml.spill.jsonl"
reload_s = 0.2
seed = {seed}

[training]
seed = {seed}
learners = [{names}]

[mlflow]
tracking_uri = "sqlite:///{home}/mlflow.db"
artifacts = "{home}/mlflow-artifacts"
experiment = "router-ml demo"
"""


def _bar(table: OutcomeTable) -> float:
    # Right or wrong needs no bar; grades count as adequate from 0.9 (a common choice for judged answers).
    graded = bool(((table.quality > 0) & (table.quality < 1)).any())
    return 0.9 if graded else 1.0


def _fitted_prices(table: OutcomeTable, t: int) -> tuple[float, float]:
    # USD per million tokens that explain the table's costs; exact when its costs came from such prices.
    tokens = np.column_stack((table.input_tokens[:, t], table.output_tokens[:, t])).astype(np.float64)
    found, _ = nnls(tokens, table.cost_usd[:, t] * 1e6)
    return round(float(found[0]), 6), round(float(found[1]), 6)
