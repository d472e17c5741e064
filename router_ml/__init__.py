"""router-ml: learns from your logs which model tier is the cheapest that answers well enough."""

import os

# onnxruntime sends usage data to its maker and leaves files in the home folder unless this is set before it is
# imported, which every module of this package does after this line.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
