"""The pointer files: read strictly, replaced whole, changed by one process at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from router_ml.errors import BundleCorrupt, BundleError
from router_ml.pointers import Challenger, Pointers
from router_ml.switches import Switch


def switch(after: str | None, before: str | None = None) -> Switch:
    return Switch("2026-03-01", "challenge", before, after, "person", "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        (" \n", None),
        ("v2\n", Challenger("v2")),
        ("v2 0.25\n", Challenger("v2", 0.25)),
        ("v2 0", Challenger("v2", 0.0)),
    ],
)
def test_the_challenger_is_a_version_and_perhaps_a_share(tmp_path: Path, text: str, found: Challenger | None) -> None:
    (tmp_path / "challenger").write_text(text)
    assert Pointers(tmp_path).challenger() == found


@pytest.mark.parametrize("text", ["v2 much", "v2 1.5", "v2 -1", "v2 nan", "v2 0.1 0.2", "v2 1.0"])
def test_anything_else_is_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "challenger").write_text(text)
    with pytest.raises(BundleCorrupt, match="`router-ml challenge VERSION` writes it again"):
        Pointers(tmp_path).challenger()
    assert Pointers(tmp_path).replaceable() is None


def test_a_share_is_written_as_it_is_read(tmp_path: Path) -> None:
    pointers = Pointers(tmp_path)
    for share in (None, 0.0, 0.1, 0.333333, 0.9):
        pointers.set_challenger(switch("v2"), share)
        assert pointers.challenger() == Challenger("v2", share)
    pointers.set_challenger(switch(None), None)
    assert pointers.challenger() is None
    assert len(pointers.switches()) == 6


def test_who_becomes_champion_is_no_challenger_any_more(tmp_path: Path) -> None:
    pointers = Pointers(tmp_path)
    pointers.set_challenger(switch("v2"), 0.1)
    pointers.set_champion(switch("v1"))
    assert pointers.challenger() == Challenger("v2", 0.1)
    pointers.set_champion(switch("v2"))
    assert (pointers.champion(), pointers.challenger()) == ("v2", None)


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be written"), Pointers(tmp_path / "nowhere").locked():
        pass


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from router_ml.pointers import Pointers\n"
        "with Pointers(pathlib.Path(sys.argv[1])).locked(): print('in', flush=True)"
    )
    with Pointers(tmp_path).locked():
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(2)
    assert other.communicate(timeout=20)[0] == "in\n"


def test_a_file_that_the_system_withholds_is_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "champion").mkdir()
    with pytest.raises(BundleCorrupt, match="it is left as it is") as caught:
        Pointers(tmp_path).champion()
    assert "delete" not in str(caught.value)
