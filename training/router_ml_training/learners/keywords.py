"""Learner `keywords`: a score card of rules as teams write them by hand, the points learned.

Each rule looks at one dense column and asks whether it exceeds a threshold: code, mathematics, reasoning words, length
classes and the like. The points of the rules that hold are added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log1p
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.features import DENSE_NAMES
from router_ml_training.encoder import Design
from router_ml_training.learners import constant
from router_ml_training.learners.logistic import logistic
from router_ml_training.learners.protocol import Fit, Head
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["RULES", "KeywordHead", "learn"]

F64: TypeAlias = NDArray[np.float64]
F32: TypeAlias = NDArray[np.float32]

# What the rule says, the column it reads, and the value that the column must exceed.
RULES: tuple[tuple[str, str, float], ...] = (
    ("contains a code block", "text.log_code_fences", 0.0),
    ("speaks of code", "text.log_code_cues", log1p(1)),
    ("asks to reason", "text.log_reasoning_cues", 0.0),
    ("asks to reason, repeatedly", "text.log_reasoning_cues", log1p(2)),
    ("sets conditions", "text.log_constraint_cues", log1p(1)),
    ("sets many conditions", "text.log_constraint_cues", log1p(5)),
    ("asks to transform a text", "text.log_transform_cues", 0.0),
    ("speaks of law", "text.log_formal_cues", log1p(1)),
    ("holds numbers", "text.digit_share", 0.02),
    ("holds many numbers", "text.digit_share", 0.10),
    ("holds formulas", "text.operator_share", 0.02),
    ("holds commands or formulas with a backslash", "text.log_backslashes", 0.0),
    ("asks more than one question", "text.log_question_marks", log1p(1)),
    ("holds a list", "text.log_bullets", log1p(2)),
    ("longer than 100 characters", "text.log_chars", log1p(100)),
    ("longer than 300 characters", "text.log_chars", log1p(300)),
    ("longer than 1,000 characters", "text.log_chars", log1p(1_000)),
    ("longer than 4,000 characters", "text.log_chars", log1p(4_000)),
    ("a follow-up", "structure.is_follow_up", 0.5),
    ("a long conversation", "structure.log_user_turns", log1p(4)),
    ("offers tools", "structure.log_tools", 0.0),
    ("wants JSON", "structure.wants_json", 0.5),
    ("shows an image", "structure.log_images", 0.0),
)
_COLUMNS = np.array([DENSE_NAMES.index(column) for _, column, _ in RULES], np.int64)
_THRESHOLDS = np.array([threshold for _, _, threshold in RULES], np.float32)


@dataclass(frozen=True, slots=True)
class KeywordHead:
    """`points` (rules,) float32 are added where a rule holds."""

    points: F32
    intercept: float

    def logit(self, design: Design) -> F64:
        """Return the score, shape (n,)."""
        return _flags(design).astype(np.float64) @ self.points.astype(np.float64) + self.intercept

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add the comparisons, the product with the points, and the intercept."""
        columns = graph.add("Gather", "dense", graph.constant(_COLUMNS), axis=1)
        flags = graph.add("Cast", graph.add("Greater", columns, graph.constant(_THRESHOLDS)), to=1)
        points = graph.add("MatMul", flags, graph.constant(self.points[:, None]))
        return graph.add("Add", points, graph.scalar(self.intercept))


def learn(fit: Fit) -> Head:
    """Fit the points of all rules together."""
    found = logistic((_flags(fit.design),), fit, c=1.0)
    if found is None:
        return constant.learn(fit)
    (points,), intercept = found
    return KeywordHead(points.astype(np.float32), intercept)


def _flags(design: Design) -> F32:
    flags: F32 = (design.dense[:, _COLUMNS] > _THRESHOLDS).astype(np.float32)
    return flags
