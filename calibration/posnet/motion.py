"""Motion that PosNet is fitted to: whole tracks of a head, or segments as a generator made them.

Poses are float [..., 6]: rotation in rad, translation in FaceVerse units, mean face subtracted, 25 a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import Feeds
from pflx.engines import Array
from pflx.engines.bundle.bundle import file_info
from pflx.engines.files.array_file import read_arrays
from pflx.runtime.evaluation.predictions import WITHOUT_POSNET, InputError, Predictions, read_predictions
from pflx.runtime.frames.coefficients import POSE

FPS = 25
HELD_OUT = 0.2
"""Share of every motion, its end, that nothing is fitted to."""
NOISE = 0.02
"""Standard deviation of the noise in what PosNet is given, in those of the offsets."""
JUMP = 0.5
"""Standard deviation of the offsets that segments of a track get, in standard deviations of the track."""
MIN_SEGMENTS = 30
"""Below, the part held out has too few borders to judge."""

_DRIFT = 0.2  # over a segment, in offsets
_SHIFT = 3.0  # of windows, in offsets: the mean pose of a generator need not be the one fitted to
_EXTRAPOLATED = np.array([9 / 4, -3 / 4, -5 / 4, 3 / 4])  # of a parabola through 4 frames by least squares, at -1
_RUN_KEYS = {"coefficients", "generated_pose"}
_MIRROR = np.array([1, -1, -1, -1, 1, 1])  # pitch, yaw, roll, x, y, z of the head in a mirror


@dataclass(frozen=True)
class Motion:
    """What one file gives.

    Attributes:
        name: of the file.
        sha256: of the file.
        windows: float32 [N, 2·slide, 6], to fit to; a window is continuous over its middle, where the join will be.
        held_windows: likewise, to stop by.
        offset_sd: float32 [6], how far segments of the generator lie from where the one before would go on.
        held_out: float32 [n, slide, 6], segments in a row to judge by, jumps included; none if there is no row.
    """

    name: str
    sha256: str
    windows: Array
    held_windows: Array
    offset_sd: Array
    held_out: Array


def read_motion(path: Path, slide: int, *, jump: float = JUMP, seed: int = 0) -> list[Motion]:
    """Read what PosNet is to be fitted to.

    Args:
        path: what `pflx run --coefficients` wrote, whose segments are taken as the generator made them; a folder of
            `pflx calibrate record`, likewise; or a track of a head at 25 fps, [T, 6] poses or [T, 58] coefficients, or
            several [N, T, …], as `.npy` or alone in an `.npz`.
        slide: frames of a segment.
        jump: of tracks only, as `JUMP`.
        seed: of the offsets of what is held out of tracks.

    Returns:
        One per reaction or track of the file.

    Raises:
        CalibrationError: it is neither, too short, not finite, without motion, or of segments of another size.
    """
    if path.is_dir():
        return [feeds_motion(path, slide)]
    arrays = read_arrays(path, CalibrationError)
    digest = file_info(path).sha256
    if arrays.keys() >= _RUN_KEYS:
        return [segments_motion(path.name, digest, segments) for segments in _generated(path, slide)]
    tracks = _tracks(path, arrays)
    return [track_motion(path.name, digest, track, slide, jump=jump, seed=seed) for track in tracks]


def track_motion(name: str, sha256: str, track: Array, slide: int, *, jump: float = JUMP, seed: int = 0) -> Motion:
    """A continuous track, float [T, 6]; segments of generators get offsets that the fit and the judgement draw.

    Raises:
        CalibrationError: too short, not finite, or without motion.
    """
    _check(name, track, slide)
    track = np.asarray(track - track.mean(axis=0), np.float32)
    offset_sd = np.asarray(jump * track.std(axis=0), np.float32)
    kept = slide * round(len(track) * (1 - HELD_OUT) / slide)
    held = _cut(track[kept:], slide)
    return Motion(
        name,
        sha256,
        windows=_sliding(track[:kept], 2 * slide),
        held_windows=_sliding(track[kept:], 2 * slide),
        offset_sd=offset_sd,
        held_out=displaced(held, offset_sd, np.random.default_rng(seed)),
    )


def segments_motion(name: str, sha256: str, segments: Array) -> Motion:
    """What a generator made, float [n, slide, 6] in a row; their mean counts as the mean face.

    Raises:
        CalibrationError: too short, not finite, or without motion.
    """
    slide = segments.shape[1]
    _check(name, segments.reshape(-1, segments.shape[-1]), slide)
    segments = np.asarray(segments - segments.mean(axis=(0, 1)), np.float32)
    kept = round(len(segments) * (1 - HELD_OUT))
    jumps = previous_pose(segments[1:kept]) - segments[: kept - 1, -1]
    return _of_segments(name, sha256, segments, kept, jumps, held_out=segments[kept:])


def feeds_motion(folder: Path, slide: int) -> Motion:
    """What PosNet was given in the recording of a bundle: segments in no order, none of them to judge by.

    Raises:
        CalibrationError: not such a folder, of segments of another size, or too few.
    """
    recorded = Feeds.open(folder)
    feeds = list(recorded.of_graph("posnet"))
    segments = np.concatenate([feed["segment"][..., POSE] for feed in feeds])
    if segments.shape[1] != slide:
        raise _another_size(folder, segments.shape[1])
    if len(segments) < MIN_SEGMENTS:
        raise CalibrationError(
            f"{folder} holds {len(segments)} segments, it takes {MIN_SEGMENTS}. Record more: pflx calibrate record "
            f"BUNDLE --speaker CLIP --portrait PICTURE -o {folder} --limit {10 * MIN_SEGMENTS}"
        )
    _check(str(folder), segments.reshape(-1, 6), slide)
    last_poses = np.concatenate([feed["last_pose"] for feed in feeds])
    kept = round(len(segments) * (1 - HELD_OUT))
    jumps = (previous_pose(segments) - last_poses)[:kept]
    return _of_segments(folder.name, recorded.sha256(), segments, kept, jumps, held_out=segments[:0])


def _of_segments(name: str, sha256: str, segments: Array, kept: int, jumps: Array, *, held_out: Array) -> Motion:
    offset_sd = np.sqrt(np.mean(jumps**2, axis=0) / 2)  # two of them make a jump
    windows = continued(segments)
    return Motion(name, sha256, windows[:kept], windows[kept:], np.asarray(offset_sd, np.float32), held_out)


def previous_pose(segments: Array) -> Array:
    """Where the head would have been a frame before each segment [n, slide, 6], by its first four frames, [n, 6]."""
    return np.asarray(np.einsum("f,nfp->np", _EXTRAPOLATED, segments[:, :4]))


def continued(segments: Array) -> Array:
    """Windows float32 [n, 2·slide, 6]: each segment with a past that runs into it, its own turned about the join."""
    before = previous_pose(segments)[:, None]
    past = np.concatenate([2 * before - segments[:, -2::-1], before], axis=1)
    return np.asarray(np.concatenate([past, segments], axis=1), np.float32)


def displaced(segments: Array, offset_sd: Array, rng: np.random.Generator) -> Array:
    """Segments [n, slide, 6] as a generator would give them: each lies elsewhere, and drifts a little.

    Args:
        segments: continuous.
        offset_sd: [6], or [n, 1, 6] for each.
        rng: of the offsets, which are normal; over a segment the drift is a fifth of their size.
    """
    n, slide, size = segments.shape
    ramp = (np.arange(slide) / max(1, slide - 1) - 0.5)[:, None]
    offset, drift = rng.standard_normal((2, n, 1, size))
    return np.asarray(segments + offset_sd * (offset + _DRIFT * drift * ramp), np.float32)


@dataclass(frozen=True)
class Batch:
    """Windows to fit to.

    Attributes:
        past: float32 [n, slide, 6], what was shown.
        fresh: float32 [n, slide, 6], what the generator made next.
        target: float32 [n, slide, 6], what PosNet is to make of it.
    """

    past: Array
    fresh: Array
    target: Array


class Draws:
    """Windows with offsets, seeded.

    The target is the generator's segment, moved so that it goes on where the past ends, and back over its length by
    `pull` of the way to where it was: the head follows the generator in the long run. The segment has a little noise
    that the target has not, lest the fit leans on differences of neighbouring frames that no generator keeps clean.

    Args:
        windows: float32 [N, 2·slide, 6], continuous.
        offset_sd: float32 [N, 6].
        pull: 0 to 1.
        seed: of all draws.
        noise: as `NOISE`.
    """

    def __init__(self, windows: Array, offset_sd: Array, *, pull: float, seed: int, noise: float = NOISE) -> None:
        self._windows, self._offset_sd = windows, offset_sd
        self._pull, self._seed, self._noise = pull, seed, noise

    @classmethod
    def of(
        cls, motions: Sequence[Motion], *, pull: float, seed: int, held: bool = False, noise: float = NOISE
    ) -> Draws:
        """Draws of several motions, by their lengths."""
        parts = [motion.held_windows if held else motion.windows for motion in motions]
        sds = [np.repeat(m.offset_sd[None], len(part), axis=0) for m, part in zip(motions, parts, strict=True)]
        return cls(np.concatenate(parts), np.concatenate(sds), pull=pull, seed=seed, noise=noise)

    def batch(self, step: int, n: int) -> Batch:
        """The same for the same step, whatever was drawn before.

        Windows are mirrored, reversed in time, scaled and shifted at random, so that few minutes of motion go far.
        """
        rng = np.random.default_rng([self._seed, step])
        chosen = rng.integers(len(self._windows), size=n)
        window, sd = self._windows[chosen], self._offset_sd[chosen, None]
        window = np.where(rng.random((n, 1, 1)) < 0.5, window[:, ::-1], window)
        gain = _MIRROR ** rng.integers(2, size=(n, 1, 1)) * np.exp(_uniform(rng, (n, 1, 1), 0.9))
        gain = gain * np.exp(_uniform(rng, (n, 1, window.shape[2]), 0.7))
        offset_sd = sd * np.abs(gain) * np.exp(_uniform(rng, (n, 1, 1), 0.7))
        window = window * gain + _SHIFT * sd * rng.standard_normal(sd.shape)
        return self._displaced(window, offset_sd, rng)

    def _displaced(self, window: Array, offset_sd: Array, rng: np.random.Generator) -> Batch:
        past, segment = np.split(window, 2, axis=1)
        fresh = displaced(segment, offset_sd, rng)
        moved = 0.7 * offset_sd * rng.standard_normal(offset_sd.shape)  # what earlier segments left behind
        back = moved + segment[:, :1] - fresh[:, :1]
        ramp = np.arange(1, fresh.shape[1] + 1)[:, None] / fresh.shape[1]
        target = fresh + back * (1 - self._pull * ramp)
        noisy = fresh + self._noise * offset_sd * rng.standard_normal(fresh.shape)
        return Batch(*(np.asarray(part, np.float32) for part in (past + moved, noisy, target)))


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], reach: float) -> Array:
    return rng.uniform(-reach, reach, shape)


def _another_size(path: Path, found: int | None) -> CalibrationError:
    return CalibrationError(f"{path} has segments of {found} frames. Fit with --slide {found}.")


def read_run(path: Path) -> Predictions:
    """What `pflx run --coefficients` or `pflx batch` wrote.

    Raises:
        CalibrationError: it holds something else.
    """
    try:
        return read_predictions(path)
    except InputError as error:
        raise CalibrationError(str(error)) from error


def _generated(path: Path, slide: int) -> list[Array]:
    """The segments of each reaction of a run, [n, slide, 6], before PosNet."""
    run = read_run(path)
    if run.hop != slide:
        raise _another_size(path, run.hop)
    return [_cut(track[:, POSE], slide) for track in run.tracks[WITHOUT_POSNET][0]]


def _tracks(path: Path, arrays: dict[str, Array]) -> list[Array]:
    """Poses [T, 6] of each track of a file."""
    if len(arrays) != 1:
        raise CalibrationError(f"{path} holds {', '.join(arrays) or 'nothing'}. Give one array of head poses.")
    (values,) = arrays.values()
    is_motion = values.dtype.kind in "fiu" and values.ndim in (2, 3) and values.shape[-1] in (6, 58) and values.size
    if not is_motion:
        raise CalibrationError(
            f"{path} is {values.dtype} {list(values.shape)}, no motion of a head. "
            "Give [T, 6] poses or [T, 58] coefficients, or several [N, T, 6 or 58]."
        )
    poses = values[..., -6:].astype(np.float64)
    return list(poses.reshape(-1, *poses.shape[-2:]))


def _check(name: str, poses: Array, slide: int) -> None:
    if not np.isfinite(poses).all():
        frame = int(np.argmax(~np.isfinite(poses).all(axis=1)))
        raise CalibrationError(f"{name} is not finite, first in frame {frame}. Repair it first.")
    if len(poses) < MIN_SEGMENTS * slide:
        raise CalibrationError(
            f"{name} has {len(poses)} frames; to fit segments of {slide} it takes {MIN_SEGMENTS * slide}. "
            "Give a longer motion."
        )
    if not poses.std(axis=0).all():
        still = int(np.argmin(poses.std(axis=0)))
        raise CalibrationError(f"{name} does not move in number {still} of the six. Give a motion of all.")


def _cut(track: Array, slide: int) -> Array:
    n = len(track) // slide
    segments: Array = track[: n * slide].reshape(n, slide, track.shape[1])
    return segments


def _sliding(track: Array, length: int) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(track, length, axis=0)
    return np.ascontiguousarray(np.swapaxes(windows, 1, 2))
