"""`__all__`: every module says what it offers, each name is there, and others use nothing that is not offered."""

from __future__ import annotations

import ast
import importlib
from typing import Any

# A command is called by the host through these two, and by nobody else.
COMMAND = {"add_arguments", "run"}


def offered(tree: ast.Module) -> list[str] | None:
    """Return the names of `__all__`, or None when there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def defined(tree: ast.Module) -> set[str]:
    """Return the public functions and classes that a module defines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def read(module: Any) -> ast.Module:
    return ast.parse(module.path.read_text(encoding="utf-8"))


def test_a_module_that_defines_something_lists_it(module: Any) -> None:
    tree = read(module)
    assert offered(tree) is not None or not defined(tree), f"{module.name}: no __all__ for {sorted(defined(tree))}"


def test_every_name_offered_exists_once(module: Any) -> None:
    names = offered(read(module)) or []
    found = importlib.import_module(module.name) if names else None
    assert [name for name in names if not hasattr(found, name)] == []
    assert len(names) == len(set(names))


def test_others_use_only_what_a_module_offers(modules: list[Any]) -> None:
    trees = {module.name: read(module) for module in modules}
    offers = {name: set(offered(tree) or ()) for name, tree in trees.items()}
    strays = [
        f"{user} uses {node.module}.{alias.name}"
        for user, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in offers
        for alias in node.names
        if alias.name not in offers[node.module]
        and f"{node.module}.{alias.name}" not in offers
        and not alias.name.startswith("__")
    ]
    assert strays == []


def test_a_command_offers_what_the_host_calls(modules: list[Any]) -> None:
    from router_ml.cli import COMMANDS

    by_name = {module.name: module for module in modules}
    for name, entry in COMMANDS.items():
        names = offered(read(by_name[entry.module])) or []
        assert set(names) >= COMMAND, f"{name}: {entry.module} offers {names}"
