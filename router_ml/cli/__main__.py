"""`python -m router_ml.cli` does what `router-ml` does."""

from __future__ import annotations

import sys

from router_ml.cli import main

if __name__ == "__main__":
    sys.exit(main())
