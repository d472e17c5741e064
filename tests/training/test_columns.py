"""Columns and bags: what is gathered row by row is what arrays built at once would hold."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from router_ml_training import columns
from router_ml_training.columns import Bags, Columns


@pytest.mark.parametrize("n", [1, 3, 4, 5, 9])
def test_columns_come_back_as_they_were_added(n, monkeypatch):
    monkeypatch.setattr(columns, "_PACKED", 4)
    rows = [(i, i / 2, np.array([i, np.nan]), np.array([i % 2 == 0, True]), [0.25, i]) for i in range(n)]
    gathered = Columns()
    for row in rows:
        gathered.add(*row)
    found = list(gathered.arrays())
    for column, values in zip(found, zip(*rows, strict=True), strict=True):
        np.testing.assert_array_equal(column, np.array(values))
    assert [column.dtype for column in found] == [np.int64, np.float64, np.float64, np.bool_, np.float64]


def test_no_row_gives_no_column():
    assert list(Columns().arrays()) == []


def test_rows_must_be_equally_wide():
    gathered = Columns()
    gathered.add(1, 2)
    gathered.add(1)
    with pytest.raises(ValueError, match="zip"):
        list(gathered.arrays())


def test_bags_are_the_rows_of_a_sparse_matrix():
    rng = np.random.default_rng(0)
    dense = (rng.random((50, 30)) < 0.2) * rng.random((50, 30)).astype(np.float32)
    dense[7] = 0.0
    bags = Bags()
    for row in dense:
        ids = row.nonzero()[0]
        bags.add(ids, row[ids])
    found = bags.matrix(30)
    assert isinstance(found, csr_array)
    assert (found.dtype, found.indices.dtype) == (np.float32, np.int32)
    assert found.has_sorted_indices
    np.testing.assert_array_equal(found.toarray(), dense)


def test_no_bag_is_a_matrix_without_rows():
    assert Bags().matrix(30).shape == (0, 30)
