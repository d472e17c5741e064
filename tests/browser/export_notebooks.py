"""Export notebooks to pages, one after the other; marimo runs each in a process of its own.

Usage: python export_notebooks.py HOME NOTEBOOK… in the notebooks' folder; each page is written beside its notebook.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from marimo._cli.cli import main

    home, *names = sys.argv[1:]
    for name in names:
        command = ["export", "html", f"{name}.py", "-o", f"{name}.html", "--no-include-code", "--", "--home", home]
        main(command, standalone_mode=False)
