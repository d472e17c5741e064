"""The score card: each rule reads one column, and its points are the difference they make."""

from __future__ import annotations

from typing import Any

import numpy as np

from router_ml.features import DENSE_NAMES, featurize
from router_ml.schema import Request
from router_ml_training.encoder import fit_encoder
from router_ml_training.learners import keywords
from router_ml_training.learners.keywords import RULES, KeywordHead
from router_ml_training.learners.protocol import Fit


def holding(prompt: str) -> set[str]:
    dense = featurize(Request(messages=({"role": "user", "content": prompt},))).dense
    return {text for text, column, threshold in RULES if dense[DENSE_NAMES.index(column)] > np.float32(threshold)}


def test_rules_say_what_a_reader_would_say() -> None:
    assert holding("hello") == set()
    assert "contains a code block" in holding("Why does this fail?\n```\nimport os\n```")
    assert "asks to reason" in holding("Prove that there are infinitely many primes.")
    assert {"holds numbers", "holds many numbers"} <= holding("12 34 56 78")
    assert "longer than 300 characters" in holding("word " * 80)
    assert "longer than 1,000 characters" not in holding("word " * 80)


def test_a_rule_that_decides_gets_the_points(world: Any) -> None:
    data = world.dataset(600)
    design = fit_encoder(data, curved=False, latent=False).encode(data)
    flags = keywords._flags(design)
    rule = int(np.abs(flags.mean(axis=0) - 0.5).argmin())
    fit = Fit(design, flags[:, rule].astype(float), np.ones(600), data.group, seed=0)
    head = keywords.learn(fit)
    assert isinstance(head, KeywordHead)
    assert int(np.abs(head.points).argmax()) == rule
    assert head.points[rule] > 2
