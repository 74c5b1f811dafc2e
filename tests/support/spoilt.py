"""Graphs whose numbers are not finite in some calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from support.fakes import FUNCTIONS, Function

from pflx.engines import Array
from pflx.runtime import ListenerFrame


def spoilt(graph: str, name: str, calls: range | set[int], rows: Any, value: float) -> Function:
    """A graph whose output is not finite in some calls."""
    n_calls = 0

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        nonlocal n_calls
        n_calls += 1
        results = {key: np.array(array) for key, array in FUNCTIONS[graph](feeds).items()}
        if n_calls in calls:
            results[name][rows] = value
        return results

    return run


def all_finite(frames: list[ListenerFrame]) -> bool:
    return all(np.isfinite(frame.coefficients).all() and np.isfinite(frame.generated_pose).all() for frame in frames)
