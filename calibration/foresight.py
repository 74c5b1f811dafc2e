"""Fitting what follows a closed segment to the motion of a generator, and telling what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

import pflx
from pflx.calibration.errors import CalibrationError
from pflx.calibration.posnet.motion import HELD_OUT, MIN_SEGMENTS, read_run
from pflx.engines import Array
from pflx.engines.bundle.bundle import file_info
from pflx.runtime.frames.coefficients import COEFFICIENTS, WINDOW_RADIUS
from pflx.runtime.frames.foresight import Foresight
from pflx.runtime.text_table import number, table

SCHEMA = 1
STEPS = 4
"""Steps looked back on: on tracks of heads, 8 and 16 were no better."""
DAMPING = (0.01, 0.1, 1.0, 10.0, np.inf)
"""Ridges that each coefficient's own is chosen from, in mean squares of its steps; the last one repeats."""
FOLDS = 5
"""Parts in turn left out to choose the ridge, in a row each."""
TOLD = (1, 4, 8, 13)
"""Frames ahead of which the report tells."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the report."""


class Ahead(_Record, frozen=True, kw_only=True):
    """The error so many frames ahead, on ends of segments that nothing was fitted to.

    Attributes:
        frames: behind the last known one.
        repeated: root mean square error where the last frame is repeated, in standard deviations of each coefficient.
        foretold: the same of what is foretold.
    """

    frames: int
    repeated: float
    foretold: float


class ForesightReport(_Record, frozen=True, kw_only=True):
    """What a foresight was fitted to, and what it is worth.

    Attributes:
        schema: version of this description.
        pflx: version that made it.
        command: that made it, as typed; empty where none was.
        created: time, ISO 8601.
        motion: file name to the hash of each file.
        untrained: seeds of made-up weights in the bundles that moved so; empty for trained ones.
        hop: frames of a segment.
        fitted: ends of segments that it was fitted to.
        held_out: ends that the errors are of, the last fifth of every track.
        moving: coefficients that are not simply repeated.
        ahead: errors, nearest first.
    """

    schema: int = SCHEMA
    pflx: str
    command: str = ""
    created: str
    motion: dict[str, str]
    untrained: list[int]
    hop: int
    fitted: int
    held_out: int
    moving: int
    ahead: list[Ahead]


def fit_foresight(paths: Sequence[Path]) -> tuple[Foresight, ForesightReport]:
    """Fit to what `pflx run --coefficients` or `pflx batch` wrote; the last fifth of each track is held out.

    Raises:
        CalibrationError: a file holds something else, segments of another length, or too few of them.
    """
    tracks: list[Array] = []
    hops: list[int] = []
    seeds: set[int] = set()
    digests: dict[str, str] = {}
    for path in paths:
        run = read_run(path)
        shown = next(iter(run.tracks.values()))
        if run.hop is None or shown.shape[-1] != COEFFICIENTS:
            raise CalibrationError(
                f"{path} does not say where its segments end. Give what pflx run --coefficients or pflx batch wrote."
            )
        tracks += [track.astype(np.float64) for track in shown[0]]
        hops.append(run.hop)
        seeds |= set() if run.untrained is None else {run.untrained}
        digests[path.name] = file_info(path).sha256
    hop = hops[0]
    for path, other in zip(paths, hops, strict=True):
        if other != hop:
            raise CalibrationError(
                f"{path} has segments of {other} frames, {paths[0]} of {hop}. Give motion of one bundle."
            )
    parts = [examples(track, hop) for track in tracks]
    kept = [int(len(steps) * (1 - HELD_OUT)) for steps, _ in parts]
    steps, way = (np.concatenate([part[i][:n] for part, n in zip(parts, kept, strict=True)]) for i in (0, 1))
    held = [np.concatenate([part[i][n:] for part, n in zip(parts, kept, strict=True)]) for i in (0, 1)]
    if len(steps) < MIN_SEGMENTS:
        raise CalibrationError(
            f"There are {len(steps)} ends of segments to fit to, with {WINDOW_RADIUS} frames behind them; it takes "
            f"{MIN_SEGMENTS}. Give more or longer motion, as of pflx batch --samples 4."
        )
    foresight = Foresight(weights_of(steps, way), hop)
    return foresight, ForesightReport(
        pflx=pflx.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        motion=digests,
        untrained=sorted(seeds),
        hop=hop,
        fitted=len(steps),
        held_out=len(held[0]),
        moving=int((foresight.weights != 0).any(axis=(1, 2)).sum()),
        ahead=errors(foresight.weights, held[0], held[1], scale=np.concatenate(tracks).std(axis=0)),
    )


