"""Strict loading: the public checkpoints' keys against a network's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pflx.export.errors import StateDictError

Weights = Mapping[str, "npt.NDArray[np.generic] | Tensor"]
Shape = tuple[int, ...]

_NEW_SPELLING = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


@dataclass(frozen=True)
class Keys:
    """What a public checkpoint holds besides the parameters that a network computes with.

    Attributes:
        unused: keys that may be present and are then only checked for their shape.
        weight_norm: parameters stored as direction and magnitude; the axis that has its own magnitudes.
        parts: submodules whose keys have no prefix in a checkpoint.
    """

    unused: Mapping[str, Shape] = field(default_factory=dict)
    weight_norm: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    def public(self, key: str) -> str:
        """The checkpoint's key for one of the module's own."""
        part, _, rest = key.partition(".")
        return rest if part in self.parts else key


def public_shapes(module: nn.Module, keys: Keys) -> dict[str, Shape]:
    """Return key → shape of every entry that a checkpoint must hold, weight norm in its old spelling."""
    shapes: dict[str, Shape] = {}
    for own, value in module.state_dict().items():
        key, shape = keys.public(own), tuple(value.shape)
        if key in keys.weight_norm:
            axis = keys.weight_norm[key]
            shapes[f"{key}_g"] = tuple(size if i == axis else 1 for i, size in enumerate(shape))
            shapes[f"{key}_v"] = shape
        elif key not in keys.unused:
            shapes[key] = shape
    return shapes


def load_strictly(name: str, module: nn.Module, keys: Keys, weights: Weights) -> None:
    """Copy `weights` into `module`; one StateDictError lists every key and shape that does not fit."""
    required = public_shapes(module, keys)
    given, twice = _old_spelling(weights, required)
    problems = [*twice, *_mismatches(given, required, keys.unused)]
    if problems:
        raise StateDictError(name, problems)
    values = {key: torch.as_tensor(value).detach().float() for key, value in given.items()}
    for key, axis in keys.weight_norm.items():
        values[key] = _fold_weight_norm(values.pop(f"{key}_v"), values.pop(f"{key}_g"), axis)
    public = {own: keys.public(own) for own in module.state_dict()}
    module.load_state_dict({own: values[key] for own, key in public.items() if key in values}, strict=False)


def _old_spelling(weights: Weights, required: Mapping[str, Shape]) -> tuple[dict[str, object], list[str]]:
    given: dict[str, object] = {}
    twice: list[str] = []
    for key, value in weights.items():
        old = key
        for new, spelling in _NEW_SPELLING.items():
            renamed = key.removesuffix(new) + spelling if key.endswith("." + new) else key
            old = renamed if renamed in required else old
        if old in given:
            twice.append(f"{old} is there in both weight-norm spellings")
        given[old] = value
    return given, twice


def _mismatches(
    given: Mapping[str, object], required: Mapping[str, Shape], unused: Mapping[str, Shape]
) -> Iterator[str]:
    for key in required:
        if key not in given:
            yield f"missing {key}"
    for key, value in given.items():
        expected = required.get(key, unused.get(key))
        shape = getattr(value, "shape", None)
        if expected is None:
            yield f"unknown {key}"
        elif shape is None:
            yield f"{key} is a {type(value).__name__}, not an array"
        elif tuple(shape) != expected:
            yield f"{key} is {list(shape)}, not {list(expected)}"


def _fold_weight_norm(direction: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    """Return the plain weight, norm over all axes but `axis` (Salimans and Kingma 2016, equation 2)."""
    others = [i for i in range(direction.ndim) if i != axis]
    folded: Tensor = magnitude * direction / torch.linalg.vector_norm(direction, dim=others, keepdim=True)
    return folded
