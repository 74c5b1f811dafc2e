"""Strict loading: the public checkpoints' keys against a network's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

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
class Table:
    """Numbers that a checkpoint may hold and that pflx computes by itself, for any number of positions.

    Attributes:
        rows: n → float32 [n, D].
        axis: of the positions: 0 for [n, 1, D], 1 for [1, n, D].
    """

    rows: Callable[[int], Tensor]
    axis: int = 0

    def fault(self, value: Tensor) -> str:
        """What is wrong with a table of a checkpoint; empty where its values are these, to within bfloat16."""
        shape, dim = list(value.shape), self.rows(1).shape[-1]
        wanted = ["n", "1", str(dim)] if self.axis == 0 else ["1", "n", str(dim)]
        if len(shape) != 3 or shape[1 - self.axis] != 1 or shape[2] != dim:
            return f"is {shape}, not [{', '.join(wanted)}]"
        expected = self.rows(shape[self.axis])
        same = torch.allclose(value.detach().float().reshape(-1, dim), expected, rtol=0, atol=8e-3)
        return "" if same else "holds other positions than those that the network computes with"


@dataclass(frozen=True)
class Keys:
    """What a public checkpoint holds besides the parameters that a network computes with.

    Attributes:
        unused: keys that may be present and are then only checked for their shape.
        tables: keys that may be present and must then hold what is computed in their place.
        aliases: second names that may be present and must then hold what is under the first.
        weight_norm: parameters stored as direction and magnitude; the axis that has its own magnitudes.
        parts: submodules whose keys have no prefix in a checkpoint.
    """

    unused: Mapping[str, Shape] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    weight_norm: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    @property
    def unread(self) -> frozenset[str]:
        """All keys that may be present and that no step computes with."""
        return frozenset((*self.unused, *self.tables, *self.aliases))

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
    """Copy `weights` into `module`; one StateDictError has every key and shape that does not fit.

    Weights whose norm was removed are what those with it fold to, and are taken as they are.
    """
    given = check_strictly(name, module, keys, weights)
    values = {key: torch.as_tensor(value).detach().float() for key, value in given.items()}
    for key, axis in _normed(keys, weights).items():
        values[key] = _fold_weight_norm(values.pop(f"{key}_v"), values.pop(f"{key}_g"), axis)
    public = {own: keys.public(own) for own in module.state_dict()}
    module.load_state_dict({own: values[key] for own, key in public.items() if key in values}, strict=False)


def check_strictly(name: str, module: nn.Module, keys: Keys, weights: Weights) -> dict[str, object]:
    """Check `weights` against `module`, which may lie on the meta device; return those that it computes with.

    Raises:
        StateDictError: every key and shape that does not fit.
    """
    required = public_shapes(module, replace(keys, weight_norm=_normed(keys, weights)))
    given, twice = _old_spelling(weights, required)
    if problems := [*twice, *_mismatches(given, required, keys)]:
        raise StateDictError(name, problems, _cause(name, given, required))
    return {key: value for key, value in given.items() if key in required}


def _normed(keys: Keys, weights: Weights) -> dict[str, int]:
    """Parameters that have a weight norm in these weights, and its axis."""
    return {key: axis for key, axis in keys.weight_norm.items() if key not in weights}


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


def _mismatches(given: Mapping[str, object], required: Mapping[str, Shape], keys: Keys) -> Iterator[str]:
    for key in required:
        if key not in given:
            yield f"missing {key}"
    for key, value in given.items():
        first = keys.aliases.get(key, "")
        expected = required.get(key, keys.unused.get(key, required.get(first)))
        shape = getattr(value, "shape", None)
        if expected is None and key not in keys.tables:
            yield f"unknown {key}"
        elif shape is None:
            yield f"{key} is a {type(value).__name__}, not an array"
        elif key in keys.tables:
            if fault := keys.tables[key].fault(torch.as_tensor(value)):
                yield f"{key} {fault}"
        elif tuple(shape) != expected:
            yield f"{key} is {list(shape)}, not {list(expected or ())}"
        elif first in given and not torch.equal(torch.as_tensor(value), torch.as_tensor(given[first])):
            yield f"{key} differs from {first}, whose second name it is"


_SPECTRAL = ("weight_orig", "weight_bar", "parametrizations.weight.original")
_MOST = 0.5


def _cause(name: str, given: Mapping[str, object], required: Mapping[str, Shape]) -> str:
    """The likely reason why keys and shapes differ, and what to do; empty where none is likely."""
    if any(key.endswith(_SPECTRAL) for key in given):
        return (
            "It has spectral norm: call torch.nn.utils.remove_spectral_norm (or "
            "torch.nn.utils.parametrize.remove_parametrizations) on its layers and save state_dict() again."
        )
    shapes = {key: tuple(getattr(value, "shape", ())) for key, value in given.items()}
    pairs = [(shapes[key], shape) for key, shape in required.items() if shapes.get(key, shape) != shape]
    ratios = Counter(
        got / wanted
        for one, other in pairs
        if len(one) == len(other)
        for got, wanted in zip(one, other, strict=True)
        if got != wanted and wanted
    )
    if len(pairs) > 2 and ratios:
        ratio, count = ratios.most_common(1)[0]
        if count > _MOST * ratios.total():
            return f"Its layers are {ratio:g} times as wide: a variant of {name} of another width, which pflx lacks."
    missing, unknown = required.keys() - given.keys(), given.keys() - required.keys()
    if required and len(missing) > _MOST * len(required):
        return "Most of the network is missing: the file holds a part of it, or another version."
    if missing and not unknown and not pairs:
        return "The file holds a part of the network: save all of model.state_dict()."
    return ""


def _fold_weight_norm(direction: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    """Return the plain weight, norm over all axes but `axis` (Salimans and Kingma 2016, equation 2)."""
    others = [i for i in range(direction.ndim) if i != axis]
    folded: Tensor = magnitude * direction / torch.linalg.vector_norm(direction, dim=others, keepdim=True)
    return folded
