"""Newton's method: the minimum of the penalised loss, whatever the columns are and wherever it starts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize as by_scipy
from scipy.sparse import csr_array
from scipy.special import expit

from router_ml_training.learners.newton import ROUGHLY, TOLERANCE, Blocks, Loss, minimise


def blocks(n: int, rng: np.random.Generator) -> tuple[np.ndarray, csr_array, np.ndarray]:
    """Two dense blocks with a sparse one between them; half of its columns are empty."""
    sparse = (rng.random((n, 30)) < 0.2) * rng.random((n, 30))
    sparse[:, ::2] = 0.0
    return rng.normal(size=(n, 2)), csr_array(sparse.astype(np.float32)), rng.normal(size=(n, 3)) * 5.0


def loss(n: int = 200, seed: int = 0) -> tuple[Loss, np.ndarray]:
    rng = np.random.default_rng(seed)
    first, sparse, last = blocks(n, rng)
    whole = np.hstack((first, sparse.toarray(), last))
    target = np.clip(expit(whole @ rng.normal(size=35)) + rng.normal(size=n) * 0.2, 0.0, 1.0)
    return Loss(Blocks.of((first, sparse, last)), target, rng.random(n) * 3.0), whole


def test_columns_give_the_products_of_the_whole_matrix() -> None:
    problem, whole = loss()
    columns, rng = problem.columns, np.random.default_rng(1)
    assert isinstance(columns, Blocks)
    assert columns.width == 20
    v, r = rng.normal(size=20), rng.normal(size=200)
    apart = columns.apart(v)
    assert [len(one) for one in apart] == [2, 30, 3]
    np.testing.assert_allclose(columns.forward(v), whole @ np.concatenate(apart), rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(columns.apart(columns.back(r))), whole.T @ r, atol=1e-5)
    np.testing.assert_array_equal(columns.joined(apart), v)
    mask = r > 0
    assert columns.rows(mask).height == mask.sum()
    np.testing.assert_allclose(columns.rows(mask).forward(v), columns.forward(v)[mask])


def test_it_ends_where_the_gradient_is_zero() -> None:
    problem, whole = loss()
    assert isinstance(problem.columns, Blocks)
    found = minimise(problem, tolerance=1e-9)
    w = np.concatenate(problem.columns.apart(found))

    def value(w: np.ndarray) -> float:
        z = whole @ w
        return float(problem.weight @ (np.logaddexp(0, z) - problem.target * z) + 0.5 * w @ w)

    slope = w + whole.T @ (problem.weight * (expit(whole @ w) - problem.target))
    np.testing.assert_allclose(slope, 0.0, atol=1e-5)
    assert value(w) == pytest.approx(by_scipy(value, np.zeros(35)).fun, rel=1e-6)


def test_the_tolerance_is_kept_and_the_start_does_not_matter() -> None:
    problem, _ = loss()
    at_zero = np.linalg.norm(problem.slope(np.zeros(20), np.full(200, 0.5)))
    starts = (None, np.full(20, 2.0), minimise(problem, tolerance=ROUGHLY))
    for start in starts:
        found = minimise(problem, start)
        left = problem.slope(found, expit(problem.columns.forward(found)))
        assert np.linalg.norm(left) <= TOLERANCE * at_zero
    np.testing.assert_array_equal(starts[1], np.full(20, 2.0))


def test_separable_rows_and_hardly_any_rows_have_a_minimum_too() -> None:
    x = np.array([[-100.0], [100.0]])
    found = minimise(Loss(Blocks.of((x,)), np.array([0.0, 1.0]), np.full(2, 1e6)))
    assert 0.0 < found[0] < 1.0
    even = Loss(Blocks.of((np.array([[1.0], [-1.0]]),)), np.full(2, 0.5), np.ones(2))
    np.testing.assert_array_equal(minimise(even, np.ones(1)), [0.0])
    nothing = minimise(Loss(Blocks.of((np.zeros((1, 2)),)), np.ones(1), np.ones(1)))
    np.testing.assert_array_equal(nothing, np.zeros(2))
