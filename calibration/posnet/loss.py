"""What PosNet is fitted for: the paper's terms, and those of the released code.

All take pose windows float32 [..., w, 6]: the last `w - slide` frames of the past, and after them the `slide` new ones,
which PosNet made. Between the two is the join. Rotation is in rad, translation in FaceVerse units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pflx.calibration.errors import CalibrationError

RELEASED_SPREAD = 5
"""Steps around the join that the released code's term `join` compares; its shipped settings do not say."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Weights of the terms; a term of weight 0 is left out.

    Attributes:
        reconstruction: mean squared difference of the new frames to the target. Eq. 14 of the paper.
        connect: size of the step over the join. Eq. 15.
        first: size of all steps. Eq. 16.
        second: change of the steps' sizes. Eq. 17.
        signed_second: change of the steps, sign included; the released code has it in the place of `second`.
        join: change of the steps around the join. Released code.
        transition: difference of every new frame to the frame `slide` before. Released code.

    Raises:
        CalibrationError: a weight below 0, or none above.
    """

    reconstruction: float
    connect: float = 1.0
    first: float = 1.0
    second: float = 0.2
    signed_second: float = 0.0
    join: float = 0.0
    transition: float = 0.0

    def __post_init__(self) -> None:
        weights = vars(self)
        if wrong := [f"{name} {weight:g}" for name, weight in weights.items() if not weight >= 0]:
            raise CalibrationError(f"A weight of the objective is 0 or more, not {', '.join(wrong)}.")
        if not any(weights.values()):
            raise CalibrationError("All weights of the objective are 0. Give one above.")

    @classmethod
    def released(cls, reconstruction: float) -> Objective:
        """The terms of the released code, whose weights are not published: those of the paper where it names one."""
        return cls(reconstruction=reconstruction, second=0.0, signed_second=0.2, join=1.0, transition=0.0)

    def __call__(self, window: Tensor, target: Tensor) -> Tensor:
        """The sum of all terms, a scalar.

        Args:
            window: float32 [..., w, 6], the past and the new frames.
            target: float32 [..., slide, 6], what the new frames are to be.
        """
        slide = target.shape[-2]
        terms: tuple[tuple[float, Callable[[], Tensor]], ...] = (
            (self.reconstruction, lambda: reconstruction(window, target)),
            (self.connect, lambda: connect(window, slide)),
            (self.first, lambda: first_difference(window)),
            (self.second, lambda: second_magnitude(window)),
            (self.signed_second, lambda: second_signed(window)),
            (self.join, lambda: join_change(window, slide)),
            (self.transition, lambda: transition(window, slide)),
        )
        return torch.stack([weight * term() for weight, term in terms if weight]).sum()


def reconstruction(window: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of the new frames to the target: without it, a still head is best.

    Source: PFLPosNet (ACM MM 2025), Eq. 14.
    """
    return (window[..., -target.shape[-2] :, :] - target).square().mean()


def connect(window: Tensor, slide: int) -> Tensor:
    """Mean size of the step over the join.

    Source: PFLPosNet (ACM MM 2025), Eq. 15; `continuity_loss_w` of the code (6c274a2).
    """
    return (window[..., -slide, :] - window[..., -slide - 1, :]).abs().mean()


def first_difference(window: Tensor) -> Tensor:
    """Mean size of all steps, those of the past included.

    Source: PFLPosNet (ACM MM 2025), Eq. 16; `sm_loss_w` of the code.
    """
    return _steps(window).abs().mean()


def second_magnitude(window: Tensor) -> Tensor:
    """Mean change of the steps' sizes.

    Source: PFLPosNet (ACM MM 2025), Eq. 17.
    """
    return _steps(_steps(window).abs()).abs().mean()


def second_signed(window: Tensor) -> Tensor:
    """Mean size of the steps' changes.

    Source: PFLPosNet 6c274a2, `second_diff_w`.
    """
    return _steps(_steps(window)).abs().mean()


def join_change(window: Tensor, slide: int, spread: int = RELEASED_SPREAD) -> Tensor:
    """Mean size of the changes of `spread` steps, of which the second is the one over the join.

    Source: PFLPosNet 6c274a2, `connect_loss_w` and `connect_spread_size`.
    """
    first = window.shape[-2] - slide - 2
    return _steps(_steps(window)[..., first : first + spread, :]).abs().mean()


def transition(window: Tensor, slide: int) -> Tensor:
    """Mean difference of every new frame to the frame `slide` before.

    Source: PFLPosNet 6c274a2, `trans_smoothness_w`.
    """
    return (window[..., -2 * slide : -slide, :] - window[..., -slide:, :]).abs().mean()


def _steps(values: Tensor) -> Tensor:
    return values.diff(dim=-2)
