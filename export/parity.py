"""Does a graph compute what its module computes?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pflx.engines import Array, Engine, PflxError
from pflx.export.recipes import Recipe


class ParityError(PflxError, ValueError):
    """A graph differs from the network it was exported from by more than its recipe allows."""


def count_flops(module: nn.Module, recipe: Recipe) -> int:
    """Floating-point operations of convolutions and matrix products, at the recipe's smallest sizes."""
    feeds = recipe.example(0, recipe.size_sets[-1])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*(torch.from_numpy(value) for value in feeds.values()))
    return int(counter.get_total_flops())


def graph_errors(
    module: nn.Module,
    engine: Engine,
    recipe: Recipe,
    size_sets: Sequence[Mapping[str, int]],
    *,
    seed: int = 1,
) -> dict[str, float]:
    """Largest absolute difference of each output between `module` (PyTorch) and `engine`, over seeded inputs.

    With more than one set of sizes, a dynamic axis that became fixed in the export shows.
    """
    errors = dict.fromkeys(recipe.outputs, 0.0)
    for sizes in size_sets:
        feeds = recipe.example(seed, sizes)
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(value) for value in feeds.values()))
        values = (expected,) if isinstance(expected, torch.Tensor) else expected
        actual = engine.run(feeds)
        for name, value in zip(recipe.outputs, values, strict=True):
            errors[name] = max(errors[name], largest_difference(value.numpy(), actual[name]))
    return errors


def largest_difference(expected: Array, actual: Array) -> float:
    """Largest absolute difference; NaN counts as infinitely far."""
    difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    return float(np.nan_to_num(difference, nan=np.inf).max())


def check_graph(recipe: Recipe, errors: Mapping[str, float]) -> None:
    """Fail the export when an output is over its tolerance.

    Raises:
        ParityError: naming graph, output, error and bound.
    """
    for output, error in errors.items():
        if error > recipe.tolerance[output]:
            raise ParityError(
                f"{recipe.graph}: output '{output}' is {error:.3g} away from PyTorch, allowed is "
                f"{recipe.tolerance[output]:.3g}. Check the checkpoint for NaN or huge weights."
            )
