"""Files of predictions, as `pflx run` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pflx.engines import Array


def numbers(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def of_run(path: Path, **changes: Any) -> Path:
    """As `pflx run --coefficients` writes it: two samples of 30 frames."""
    content: dict[str, Any] = {
        "coefficients": numbers(2, 30, 58),
        "generated_pose": numbers(2, 30, 6) + 1,
        "time_s": np.arange(30) / 25,
        "face": np.zeros(30, np.int64),
        "region": np.arange(4),
        "fps": np.array(25),
        "hop": np.array(8),
        "untrained": np.array(-1),
    }
    np.savez(path, **{name: value for name, value in (content | changes).items() if value is not None})
    return path
