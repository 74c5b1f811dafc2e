"""PerFRDiff's hypernetwork: a person's style → what changes in three layers of the denoiser.

Source: PerFRDiff 8f08853 and PerFRDiffRender 42b1efc, `ModifierNetwork`, model/modifier/network.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from pflx.export.errors import PersonalisationError
from pflx.export.models.perfrdiff import DIM

Mode: TypeAlias = Literal["shift", "offset", "weight"]
"""How an output D of the hypernetwork becomes weights W' of weights W: W + D, W (1 + D), or D itself."""
BLOCK_BYTES = 256 << 20
"""Of the weights that are in memory at a time."""


class Rows(Protocol):
    """Where a hypernetwork's weights are; see `RowReader`."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Key → shape."""
        ...

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        """float32, some rows of a tensor."""
        ...


@dataclass(frozen=True)
class Branch:
    """One output of a hypernetwork: a matrix of weights.

    Attributes:
        layer: of the denoiser, as the published code names it.
        shape: of the matrix.
        tensors: key in the denoiser → its rows of the matrix.
        queries: rows in front of the first tensor's that the matrix lacks, and that are edited by zeros.
    """

    layer: str
    shape: tuple[int, int]
    tensors: Mapping[str, slice] = field(default_factory=dict)
    queries: int = 0

    @property
    def size(self) -> int:
        """Numbers of the matrix."""
        return self.shape[0] * self.shape[1]


def _whole(key: str, *shape: int) -> Branch:
    return Branch(key.removesuffix(".weight"), (shape[0], shape[1]), {key: slice(0, shape[0])})


def _attention(layer: int, *, kv: bool) -> Branch:
    name, rows = f"decoder.layers.{layer}.multihead_attn", 1024 if kv else 1536
    return Branch(name, (rows, DIM), {f"{name}.in_proj_weight": slice(0, rows)}, queries=1536 - rows)


def _v1(*, kv: bool) -> tuple[Branch, ...]:
    return _whole("to_emotion_feat.weight", 25, DIM), _attention(4, kv=kv), _attention(6, kv=kv)


LAYOUTS: Mapping[str, tuple[Branch, ...]] = {
    "render": (
        Branch("to_3dmm_feat", (58, DIM), {"to_3dmm_expr.weight": slice(0, 52), "to_3dmm_pos.weight": slice(52, 58)}),
        _whole("decoder.layers.6.linear1.weight", 1024, DIM),
        _whole("decoder.layers.6.linear2.weight", DIM, 1024),
    ),
    "v1": _v1(kv=False),
    "v1 kv": _v1(kv=True),
}
"""What the branches of the published hypernetworks make, in their order.

That is the order of the layers in the denoiser, in which the head comes before the decoder, and not the order in which
the published settings list them. A file does not name its layers; a swap of equally large ones would go unnoticed.
`kv`: of cross-attention, keys and values alone are edited (`modify: kv`). The head of PerFRDiffRender has the keys of
PerFRDiff's v5, under which its denoiser is read.
"""


