"""Logistic regression on graded targets: what scikit-learn finds on rows counted twice, whatever the blocks are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array, hstack
from sklearn.linear_model import LogisticRegression

from router_ml_training.learners import logistic as module
from router_ml_training.learners.logistic import logistic
from router_ml_training.learners.protocol import Fit


def problem(n: int, rng: np.random.Generator) -> tuple[tuple[csr_array, np.ndarray, np.ndarray], Fit]:
    words = csr_array((rng.random((n, 40)) < 0.1) * rng.random((n, 40)).astype(np.float32))
    dense = rng.normal(size=(n, 3)).astype(np.float32)
    dense[rng.random((n, 3)) < 0.3] = 0.0
    target = np.clip((dense[:, 0] > 0) * 1.0 + rng.choice([-1, 0, 0, 0.25, 1], n), 0.0, 1.0)
    fit = Fit(None, target, rng.random(n) + 0.5, np.arange(n), 0, 1)  # type: ignore[arg-type]  # the blocks are given
    return (words, dense, rng.normal(size=(n, 1))), fit


@pytest.mark.parametrize("sparse", [True, False])
def test_a_graded_target_counts_as_a_success_and_a_failure(sparse: bool) -> None:
    blocks, fit = problem(300, np.random.default_rng(0))
    blocks = blocks if sparse else (blocks[0].toarray(), *blocks[1:])
    found = logistic(blocks, fit, c=0.5)
    assert found is not None
    coefficients, intercept = found
    assert [len(part) for part in coefficients] == [40, 3, 1]
    whole = hstack([csr_array(block) for block in blocks], format="csr").toarray()
    success, failure = fit.target * fit.weight, (1 - fit.target) * fit.weight
    both = LogisticRegression(C=0.5, solver="liblinear", max_iter=200, tol=1e-8)
    labels = np.repeat([1, 0], len(fit.target))
    both.fit(np.vstack((whole, whole)), labels, sample_weight=np.concatenate((success, failure)))
    np.testing.assert_allclose(np.concatenate(coefficients), both.coef_[0], atol=2e-4)
    assert intercept == pytest.approx(float(both.intercept_[0]), abs=2e-4)


def test_one_side_alone_teaches_nothing() -> None:
    blocks, fit = problem(30, np.random.default_rng(2))
    for target in (np.ones(30), np.zeros(30)):
        alone = Fit(fit.design, target, fit.weight, fit.group, 0, 1)
        assert logistic(blocks, alone, c=0.5) is None


def test_a_long_problem_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 100)
    blocks, fit = problem(400, np.random.default_rng(3))
    chosen = module.sampled(400, 100, seed=0)
    some = Fit(fit.design, fit.target[chosen], fit.weight[chosen], fit.group[chosen], 0, 1)
    sampled, alone = logistic(blocks, fit, c=0.5), logistic(tuple(block[chosen] for block in blocks), some, c=0.5)
    assert sampled is not None
    assert alone is not None
    np.testing.assert_array_equal(np.concatenate(sampled[0]), np.concatenate(alone[0]))
