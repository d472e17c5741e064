"""Slices of the traffic, by features alone."""

from __future__ import annotations

from typing import Any

from router_ml.features import DENSE_NAMES
from router_ml.schema import RequestBody
from router_ml_training.dataset import build_dataset
from router_ml_training.slices import SLICES, slices_of


def test_a_request_is_in_the_slices_that_its_features_say(world: Any) -> None:
    items = world.log(4)
    long = RequestBody(messages=({"role": "user", "content": "word " * 1000},))
    chinese = RequestBody(messages=({"role": "user", "content": "请把这段话翻译成英文" * 5},))
    wants_json = RequestBody(
        messages=({"role": "user", "content": "```python\nx = 1\n```"},), response_format={"type": "json_object"}
    )
    changed = [
        item.model_copy(update={"request": body})
        for item, body in zip(items, (items[0].request, long, chinese, wants_json), strict=True)
    ]
    found = {name: mask.tolist() for name, mask in slices_of(build_dataset(changed, world.ladder.names)).items()}
    assert found["short prompts"] == [True, False, True, True]
    assert found["long prompts"] == [False, True, False, False]
    assert found["Chinese or Japanese"] == [False, False, True, False]
    assert found["JSON answers"] == found["code"] == [False, False, False, True]
    assert "with tools" not in found  # nobody is in it


def test_every_slice_looks_at_columns_that_exist(world: Any) -> None:
    data = world.dataset(3)
    columns = {name: data.dense[:, i] for i, name in enumerate(DENSE_NAMES)}
    assert {len(rule(columns)) for rule in SLICES.values()} == {3}
