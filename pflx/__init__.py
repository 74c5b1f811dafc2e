"""pflx: facial-reaction models, exported and run live."""

from __future__ import annotations

import os

__version__ = "0.1.0"

__all__ = ["__version__"]

# ONNX Runtime (seen: 1.32) reports its use to its makers unless told not to before it is imported. 0 lets it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