class Hypernetwork:
    """Makes edits of a denoiser's weights, of a style. Its weights stay where they are, but for a block at a time.

    Args:
        weights: its weights.
        name: of the file, for messages.

    Attributes:
        layout: a name of `LAYOUTS`.

    Raises:
        PersonalisationError: its layers are none of the published ones.
    """

    def __init__(self, weights: Rows, name: str = "The hypernetwork") -> None:
        self._weights, self._width = weights, _width(weights.shapes, name)
        self.layout = _layout(weights.shapes, name)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """What it makes."""
        return LAYOUTS[self.layout]

    def shared(self, style: Tensor) -> Tensor:
        """What all branches read: float32 [width], of a style float32 [512].

        Raises:
            PersonalisationError: a style of another shape, such as those of several persons at once.
        """
        if style.shape != (DIM,):
            raise PersonalisationError(f"A hypernetwork reads the style of one person, [{DIM}], got {[*style.shape]}.")
        hidden = style
        for layer in (0, 1):
            weight, bias = (self._whole(f"shared_layers.{layer}.{leaf}") for leaf in ("weight", "bias"))
            hidden = F.relu(F.linear(hidden, weight, bias))
        return hidden

    def numbers(self, branch: int, shared: Tensor, start: int, stop: int) -> Tensor:
        """float32, some of the numbers of a branch's matrix, row by row.

        Args:
            branch: 0, 1 or 2.
            shared: of `shared`.
            start: the first number.
            stop: the one after the last.
        """
        weight, bias = (self._weights.rows(f"branches.{branch}.{leaf}", start, stop) for leaf in ("weight", "bias"))
        return F.linear(shared, weight, bias)

    def edits(
        self, style: Tensor, tell: Callable[[int, int], None] = lambda _, __: None
    ) -> Iterator[tuple[str, Tensor]]:
        """Key in the denoiser and what changes there, float32 of that tensor's shape.

        Args:
            style: float32 [512], one person's.
            tell: told numbers made, and in all.

        Raises:
            PersonalisationError: see `shared`.
        """
        shared, done, total = self.shared(style), 0, sum(branch.size for branch in self.branches)
        block = max(1, BLOCK_BYTES // (4 * max(1, self._width)))
        for index, branch in enumerate(self.branches):
            made = torch.empty(branch.size)
            for start in range(0, branch.size, block):
                stop = min(branch.size, start + block)
                made[start:stop] = self.numbers(index, shared, start, stop)
                done += stop - start
                tell(done, total)
            matrix = made.reshape(branch.shape)
            for key, rows in branch.tensors.items():
                yield key, F.pad(matrix[rows], (0, 0, branch.queries, 0))

    def _whole(self, key: str) -> Tensor:
        return self._weights.rows(key, 0, self._weights.shapes[key][0])


def edited(weight: Tensor, edit: Tensor, mode: Mode) -> Tensor:
    """A weight as it is for a person, in the dtype that is the wider of the two; see `Mode`."""
    if mode == "shift":
        return weight + edit
    return weight * (1 + edit) if mode == "offset" else edit.to(torch.promote_types(weight.dtype, edit.dtype))


def _width(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    """Of the layers, which must be those of a hypernetwork whatever its branches make."""
    width = _length(shapes, "shared_layers.0.bias")
    expected: dict[str, tuple[int, ...]] = {
        "shared_layers.0.weight": (width, DIM),
        "shared_layers.0.bias": (width,),
        "shared_layers.1.weight": (width, width),
        "shared_layers.1.bias": (width,),
    }
    branches = sum(key.startswith("branches.") and key.endswith(".bias") for key in shapes)
    for branch in range(branches):
        size = _length(shapes, f"branches.{branch}.bias")
        expected |= {f"branches.{branch}.weight": (size, width), f"branches.{branch}.bias": (size,)}
    for key in [*expected, *(shapes.keys() - expected.keys())]:
        if shapes.get(key) != expected.get(key):
            got = f"has {key} of {list(shapes[key])}" if key in shapes else f"lacks {key}"
            raise PersonalisationError(f"{name} {got}: it is no hypernetwork of PerFRDiff. Pass PerFRDiffRender's.")
    return width


def _length(shapes: Mapping[str, tuple[int, ...]], key: str) -> int:
    """Of a vector; 0 of anything else."""
    shape = shapes.get(key, ())
    return shape[0] if len(shape) == 1 else 0


def _layout(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    n_branches = sum(key.startswith("branches.") for key in shapes) // 2
    sizes = [_length(shapes, f"branches.{branch}.bias") for branch in range(n_branches)]
    for layout, branches in LAYOUTS.items():
        if sizes == [branch.size for branch in branches]:
            return layout
    made = " + ".join(map(str, sizes)) or "no"
    if any(sorted(sizes) == sorted(branch.size for branch in branches) for branches in LAYOUTS.values()):
        raise PersonalisationError(
            f"{name} makes {made} numbers: those of a published hypernetwork in another order, which is REACT 2026's. "
            "The file does not tell its layers apart, so it is not taken. Pass PerFRDiffRender's."
        )
    known = "; ".join(f"{' + '.join(str(b.size) for b in branches)} ({key})" for key, branches in LAYOUTS.items())
    raise PersonalisationError(
        f"{name} makes {made} numbers, and the published ones make {known}. The file does not tell which layers they "
        "are for, so it is not taken. Pass PerFRDiffRender's."
    )
