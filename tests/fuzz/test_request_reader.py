"""The fuzz target, for a few seconds: hypothesis makes up what arrives, from nonsense to almost right."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
_SPEC = importlib.util.spec_from_file_location("request_reader", HERE / "request_reader.py")
assert _SPEC is not None
assert _SPEC.loader is not None
reader = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reader)

SEEDS = reader.seeds()
WORDS = st.sampled_from(
    ["messages", "role", "user", "assistant", "content", "type", "text", "input", "tools", "tool_calls", "function",
     "name", "arguments", "system", "router", "quality", "metadata", "tenant", "model", "auto", "stream", "max_tokens",
     "tool_use", "tool_result", "image", "source", "input_text", "function_call", "call_id", "id", "output"]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | WORDS | st.text()
JSON = st.recursive(
    LEAVES,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), inside, max_size=5),
    max_leaves=12,
)
BOUNDED = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_the_seeds_are_read(seed: bytes) -> None:
    assert reader.one_input(seed) is (b'"user"' in seed or b'"input"' in seed)


@BOUNDED
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    reader.one_input(data)


@BOUNDED
@given(st.sampled_from([orjson.loads(seed) for seed in SEEDS[:3]]), st.dictionaries(WORDS, JSON, max_size=4))
def test_a_request_with_a_few_odd_fields_is_read_or_refused(body: dict[str, Any], odd: dict[str, Any]) -> None:
    reader.one_input(orjson.dumps({**body, **odd}))


@BOUNDED
@given(st.lists(JSON, min_size=1, max_size=3), st.lists(JSON, max_size=2))
def test_odd_turns_are_read_or_refused(turns: list[Any], tools: list[Any]) -> None:
    for name in ("messages", "input"):
        reader.one_input(orjson.dumps({name: turns, "tools": tools}))
        reader.one_input(orjson.dumps({name: [{"role": "user", "content": turns}], "system": turns}))


@BOUNDED
@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_mutated_requests_are_read_or_refused(data: bytes, seed: int) -> None:
    reader.one_input(reader.mutated(data, random.Random(seed), SEEDS))


def test_the_target_runs_by_itself() -> None:
    command = [sys.executable, str(HERE / "request_reader.py"), "--minutes", "0.02"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
