"""Blocks: rows as arrays, each by itself; several blocks are the dataset that one would be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from router_ml.errors import DataError
from router_ml_training.blocks import PER_ROW, BlockBuilder, RowBlock
from router_ml_training.dataset import build_dataset, facts_of


def block_of(items: Any, tiers: Any, **options: Any) -> RowBlock:
    builder = BlockBuilder(tiers, **options)
    for item in items:
        builder.add(item)
    assert len(builder) == len(items)
    return builder.built()


def test_facts_of_several_blocks_are_those_of_one_pass(world: Any) -> None:
    tiers = world.ladder.names
    items = world.log(20) + [item.model_copy(update={"id": f"x{item.id}", "mode": "live"}) for item in world.log(20, 1)]
    whole, facts = (
        build_dataset(items, tiers),
        facts_of([block_of(items[:13], tiers), block_of(items[13:], tiers)], tiers),
    )
    assert facts.digest == whole.digest
    for name in ("dense", "quality", "soft", "key", "group", "ts", "propensity", "cost_usd"):
        np.testing.assert_array_equal(getattr(facts, name), getattr(whole, name))
    assert facts.text.nnz == len(facts.answers) == 0


def test_an_empty_block_has_the_columns_of_any_other(world: Any) -> None:
    tiers = world.ladder.names
    empty, full = block_of([], tiers), block_of(world.log(5), tiers)
    assert (len(empty), len(full)) == (0, 5)
    for name in PER_ROW:
        one, other = getattr(empty, name), getattr(full, name)
        assert (one.dtype, one.shape[1:]) == (other.dtype, other.shape[1:]), name
    for name in ("quality", "opinions", "settled"):
        one, other = getattr(empty.evidence, name), getattr(full.evidence, name)
        assert (one.dtype, one.shape[1:]) == (other.dtype, other.shape[1:])
    assert empty.text.shape == (0, full.text.shape[1])
    assert facts_of([empty, full, empty], tiers).digest == build_dataset(world.log(5), tiers).digest
    with pytest.raises(DataError, match="holds no interaction"):
        facts_of([empty], tiers)


def test_rows_of_a_block_are_those_of_its_index(world: Any) -> None:
    full = block_of(world.log(6), world.ladder.names)
    some = full.of_rows(np.array([1, 4]))
    np.testing.assert_array_equal(some.key, full.key[[1, 4]])
    np.testing.assert_array_equal(some.evidence.quality, full.evidence.quality[[1, 4]])


def test_answers_above_the_ceiling_are_counted_and_not_looked_at(world: Any, answered: Any) -> None:
    items = answered(world.log(40), np.random.default_rng(0))
    every, half = block_of(items, world.ladder.names), block_of(items, world.ladder.names, ceiling=2**63)
    np.testing.assert_array_equal(every.material.rows, half.material.rows)
    assert len(every.material.answers) == len(every.material.rows) == 40
    assert half.material.answers.row.tolist() == np.flatnonzero(half.key < 0).tolist()
