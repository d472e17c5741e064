"""Parts on disk: what is read is what was written, or nothing."""

from __future__ import annotations

import resource
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.errors import DataError
from router_ml_training.blocks import PER_ROW, BlockBuilder
from router_ml_training.corpus.parts import Part, Tally, key_of, let_go, read_part, write_part


@pytest.fixture
def part(world: Any, answered: Any) -> Part:
    builder = BlockBuilder(world.ladder.names, ceiling=2**63)
    for item in answered(world.log(20), np.random.default_rng(0)):
        builder.add(item)
    return Part(builder.built(), Tally(20, 2, "not JSON"), last=False)


def test_a_part_comes_back_as_it_was(part: Part, tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    write_part(path, part, "key")
    found = read_part(path, "key")
    assert found is not None
    assert (found.tally, found.last, key_of(path)) == (part.tally, False, "key")
    one, other = found.block, part.block
    assert (one.strata, one.material.ceiling) == (other.strata, other.material.ceiling)
    for name in PER_ROW:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for field in fields(one.evidence):
        np.testing.assert_array_equal(getattr(one.evidence, field.name), getattr(other.evidence, field.name))
    np.testing.assert_array_equal(one.material.rows, other.material.rows)
    np.testing.assert_array_equal(one.material.answers.dense, other.material.answers.dense)
    assert (one.text != other.text).nnz == (one.material.answers.text != other.material.answers.text).nnz == 0
    assert path.stat().st_mode & 0o077 == 0


def test_words_are_mapped_and_not_copied(part: Part, tmp_path: Path) -> None:
    write_part(tmp_path / "a.part", part, "key")
    found = read_part(tmp_path / "a.part", "key")
    assert found is not None
    assert not found.block.text.data.flags.writeable
    assert not found.block.text.data.flags.owndata


def test_a_limit_of_open_files_is_said_and_no_reason_to_make_a_part_again(part: Part, tmp_path: Path) -> None:
    write_part(tmp_path / "a.part", part, "key")
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 5, most))
    try:
        with pytest.raises(DataError, match="ulimit -n"):
            _ = [read_part(tmp_path / "a.part", "key") for _ in range(20)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


def test_an_empty_part_is_one_too(world: Any, tmp_path: Path) -> None:
    empty = Part(BlockBuilder(world.ladder.names).built(), Tally(0, 3, "no"), last=True)
    write_part(tmp_path / "a.part", empty, "key")
    found = read_part(tmp_path / "a.part", "key")
    assert found is not None
    assert (len(found.block), found.tally.rejected, found.last) == (0, 3, True)


def test_another_key_a_missing_file_and_any_damage_are_no_part(part: Part, tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    assert read_part(path, "key") is key_of(path) is None
    write_part(path, part, "key")
    assert read_part(path, "other") is None
    whole = path.read_bytes()
    for place in (0, 20, 50, 60, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_part(path, "key") is None, place
        path.write_bytes(whole[:place])
        assert read_part(path, "key") is None, place
    path.write_bytes(b"some other file")
    assert key_of(path) is None


def test_a_part_that_cannot_be_written_says_why(part: Part, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none/a\.part: this part of the log cannot be kept \(No such file"):
        write_part(tmp_path / "none" / "a.part", part, "key")


def test_a_block_that_was_let_go_reads_the_same_again(part: Part, tmp_path: Path) -> None:
    path = tmp_path / "one.part"
    write_part(path, part, "key")
    found = read_part(path, "key")
    assert found is not None
    before = [np.array(found.block.dense), np.array(found.block.text.data), np.array(found.block.key)]
    let_go(found.block)
    after = [found.block.dense, found.block.text.data, found.block.key]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not say what memory a file takes")
def test_a_block_that_was_let_go_takes_no_memory(part: Part, tmp_path: Path) -> None:
    path = tmp_path / "one.part"
    write_part(path, part, "key")
    found = read_part(path, "key")
    assert found is not None
    assert found.block.dense.sum() != 0.0
    assert resident_kb(path) > 0
    let_go(found.block)
    assert resident_kb(path) == 0


def resident_kb(path: Path) -> int:
    """Return how much of a mapped file this process has in memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    starts = [i for i, line in enumerate(lines) if line.endswith(str(path))]
    return sum(int(next(line for line in lines[i:] if line.startswith("Rss:")).split()[1]) for i in starts)
