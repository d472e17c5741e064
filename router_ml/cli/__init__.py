"""The host of `router-ml`: one table of commands, errors turned into one line and an exit code, nothing heavy."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from router_ml import __version__
from router_ml.errors import MissingExtra, RouterError, UnknownName, UsageError
from router_ml.registry import did_you_mean

__all__ = ["COMMANDS", "CommandEntry", "main"]

DEFAULT_CONFIG = Path("router.toml")
INTERRUPTED = 130
# What a shell reports for a program whose reader went away.
BROKEN_PIPE = 141


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """One command: a line of help, the module with its `add_arguments` and `run`, the extra it needs ("": none)."""

    help: str
    module: str
    extra: str = ""


class _Command(Protocol):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def _training(name: str, help_: str) -> CommandEntry:
    return CommandEntry(help_, f"router_ml_training.commands.{name}", "training")


def _serving(name: str, help_: str) -> CommandEntry:
    return CommandEntry(help_, f"router_ml_serving.commands.{name}", "serving")


def _library(name: str, help_: str) -> CommandEntry:
    return CommandEntry(help_, f"router_ml.cli.{name}")


# In the order of a first use. A new command is one module and one line here.
COMMANDS: Mapping[str, CommandEntry] = {
    "demo": CommandEntry(
        "show the whole cycle on a simulated workload or an outcome table", "router_ml_training.commands.demo", "dev"
    ),
    "ingest": _training("ingest", "check a log, report on its quality, and write it as Parquet"),
    "archive": _training("archive", "copy past days of the event store to Parquet, in a folder or on object storage"),
    "simulate": _training("simulate", "make a log from an outcome table or a generated workload"),
    "train": _training("train", "learn a bundle from logs"),
    "evaluate": _training("evaluate", "measure a bundle, or a policy, on held-out data"),
    "certify": _training("certify", "prove on audited requests how little quality a bundle loses"),
    "retrain": _training("retrain", "train a challenger from the event store; promote it if it passes its gates"),
    "follow": _training("follow", "put into service what MLflow's alias champion names"),
    "drift": _training("drift", "compare the latest traffic with what the bundle in service knows; raise alarms"),
    "tiers": _training("tiers", "list the tiers of a bundle; add one from few outcomes; follow changed prices"),
    "report": _training("report", "write the HTML report of a training run"),
    "bench": _library("bench", "time a decision of the bundle in service on this machine"),
    "serve": _serving("serve", "serve decisions and an OpenAI-compatible proxy over HTTP"),
    "keys": _serving("keys", "make, list and revoke the API keys of tenants"),
    "feedback": _serving("feedback", "send a verdict on an earlier decision to the service"),
    "golden": _serving("golden", "ask every tier the golden set again, check the answers, and tell what got worse"),
    "route": _library("route", "show the decision for one prompt or chat body"),
    "promote": _library("promote", "put a bundle into service"),
    "rollback": _library("rollback", "put the bundle back into service that the champion replaced"),
    "challenge": _library("challenge", "try a bundle beside the champion, on a share of the requests"),
    "models": _library("models", "list the bundles on the shelf; show one; delete old ones"),
    "store": _library("store", "show what the event store holds; delete from it by tenant, request or age"),
    "sync": _library("sync", "push bundles to object storage, pull them from there, or watch for changes"),
    "config": _library("config", "check router.toml and explain every mistake"),
    "doctor": _library("doctor", "check the installation, the bundle, the store and the tiers"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 ok, 1 failed check, 2 usage or bad input, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except RouterError as error:
        sys.stderr.write(f"router-ml: error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("router-ml: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except SystemExit as stop:  # argparse: 0 after --help, 2 after a usage error
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        return _without_command(arguments)
    name, *rest = arguments
    if name not in COMMANDS:
        hint = did_you_mean(name, list(COMMANDS))
        raise UnknownName(f"no command is called '{name}'{hint}; `router-ml --help` lists them")
    entry = COMMANDS[name]
    try:
        command = _imported(entry.module)
        args = _parser(name, entry, command).parse_args(rest)
        if args.config is None and DEFAULT_CONFIG.is_file():
            args.config = DEFAULT_CONFIG
        return command.run(args)
    except ModuleNotFoundError as error:
        raise _missing(name, entry, error) from error


def _imported(module: str) -> _Command:
    if module in sys.modules:
        return cast(_Command, sys.modules[module])
    # What is imported stays to the end: looking through it for garbage again and again took an eighth of a start.
    gc.disable()
    try:
        return cast(_Command, importlib.import_module(module))
    finally:
        gc.freeze()
        gc.enable()


def _without_command(arguments: list[str]) -> int:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {entry.help}" for name, entry in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="router-ml",
        description="Learns from your logs which model tier is the cheapest that answers well enough.",
        epilog=f"commands:\n{listed}\n\n`router-ml COMMAND --help` explains one command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="router-ml [--help] [--version] COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"router-ml {__version__}")
    if arguments:
        parser.parse_args(arguments)
        raise UsageError(f"expected a command before '{arguments[0]}'; `router-ml --help` lists them")
    parser.print_help(sys.stderr)
    return UsageError.exit_code


def _parser(name: str, entry: CommandEntry, command: _Command) -> argparse.ArgumentParser:
    description = f"{entry.help[0].upper()}{entry.help[1:]}."
    parser = argparse.ArgumentParser(prog=f"router-ml {name}", description=description)
    common = parser.add_argument_group("common options")
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="the configuration (default: router.toml, if there is one)"
    )
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_arguments(parser)
    return parser


def _missing(name: str, entry: CommandEntry, error: ModuleNotFoundError) -> Exception:
    inside = (error.name or "").startswith(("router_ml.", "router_ml_training.", "router_ml_serving."))
    if not entry.extra or inside:
        return error  # not an optional part: a broken installation, and its traceback says where
    return MissingExtra(
        f"{error.name} is needed for `router-ml {name}` and is not installed. "
        f"Install it: pip install 'router-ml[{entry.extra}]'"
    )


def _discard_stdout() -> None:
    # The reader is gone: without this, the interpreter complains again when it flushes at its end.
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