def examples(track: Array, hop: int) -> tuple[Array, Array]:
    """The steps before each end of a segment, newest first, [E, 4, D], and the way from there, [E, 13, D].

    Args:
        track: float [T, D], its first frame the first of a segment.
        hop: frames of a segment.
    """
    ends = np.arange(hop, len(track) - WINDOW_RADIUS + 1, hop)
    rows = np.clip(ends[:, None] - 1 - np.arange(STEPS + 1), 0, None)
    steps = -np.diff(track[rows], axis=1)
    return steps, track[ends[:, None] + np.arange(WINDOW_RADIUS)] - track[ends - 1][:, None]


def weights_of(steps: Array, way: Array) -> Array:
    """The weights, float32 [D, 13, 4], by ridge regression; the ridge of each coefficient is chosen by what it leaves.

    Args:
        steps: float [E, 4, D], as of `examples`.
        way: float [E, 13, D].
    """
    fold = np.arange(len(steps)) * FOLDS // len(steps)
    lost = np.zeros((len(DAMPING), steps.shape[2]))
    for left_out in range(FOLDS):
        inside, outside = fold != left_out, fold == left_out
        for n, damping in enumerate(DAMPING):
            weights = _ridge(steps[inside], way[inside], damping)
            apart = way[outside] - np.einsum("dhi,eid->ehd", weights, steps[outside])
            lost[n] += np.square(apart).sum(axis=(0, 1))
    best = lost.shape[0] - 1 - lost[::-1].argmin(axis=0)  # of equals the most damped
    fits = np.stack([_ridge(steps, way, damping) for damping in DAMPING])
    return np.asarray(fits[best, np.arange(steps.shape[2])], np.float32)


def errors(weights: Array, steps: Array, way: Array, *, scale: Array) -> list[Ahead]:
    """How far what is foretold, and the last frame repeated, are from the truth; see `Ahead`.

    Args:
        weights: as of `weights_of`.
        steps: float [E, 4, D], held out.
        way: float [E, 13, D], likewise.
        scale: float [D]; a coefficient whose scale is 0 is left out.
    """
    moves = scale > 0
    apart = way - np.einsum("dhi,eid->ehd", weights, steps)
    size = [np.sqrt(np.square(each[..., moves] / scale[moves]).mean(axis=(0, 2))) for each in (way, apart)]
    return [Ahead(frames=n, repeated=float(size[0][n - 1]), foretold=float(size[1][n - 1])) for n in TOLD]


def foresight_lines(report: ForesightReport) -> list[str]:
    """The errors as a table."""
    rows = [["frames ahead", "repeated", "foretold", "smaller by"]]
    for each in report.ahead:
        gain = f"{1 - each.foretold / each.repeated:.0%}" if each.repeated else "-"
        rows.append([str(each.frames), number(each.repeated), number(each.foretold), gain])
    return table(rows)


def _ridge(steps: Array, way: Array, damping: float) -> Array:
    """[D, 13, 4]; nothing where nothing moves, or all is damped."""
    count = steps.shape[1]
    if not np.isfinite(damping):
        return np.zeros((steps.shape[2], way.shape[1], count))
    square = np.einsum("eid,ejd->dij", steps, steps)
    size = np.trace(square, axis1=1, axis2=2) / count
    ridge = square + (damping * size + (size == 0))[:, None, None] * np.eye(count)
    return np.asarray(np.linalg.solve(ridge, np.einsum("eid,ehd->dih", steps, way)).swapaxes(1, 2))
