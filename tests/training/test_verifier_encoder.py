"""Scaling of answer features: unknown values are told apart, odd columns switched off, chances cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router_ml.features.answer import N_ANSWER_TEXT_BUCKETS
from router_ml_training.dataset import Dataset
from router_ml_training.verifier_encoder import CLIP, fit_answer_encoder, logits_of


def test_known_columns_are_standardised_and_unknown_ones_marked(judged_world: Dataset) -> None:
    answers = judged_world.answers
    dense = answers.dense.copy()
    dense[:300, 4], dense[:, 5], dense[:, 6] = np.nan, np.nan, 3.0
    encoder = fit_answer_encoder(replace(answers, dense=dense))
    design = encoder.encode(replace(answers, dense=dense))
    assert np.isfinite(design.scaled).all()
    assert np.abs(design.scaled).max() <= CLIP
    assert design.missing[:300, 4].all()
    assert not design.missing[300:, 4].any()
    assert not design.scaled[:300, 4].any()
    assert not design.scaled[:, 5:7].any(), "never known, never different: switched off"
    varied = encoder.scale < 1e5
    assert np.abs(design.scaled[:, varied].mean(axis=0)).max() < 0.2


def test_a_text_has_length_one_and_metadata_its_own_weight(judged_world: Dataset) -> None:
    encoder = fit_answer_encoder(judged_world.answers)
    words = encoder.encode(judged_world.answers).words
    assert np.sqrt((words[:, :N_ANSWER_TEXT_BUCKETS] ** 2).sum(axis=1)) == pytest.approx(np.ones(600), abs=1e-5)
    part = encoder.encode(judged_world.answers).rows(np.array([3, 1]))
    assert len(part) == 2
    assert (part.words[[0]] != words[[3]]).nnz == 0


def test_log_odds_are_finite_for_every_chance() -> None:
    odds = logits_of(np.array([[0.0, 0.5, 1.0]]))
    assert odds[0, 1] == pytest.approx(0.0)
    assert odds[0, 0] == pytest.approx(-odds[0, 2], abs=1e-3)
    assert np.isfinite(odds).all()
