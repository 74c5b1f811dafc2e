"""Where a fit of PosNet begins: at the best linear answer that its layers let through.

PosNet sees a segment through two convolutions and a mean over time. As far as what is linear goes, the mean leaves five
things of the frames: the sum of all, and, as convolutions pad with zeros, each of the first two and of the last two.
Some channels are set so that these, and the last pose, pass all layers unchanged (a number and its negative, each
through a ReLU), and the last layer is solved for the target by least squares. The other channels begin at random,
unconnected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pflx.export.models import PosNet
from pflx.export.models.posnet import POSE

MIN_HIDDEN = 72
"""Channels that the linear part takes."""

_TAPS = (-1, 0, 1)  # of the first convolution: the frame before, this one, the next
# Of the second convolution: (tap, frames later, weight). Where two are of one frame they cancel, but for the edge.
_FUNCTIONALS = (
    ((0, 0, 1.0),),  # the mean of all
    ((0, 0, 1.0), (1, -1, -1.0)),  # the first frame
    ((0, 0, 1.0), (-1, 1, -1.0)),  # the last
    ((1, 0, 1.0), (1, 1, -1.0)),  # the second
    ((-1, 0, 1.0), (-1, -1, -1.0)),  # the last but one
)
# Of `fc1`: (functional or the last pose, weight); differences, for what counts is how the segment lies and moves.
_LAST, _MEAN, _FIRST, _END, _SECOND, _BEFORE = -1, 0, 1, 2, 3, 4
_COMBINED = (
    ((_LAST, 1.0),),
    ((_FIRST, 1.0), (_LAST, -1.0)),
    ((_MEAN, 1.0), (_FIRST, -1.0)),
    ((_SECOND, 5.0), (_FIRST, -5.0)),
    ((_END, 1.0), (_FIRST, -1.0)),
    ((_BEFORE, 5.0), (_END, -5.0)),
)
_RIDGE = 1e-8


def solve_start(network: PosNet, past: Tensor, fresh: Tensor, target: Tensor) -> None:
    """Set all weights, the last layer's so that it answers `fresh` with `target` as well as it can.

    Args:
        network: with the random weights of its making, width `MIN_HIDDEN` or more.
        past: float32 [n, slide, 6]; the last pose counts.
        fresh: float32 [n, slide, 6].
        target: float32 [n, slide, 6].
    """
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("bias"):
                value.zero_()
        _set_encoder(network)
        _set_joined(network)
        _solve_last(network, past[:, -1], fresh, target)


def _set_encoder(network: PosNet) -> None:
    first, second = network.encoder[0].weight, network.encoder[2].weight
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    first[: 2 * POSE * len(_TAPS)] = 0
    second[: 2 * POSE * len(_FUNCTIONALS)] = 0
    for number, tap in enumerate(_TAPS):
        for axis in range(POSE):
            rows = _pair(number, axis)
            first[rows, axis, tap + 1] = _signs()
    for number, parts in enumerate(_FUNCTIONALS):
        gain = 1.0 if len(parts) == 1 else float(network.slide)  # of one frame the mean is a slide-th
        for tap, later, weight in parts:
            for axis in range(POSE):
                rows, columns = _pair(number, axis), _pair(_TAPS.index(tap), axis)
                second[rows[:, None], columns, later + 1] += gain * weight * torch.outer(_signs(), _signs())


def _set_joined(network: PosNet) -> None:
    fc1, fc2 = network.fc1.weight, network.fc2.weight
    fc1[:MIN_HIDDEN] = 0
    fc2[:MIN_HIDDEN] = 0
    for number, parts in enumerate(_COMBINED):
        for axis in range(POSE):
            rows = _pair(number, axis)
            for functional, weight in parts:
                if functional == _LAST:
                    fc1[rows, axis] += weight * _signs()
                else:
                    columns = POSE + _pair(functional, axis)
                    fc1[rows[:, None], columns] += weight * torch.outer(_signs(), _signs())
    fc2[range(MIN_HIDDEN), range(MIN_HIDDEN)] = 1


def _solve_last(network: PosNet, last_pose: Tensor, fresh: Tensor, target: Tensor) -> None:
    linear = _linear_part(network, last_pose, fresh).double()
    wanted = target.flatten(1).double()
    gram = linear.T @ linear + _RIDGE * len(linear) * torch.eye(linear.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(gram, linear.T @ wanted).T.float()
    network.fc3.weight.zero_()
    network.fc3.bias.zero_()
    network.fc3.weight[:, 0:MIN_HIDDEN:2] = solved
    network.fc3.weight[:, 1:MIN_HIDDEN:2] = -solved


def _linear_part(network: PosNet, last_pose: Tensor, fresh: Tensor) -> Tensor:
    """Float32 [n, 36], what `_COMBINED` names."""
    encoded = network.encoder(fresh.transpose(1, 2)).mean(dim=-1)
    hidden = torch.relu(network.fc1(torch.cat((last_pose, encoded), dim=-1)))[:, :MIN_HIDDEN]
    return hidden[:, 0::2] - hidden[:, 1::2]


def _pair(number: int, axis: int) -> Tensor:
    """The two channels of one number of one axis: it, and its negative."""
    first = 2 * (POSE * number + axis)
    return torch.tensor([first, first + 1])


def _signs() -> Tensor:
    return torch.tensor([1.0, -1.0])
