"""Splits: a group lies on one side, no group that begins in the future is trained on, too few rows are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml.errors import DataError
from router_ml_training.splits import Split, group_folds, split_rows


def split(group: np.ndarray, ts: np.ndarray, by: str = "time", **shares: float) -> Split:
    shares = {"tune_share": 0.2, "test_share": 0.2, **shares}
    return split_rows(group, ts, by=by, **shares)  # type: ignore[arg-type]


def rows(n: int, n_groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = rng.integers(-(2**63), 2**63, n_groups)
    return names[rng.integers(0, n_groups, n)], rng.integers(0, n // 2, n).astype(float)


@settings(max_examples=40)
@given(st.integers(400, 800), st.integers(150, 400), st.sampled_from(["time", "group"]), st.integers(0, 999))
def test_every_row_has_one_side_and_so_has_every_group(n: int, n_groups: int, by: str, seed: int) -> None:
    group, ts = rows(n, n_groups, seed)
    parts = split(group, ts, by)
    every = np.concatenate((parts.train, parts.tune, parts.test))
    assert np.sort(every).tolist() == list(range(n))
    sides = [set(group[part].tolist()) for part in (parts.train, parts.tune, parts.test)]
    assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])


@settings(max_examples=40)
@given(st.integers(400, 800), st.integers(150, 400), st.integers(0, 999))
def test_by_time_no_group_is_trained_on_that_begins_after_the_test_begins(n: int, n_groups: int, seed: int) -> None:
    group, ts = rows(n, n_groups, seed)
    parts = split(group, ts)

    def starts(part: np.ndarray) -> list[float]:
        return [float(ts[group == one].min()) for one in set(group[part].tolist())]

    assert max(starts(parts.train)) <= min(starts(parts.tune))
    assert max(starts(parts.tune)) <= min(starts(parts.test))


def test_shares_are_those_of_the_groups() -> None:
    parts = split(np.arange(1000), np.arange(1000.0), tune_share=0.1, test_share=0.3)
    assert [len(part) for part in (parts.train, parts.tune, parts.test)] == [600, 100, 300]
    assert parts.test.tolist() == list(range(700, 1000))


def test_the_rows_of_the_certificate_lie_between_those_that_tune_and_those_that_test() -> None:
    parts = split(np.arange(1000), np.arange(1000.0), tune_share=0.1, test_share=0.3, certify_share=0.2)
    assert [len(part) for part in (parts.train, parts.tune, parts.certify, parts.test)] == [400, 100, 200, 300]
    assert parts.certify.tolist() == list(range(500, 700))
    folded = parts.without_certify()
    assert folded.tune.tolist() == list(range(400, 700))
    assert len(folded.certify) == 0
    assert folded.test.tolist() == parts.test.tolist()


def test_by_group_a_row_stays_where_it_was_when_the_log_grows() -> None:
    group, ts = rows(900, 500, 1)
    before, after = split(group[:400], ts[:400], "group"), split(group, ts[::-1], "group")
    for part in ("train", "tune", "test"):
        grown = getattr(after, part)
        assert getattr(before, part).tolist() == grown[grown < 400].tolist()
    assert len(after.test) == pytest.approx(180, abs=60)


def test_a_session_that_began_in_training_stays_there() -> None:
    group = np.concatenate((np.arange(200), [0]))
    parts = split(group, np.arange(201.0))
    assert 200 in parts.train


@pytest.mark.parametrize(("n", "n_groups"), [(40, 40), (500, 2), (20, 1), (0, 0)])
def test_too_few_rows_are_refused_with_their_numbers(n: int, n_groups: int) -> None:
    group = np.arange(n) % max(n_groups, 1)
    message = rf"{n} interactions in {n_groups} groups are too few to split \(\d+ train, \d+ tune, \d+ test rows"
    with pytest.raises(DataError, match=message):
        split(group, np.arange(float(n)))


def test_folds_keep_groups_together_and_are_of_about_one_size() -> None:
    group = np.arange(100) // 2
    folds = group_folds(group, 4, np.random.default_rng(0))
    assert all(len(set(folds[group == one])) == 1 for one in range(50))
    assert sorted(np.bincount(folds, minlength=4).tolist()) == [24, 24, 26, 26]
    assert folds.tolist() == group_folds(group, 4, np.random.default_rng(0)).tolist()


def test_parts_that_are_too_large_lose_rows_at_random_and_small_ones_stay():
    whole = Split(np.arange(100), np.arange(100, 130), np.arange(130, 140))
    thinned = whole.at_most(40, 20, np.random.default_rng(0))
    assert [len(part) for part in (thinned.train, thinned.tune, thinned.test, thinned.certify)] == [40, 20, 10, 0]
    assert np.isin(thinned.train, whole.train).all()
    assert (np.diff(thinned.train) > 0).all()
    assert thinned.train.max() > 60
    np.testing.assert_array_equal(thinned.test, whole.test)
