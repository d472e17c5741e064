"""Run notebooks as programs in this process, and print some of what they defined as JSON.

Usage: python run_notebooks.py '[["PATH", "HOME", {"NAME": "EXPRESSION", …}], …]'
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def run(path: str) -> dict[str, Any]:
    """Run every cell of a notebook, and return what its cells defined."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _, definitions = module.app.run()
    return dict(definitions)


def main() -> None:
    """Print, for every run, the value of each expression; null where a cell it needs did not run."""
    found: list[dict[str, Any]] = []
    for path, home, expressions in json.loads(sys.argv[1]):
        sys.argv[1:] = ["--", "--home", home]
        names = run(path)
        values: dict[str, Any] = {}
        for name, expression in expressions.items():
            try:
                values[name] = eval(expression, names)
            except NameError:
                values[name] = None
        found.append(values)
    sys.stdout.write("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
