"""The host: help without imports, errors as one line and an exit code, interrupts and closed pipes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from router_ml import __version__, cli
from router_ml.cli import COMMANDS, CommandEntry, main
from router_ml.errors import ParityError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Add the command `probe`, which runs the given function."""

    def add(run: Any, extra: str = "training") -> None:
        module = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--n", type=int), run=run)
        monkeypatch.setitem(sys.modules, "probe_command", module)
        monkeypatch.setattr(cli, "COMMANDS", {**COMMANDS, "probe": CommandEntry("probe it", "probe_command", extra)})

    return add


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_promised_command_is_in_the_table() -> None:
    promised = (
        "demo ingest simulate train evaluate certify route serve feedback retrain follow promote rollback models "
        "report bench tiers challenge store keys sync archive drift golden"
    )
    assert set(COMMANDS) == {*promised.split(), "config", "doctor"}


def test_a_command_of_a_side_names_its_extra() -> None:
    extras = {entry.module.partition(".")[0]: entry.extra for entry in COMMANDS.values()}
    assert extras == {"router_ml": "", "router_ml_training": "training", "router_ml_serving": "serving"}


def test_help_lists_every_command_and_imports_none(tmp_path: Path) -> None:
    heavy = "onnxruntime numpy pydantic polars fastapi mlflow lightgbm sklearn aiohttp"
    code = f"""
import sys
from router_ml.cli import main
code = main(["--help"])
loaded = [name for name in sys.modules if name.split(".")[0] in {heavy.split()!r} or ".commands" in name]
sys.exit(f"{{code}} {{loaded}}")
"""
    done = python(code, tmp_path)
    assert done.stderr == "0 []\n"
    for name, entry in COMMANDS.items():
        assert f"  {name:<{max(map(len, COMMANDS))}}  {entry.help}\n" in done.stdout


@pytest.mark.parametrize("body", ["pass", "raise RuntimeError"])
def test_what_a_command_imports_is_not_searched_for_garbage_and_what_it_makes_is(body: str, tmp_path: Path) -> None:
    (tmp_path / "probe_command.py").write_text(f"import sys\nsys.made = [[] for _ in range(100_000)]\n{body}\n")
    code = """
import contextlib, gc
from router_ml import cli
cli.COMMANDS = {"probe": cli.CommandEntry("probe it", "probe_command")}
before = gc.get_stats()[0]["collections"]
with contextlib.suppress(RuntimeError, AttributeError):
    cli.main(["probe"])
print(gc.get_stats()[0]["collections"] - before < 10, gc.get_freeze_count() > 100_000, gc.isenabled())
"""
    assert python(code, tmp_path).stdout == "True True True\n"


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"router-ml {__version__}\n"


def test_without_a_command_the_help_goes_to_stderr_and_the_code_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], "router-ml: error: no command is called 'trian' (did you mean 'train'?)"),
        (["--json", "models"], "unrecognized arguments: --json"),
        (["models", "--unheard-of"], "unrecognized arguments: --unheard-of"),
        (["models", "--prune", "-1"], "expected 0 or more, got -1"),
        (["models", "--prune", "many"], "expected a whole number, got 'many'"),
        (["route", "hi", "--seed", "-1"], "expected 0 or more, got -1"),
        (["promote"], "version"),
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_an_error_is_one_line_and_its_exit_code(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: Any) -> int:
        raise ParityError("the graph is not the model")

    command(refuse)
    assert main(["probe"]) == ParityError.exit_code
    assert capsys.readouterr().err == "router-ml: error: the graph is not the model\n"


def test_the_commands_own_code_is_returned(command: Any) -> None:
    command(lambda args: args.n)
    assert main(["probe", "--n", "1"]) == 1


def test_an_interrupt_is_one_line_and_130(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: Any) -> int:
        raise KeyboardInterrupt

    command(interrupt)
    assert main(["probe"]) == 130
    assert capsys.readouterr().err == "router-ml: interrupted\n"


def test_a_missing_package_is_answered_with_the_extra(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Any) -> int:
        import a_package_nobody_has  # type: ignore[import-not-found]

        return int(a_package_nobody_has)

    command(run)
    assert main(["probe"]) == 2
    expected = "a_package_nobody_has is needed for `router-ml probe` and is not installed. Install it: pip install"
    assert f"{expected} 'router-ml[training]'" in capsys.readouterr().err


def test_a_side_that_is_not_there_is_answered_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", {"far": CommandEntry("far", "a_side_nobody_has.commands.far", "serving")})
    assert main(["far"]) == 2
    assert "pip install 'router-ml[serving]'" in capsys.readouterr().err


def test_a_library_that_is_broken_is_not_called_an_extra(command: Any) -> None:
    def run(_: Any) -> int:
        raise ModuleNotFoundError("No module named 'router_ml.gone'", name="router_ml.gone")

    command(run)
    with pytest.raises(ModuleNotFoundError, match=r"router_ml\.gone"):
        main(["probe"])


def test_the_configuration_is_router_toml_when_there_is_one(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run(args: Any) -> int:
        seen.append(args.config)
        return 0

    command(run)
    monkeypatch.chdir(tmp_path)
    main(["probe"])
    (tmp_path / "router.toml").touch()
    main(["probe"])
    main(["probe", "--config", "other.toml"])
    assert seen == [None, Path("router.toml"), Path("other.toml")]


@pytest.mark.e2e
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    code = """
import sys, types
from router_ml import cli
def run(args):
    for i in range(200_000):
        sys.stdout.write(f"line {i}\\n")
    return 0
sys.modules["probe_command"] = types.SimpleNamespace(add_arguments=lambda parser: None, run=run)
cli.COMMANDS["probe"] = cli.CommandEntry("probe", "probe_command")
sys.exit(cli.main(["probe"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.readline() == "line 0\n"
        writer.stdout.close()
        assert writer.stderr.read() == ""
    assert writer.returncode == 141


@pytest.mark.e2e
def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "router_ml.cli", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"router-ml {__version__}\n"


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if entry.module.startswith("router_ml.")])
def test_every_command_of_the_library_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: router-ml {name}" in out
    assert "--json" in out
