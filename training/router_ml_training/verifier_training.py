"""The verifier's part of a training run: fit it, keep it only where it earns its place, export it through its gate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.scored import Scored
from router_ml_training.verifier import Verified, cross_fit_verifier, judge_answers
from router_ml_training.verifier_graph import check_verifier, verifier_to_onnx

__all__ = ["Judge", "learn_to_judge"]

F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judge:
    """A verifier that earned its place: what it learned, its graph, and how far the graph is from it."""

    verified: Verified
    graph: bytes
    max_difference: float

    def on_held_out(self, scored: Scored) -> Scored:
        """Return the rows it was learned on with what it says of their answers when they are held out."""
        return replace(scored, posterior=self.verified.by_row(len(scored.dataset)))

    def on(self, scored: Scored, output_tokens: F64) -> Scored:
        """Return rows that it has not seen with what it says of their answers.

        Args:
            scored: The rows, with the chances before the call.
            output_tokens: How long each tier's answer was expected to be, (n, K).
        """
        said = judge_answers(self.verified.model, scored.dataset, scored.adequacy, output_tokens)
        return replace(scored, posterior=said)


def learn_to_judge(
    held_out: Scored, output_tokens: F64, *, seed: int, num_threads: int, rng: np.random.Generator
) -> Judge | None:
    """Fit a verifier on rows whose chances before the call come from models that had not seen them.

    Args:
        held_out: The rows, with answers.
        output_tokens: How long each tier's answer was expected to be, (n, K).
        seed: For folds and trees.
        num_threads: Threads the trees may use.
        rng: Chooses what the parity gate replays.

    Returns:
        None when there are too few answers, or looking at them predicts no better, beyond one standard error, than
        what was thought before: answers are then judged by rules alone.

    Raises:
        ParityError: When the exported graph is not the trained verifier.
    """
    verified = cross_fit_verifier(
        held_out.dataset, held_out.adequacy, output_tokens, seed=seed, num_threads=num_threads
    )
    if verified is None or not verified.earned:
        return None
    graph = verifier_to_onnx(verified.model)
    before = held_out.adequacy[verified.answers.row]
    return Judge(verified, graph, check_verifier(graph, verified.model, verified.answers, before, rng))
