"""The response-side model of a bundle: open its graph, check it, and ask what an answer says of every tier."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import BundleCorrupt, BundleMismatch
from router_ml.features.answer import ANSWER_NAMES, ANSWER_SCHEMA_HASH, AnswerFeatures
from router_ml.graph import GRAPH_ERRORS, first_line, open_graph

__all__ = ["VERIFIER_INPUTS", "VERIFIER_OUTPUT", "Verifier", "open_verifier"]

Doubles: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

VERIFIER_INPUTS = {
    "dense": "tensor(float)",
    "ids": "tensor(int64)",
    "counts": "tensor(float)",
    "adequacy": "tensor(float)",
    "tier": "tensor(int64)",
}
VERIFIER_OUTPUT = "posterior"


@dataclass(frozen=True)
class Verifier:
    """An opened and checked verifier for `n_tiers` tiers, in the order of the bundle's ladder."""

    session: Any  # onnxruntime ships no types
    n_tiers: int

    def posterior(self, features: AnswerFeatures, adequacy: Doubles, tier: int) -> Doubles:
        """Return what is thought of every tier once one has answered.

        Args:
            features: The answer's.
            adequacy: What was thought before the call, (K,).
            tier: Ladder position of the tier that answered.

        Returns:
            Probabilities (K,): column `tier` is that of this answer, later ones those of dearer tiers; earlier ones and
            all of them after the dearest tier's answer are what was thought before.
        """
        ids, counts = features.ids, features.counts
        if not len(ids):  # a reduction over no n-grams is undefined in some graphs; one that counts 0 is not
            ids, counts = np.zeros(1, np.int64), np.zeros(1, np.float32)
        who = np.array([tier], np.int64)
        one: Doubles = self.posterior_many(features.dense[None], ids[None], counts[None], adequacy[None], who)[0]
        return one

    def posterior_many(
        self, dense: NDArray[np.float32], ids: Ints, counts: NDArray[np.float32], adequacy: Doubles, tier: Ints
    ) -> Doubles:
        """Return the same for m answers, (m, K): `ids` and `counts` (m, L) padded with id 0 and weight 0, L at least 1.

        Args:
            dense: Columns of the answers, (m, A).
            ids: Buckets of their words.
            counts: Weights of those.
            adequacy: What was thought before the calls, (m, K).
            tier: Who answered, (m,).
        """
        feed = {"dense": dense, "ids": ids, "counts": counts, "adequacy": adequacy.astype(np.float32), "tier": tier}
        said: NDArray[np.float32] = self.session.run([VERIFIER_OUTPUT], feed)[0]
        posterior: Doubles = said.astype(np.float64)
        return posterior


def open_verifier(model: bytes, tiers: tuple[str, ...], where: str) -> Verifier:
    """Open a serialised verifier, check it, and let it judge an empty answer.

    Args:
        model: The graph.
        tiers: Tier names of the bundle's policy, cheapest first.
        where: File name for the message.

    Raises:
        BundleCorrupt: When it is not a graph that can be loaded and run.
        BundleMismatch: When it is for other features or other tiers, or gives no probabilities.
    """
    session = open_graph(model, where)
    _check(session, tiers, where)
    verifier = Verifier(session, len(tiers))
    nothing = AnswerFeatures(np.zeros(len(ANSWER_NAMES), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    try:
        said = verifier.posterior(nothing, np.full(len(tiers), 0.5), 0)
    except GRAPH_ERRORS as error:
        raise BundleCorrupt(f"{where}: {first_line(error)}; export the bundle again") from error
    if said.shape != (len(tiers),) or not ((said >= 0.0) & (said <= 1.0)).all():
        raise BundleMismatch(
            f"{where}: says {said.tolist()} of an empty answer, expected {len(tiers)} probabilities; "
            "train the bundle again"
        )
    return verifier


def _check(session: Any, tiers: tuple[str, ...], where: str) -> None:
    inputs = {node.name: node.type for node in session.get_inputs()}
    outputs = {node.name: node.type for node in session.get_outputs()}
    if inputs != VERIFIER_INPUTS or outputs != {VERIFIER_OUTPUT: "tensor(float)"}:
        raise BundleMismatch(
            f"{where}: expected the inputs {', '.join(VERIFIER_INPUTS)} and the output {VERIFIER_OUTPUT}, got "
            f"{', '.join(inputs)} and {', '.join(outputs)}; export the bundle again"
        )
    written = session.get_modelmeta().custom_metadata_map
    schema = written.get("answer_schema_hash")
    if schema != ANSWER_SCHEMA_HASH:
        raise BundleMismatch(
            f"{where}: made for answer features {schema!r}, this release has {ANSWER_SCHEMA_HASH!r}; "
            "train the bundle again with this release, or run the release it was made with"
        )
    if written.get("tiers") != json.dumps(list(tiers)):
        raise BundleMismatch(f"{where}: made for the tiers {written.get('tiers')}, policy.json has {list(tiers)}")
