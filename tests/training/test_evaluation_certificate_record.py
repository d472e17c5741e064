"""The record of an attempt to certify: plain JSON with or without a certificate, and what is pinned."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np

from router_ml_training.evaluation.certificate import Candidate, certify
from router_ml_training.evaluation.certificate_record import Beside, Certification
from router_ml_training.evaluation.certificate_slices import SliceResult
from router_ml_training.evaluation.outcomes import Outcomes

BESIDE = Beside(gap=0.2, cost_ratio=0.1, mix_kept=0.9, oracle_saving=0.8, vacuous=None)
SLICES = (
    SliceResult("code", 300, 300, 0.01, 0.9, "certified", 0.01),
    SliceResult("short prompts", 300, 300, 0.2, 0.9, "not certified", 1.0),
    SliceResult("with tools", 3, 3, 0.0, 0.9, "too few"),
)


def test_a_certificate_is_written_down_with_what_it_is_read_beside() -> None:
    known = Outcomes(np.ones((300, 2)), np.tile([1.0, 10.0], (300, 1)), best=1)
    small = Candidate(0.97, 2.0, known.quality[:, 0], known.cost[:, 0])
    now, rng = datetime(2026, 3, 1, tzinfo=UTC), np.random.default_rng(0)
    found = certify(known, [small], tiers=("small", "large"), date=now, rng=rng, draws=20)
    record = Certification(found, None, 320, 300, "large", BESIDE, SLICES).to_dict()
    assert record == json.loads(json.dumps(record, allow_nan=False))
    assert record["beside"] == {
        "gap": 0.2,
        "cost_ratio": 0.1,
        "mix_kept": 0.9,
        "oracle_saving": 0.8,
        "vacuous": None,
    }
    assert record["evidence"] == "pairs"
    assert record["pinned"] == ["short prompts"]  # too few to tell is no verdict
    assert (record["n_set_aside"], record["n_known"], record["quality"]) == (320, 300, 0.97)


def test_it_says_whose_word_the_outcomes_are() -> None:
    def said(settled: float | None) -> str:
        return Certification(None, "why", 50, 3, "large", settled=settled).labels

    assert said(None) == ""
    assert said(1.0) == "People or checks judged 100 % of the outcomes."
    assert said(0.25).startswith("People or checks judged 25 % of the outcomes; the rest are the word of users")


def test_a_saving_that_is_only_rounding_is_none() -> None:
    known = Outcomes(np.ones((300, 2)), np.tile([1.0, 10.0], (300, 1)), best=1)
    same = Candidate(0.97, 2.0, known.quality[:, 1], known.cost[:, 1] * (1 - 1e-12))
    now, rng = datetime(2026, 3, 1, tzinfo=UTC), np.random.default_rng(0)
    found = certify(known, [same], tiers=("small", "large"), date=now, rng=rng, draws=20)
    assert (found.index, found.beyond_constant) == (1, False)


def test_without_a_certificate_the_record_says_why() -> None:
    none = Certification(None, "too little is known", 50, 3, "large")
    record = none.to_dict()
    assert record["verdict"] == "No certificate, so nothing is proven about this policy: too little is known."
    assert (record["beyond_constant"], record["slices"], record["beside"]) == (False, [], None)
    assert none.figures()["certified_saving"].reason == "too little is known"
