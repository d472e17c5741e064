"""The spill file: whole lines on the disk, several processes, nothing appended to what is being read."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.schema import Feedback, Interaction
from router_ml_serving.spill import Spill, feedback_line, read_chunk

T0 = datetime(2026, 11, 22, 10, tzinfo=UTC)


def line(id_: str) -> str:
    return Interaction(id=id_, ts=T0).to_json()


def test_lines_are_read_back_in_chunks(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill.jsonl")
    thumb = Feedback(ts=T0, source="user", key="k")
    spill.append([line("a"), feedback_line("a", thumb)])
    spill.append([line("b")])
    part = spill.set_aside()
    assert part is not None
    first = read_chunk(part, 0, 2)
    assert ([item.id for item in first.interactions], first.feedback) == (["a"], (("a", thumb),))
    assert first.end is not None
    second = read_chunk(part, first.end, 2)
    assert ([item.id for item in second.interactions], second.end) == (["b"], None)


def test_an_unfinished_part_is_taken_up_before_the_file(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill.jsonl")
    assert spill.set_aside() is None
    spill.append([line("a")])
    part = spill.set_aside()
    spill.append([line("b")])
    assert part is not None
    assert spill.set_aside() == part
    part.unlink()
    later = spill.set_aside()
    assert later is not None
    assert later.read_text() == line("b") + "\n"


def test_a_line_cut_off_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill.jsonl")
    spill.path.write_text(line("a") + "\n" + line("b")[:20])
    spill.append([line("c")])
    part = spill.set_aside()
    assert part is not None
    chunk = read_chunk(part, 0, 10)
    assert [item.id for item in chunk.interactions] == ["a", "c"]
    assert chunk.unreadable == (line("b")[:20].encode(),)


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill.jsonl")
    spill.append([line("a")])
    before = spill.path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, old[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            spill.append([line("b")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert spill.path.read_bytes() == before


def test_processes_share_one_file_without_losing_lines(tmp_path: Path) -> None:
    code = """
        import sys
        from datetime import UTC, datetime
        from pathlib import Path
        from router_ml.schema import Interaction
        from router_ml_serving.spill import Spill

        ts = datetime(2026, 11, 22, 10, tzinfo=UTC)
        spill = Spill(Path(sys.argv[1]))
        for n in range(200):
            spill.append([Interaction(id=f"{sys.argv[2]}-{n}", ts=ts).to_json()])
        """
    spill = Spill(tmp_path / "spill.jsonl")
    command = [sys.executable, "-c", textwrap.dedent(code), str(spill.path)]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    found: list[str] = []
    while True:
        running = [writer.poll() is None for writer in writers]
        part = spill.set_aside()
        if part is not None:
            found += [item.id for item in read_chunk(part, 0, 1_000).interactions]
            part.unlink()
        elif not any(running):
            break
    assert [writer.wait() for writer in writers] == [0, 0]
    assert sorted(found) == sorted(f"{name}-{n}" for name in "ab" for n in range(200))


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill.jsonl")
    spill.append([line("a")])
    assert spill.path.stat().st_mode & 0o077 == 0


@given(
    decision_id=st.text(st.characters(exclude_categories=["Cs"])), key=st.text(st.characters(exclude_categories=["Cs"]))
)
def test_any_id_and_key_come_back(decision_id: str, key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    thumb = Feedback(ts=T0, source="user", key=key)
    part = tmp_path_factory.mktemp("spill") / "part"
    part.write_text(feedback_line(decision_id, thumb) + "\n")
    assert read_chunk(part, 0, 10).feedback == ((decision_id, thumb),)
