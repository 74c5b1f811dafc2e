"""How far what a listener shows lies from what it shows in FP32: pictures, motion, seams, flicker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from pflx.calibration.feeds.replay import Performance
from pflx.calibration.reports import INSTALL
from pflx.engines import Array
from pflx.engines.graphs.protocol import import_backend
from pflx.runtime.evaluation.pictures.flicker import judge_pictures
from pflx.runtime.evaluation.psnr import psnr_db
from pflx.runtime.evaluation.results import UndefinedError
from pflx.runtime.evaluation.smoothness import judge_motion
from pflx.runtime.frames.timing import FPS

_ROTATION = slice(52, 55)


class Judgement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A candidate held against the reference, over all takes.

    Attributes:
        finite: whether all coefficients are finite; if not, what is told of motion is None.
        psnr_db: peak signal-to-noise ratio of all pictures; 100 where they are equal.
        lowest_psnr_db: of the worst picture.
        ssim: structural similarity of the worst picture, at most 1.
        coefficients_max: largest difference of a coefficient after PosNet.
        coefficients_rms: root mean square of the differences.
        head_deg: largest difference of one of the head's three angles.
        seam_z: how far the jumps of the head's rotation at seams stand out of those inside of segments, in standard
            deviations; None where the takes are too short.
        reference_seam_z: the same of the reference.
        flicker: mean absolute difference of consecutive pictures, levels of 255.
        reference_flicker: the same of the reference.
        added_flicker: mean absolute difference, in levels, between the candidate's step from picture to picture and the
            reference's.
        added_at_seams: the same of the steps over a seam alone.
    """

    finite: bool
    psnr_db: float
    lowest_psnr_db: float
    ssim: float
    coefficients_max: float | None
    coefficients_rms: float | None
    head_deg: float | None
    seam_z: float | None
    reference_seam_z: float | None
    flicker: float
    reference_flicker: float
    added_flicker: float
    added_at_seams: float


class Bound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a candidate.

    Attributes:
        psnr_db: lowest PSNR of a picture.
        ssim: lowest structural similarity of a picture.
        head_deg: largest difference of an angle of the head.
        seam_z: how much more than the reference's the seams of the motion may stand out, in standard deviations.
        added_at_seams: how much more the steps over seams may be changed than all steps, in levels of 255: above about
            one, a seam begins to show.
    """

    psnr_db: float = 38.0
    ssim: float = 0.95
    head_deg: float = 0.5
    seam_z: float = 0.25
    added_at_seams: float = 1.0

    def faults(self, found: Judgement) -> list[str]:
        """Why a candidate is refused, a phrase for each reason; empty if it is accepted."""
        if not found.finite:
            return ["coefficients are not finite"]
        faults = []
        if found.lowest_psnr_db < self.psnr_db:
            faults.append(f"a picture has {found.lowest_psnr_db:.1f} dB, asked are {self.psnr_db:g}")
        if found.ssim < self.ssim:
            faults.append(f"a picture has an SSIM of {found.ssim:.3f}, asked is {self.ssim:g}")
        if found.head_deg is not None and found.head_deg > self.head_deg:
            faults.append(f"the head is {found.head_deg:.2f}° off, allowed are {self.head_deg:g}")
        if found.seam_z is not None and found.reference_seam_z is not None:
            more = found.seam_z - found.reference_seam_z
            if more > self.seam_z:
                faults.append(f"seams stand out by {more:.2f} deviations more, allowed are {self.seam_z:g}")
        more = found.added_at_seams - found.added_flicker
        if more > self.added_at_seams:
            faults.append(f"seams flicker by {more:.2f} levels more than the rest, allowed are {self.added_at_seams:g}")
        return faults


def judge(reference: Sequence[Performance], candidate: Sequence[Performance], hop: int) -> Judgement:
    """Hold performances of the same takes against one another.

    Args:
        reference: in FP32.
        candidate: of the same takes, in the same order.
        hop: frames of a segment.

    Raises:
        BackendMissingError: scikit-image is not installed.
    """
    pairs = list(zip(reference, candidate, strict=True))
    errors = [_squared(r.images, c.images).mean(axis=(1, 2, 3)) for r, c in pairs]
    pictures = np.concatenate(errors)
    finite = all(bool(np.isfinite(c.smoothed).all()) for c in candidate)
    apart = np.concatenate([(c.smoothed - r.smoothed)[0] for r, c in pairs]) if finite else None
    added = [_added(r.images, c.images) for r, c in pairs]
    at_seams = [steps[r.seam - 1] for (r, _), steps in zip(pairs, added, strict=True) if 0 < r.seam <= len(steps)]
    return Judgement(
        finite=finite,
        psnr_db=psnr_db(float(pictures.mean())),
        lowest_psnr_db=psnr_db(float(pictures.max())),
        ssim=min(similarity(r.images, c.images) for r, c in pairs),
        coefficients_max=None if apart is None else float(np.abs(apart).max()),
        coefficients_rms=None if apart is None else float(np.sqrt(np.square(apart, dtype=np.float64).mean())),
        head_deg=None if apart is None else float(np.degrees(np.abs(apart[:, _ROTATION]).max())),
        seam_z=_seam_z(candidate, hop) if finite else None,
        reference_seam_z=_seam_z(reference, hop),
        flicker=_flicker(candidate),
        reference_flicker=_flicker(reference),
        added_flicker=_mean(np.concatenate(added)),
        added_at_seams=_mean(at_seams),
    )


def _squared(one: Array, other: Array) -> Array:
    difference: Array = np.square(one.astype(np.float32) - other)
    return difference


def _added(reference: Array, candidate: Array) -> Array:
    """Levels per step from picture to picture, float32 [K - 1]."""
    error = candidate.astype(np.float32) - reference
    steps: Array = np.abs(np.diff(error, axis=0)).mean(axis=(1, 2, 3))
    return steps


def similarity(reference: Array, candidate: Array) -> float:
    """Structural similarity of the worst of some pictures, uint8 [K, H, W, 3].

    Raises:
        BackendMissingError: scikit-image is not installed.
    """
    import_backend("skimage", INSTALL)
    from skimage.metrics import structural_similarity

    measure: Callable[..., Any] = structural_similarity
    return min(float(measure(r, c, channel_axis=2)) for r, c in zip(reference, candidate, strict=True))


def _seam_z(performances: Sequence[Performance], hop: int) -> float | None:
    """Mean over the takes that are long enough to tell it."""
    found = []
    for performance in performances:
        try:
            motion = judge_motion(np.degrees(performance.smoothed[..., _ROTATION]), fps=FPS, hop=hop)
        except UndefinedError:
            continue
        found += [motion.jump.z] if motion.jump and motion.jump.z is not None else []
    return float(np.mean(found)) if found else None


def _flicker(performances: Sequence[Performance]) -> float:
    return _mean([judge_pictures(p.images).flicker for p in performances if len(p.images) > 1])


def _mean(values: Sequence[float] | Array) -> float:
    return float(np.mean(values)) if len(values) else 0.0
