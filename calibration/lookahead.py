"""What waiting for the future buys: pictures and seams against the delay of the renderer's look-ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

import pflx
from pflx.calibration.curves import Line, Panel, save_curves
from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.feeds.replay import Take, react, render
from pflx.calibration.judge import similarity
from pflx.calibration.progress import Progress, silent
from pflx.engines import Array, Bundle, Engine
from pflx.runtime.bench.measure.environment import describe_environment
from pflx.runtime.bench.report.report import Environment
from pflx.runtime.evaluation.psnr import psnr_db
from pflx.runtime.evaluation.results import Border
from pflx.runtime.evaluation.smoothness import compare_borders
from pflx.runtime.frames.coefficients import WINDOW_RADIUS
from pflx.runtime.frames.foresight import Foresight
from pflx.runtime.frames.timing import FPS
from pflx.runtime.generators import make_generator
from pflx.runtime.generators.protocol import delay_frames
from pflx.runtime.text_table import number, table

SCHEMA = 1
LOOKAHEADS = range(WINDOW_RADIUS + 1)

BEFORE, BEHIND = WINDOW_RADIUS + 3, 5
"""Frames rendered before and behind each seam: from where a window may reach over it, with steps inside of segments."""
BORDERS = 5
"""Seams looked at of a take, at most."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the curve."""


class Point(_Record, frozen=True, kw_only=True):
    """One look-ahead, held against the full window.

    Attributes:
        lookahead: coefficient frames waited for.
        added_ms: delay that it adds to that without look-ahead.
        delay_ms: algorithmic delay with it, as `Listener.algorithmic_delay_ms`.
        same: share of the pictures whose window is the full one already.
        levels: mean absolute difference to the pictures of the full window, of 255.
        psnr_db: of all pictures; 100 where they are equal.
        lowest_psnr_db: of the worst one.
        ssim: of the worst one.
        jump: mean jump of the pictures at seams, levels; see `picture_jumps`.
        jump_inside: the same inside of segments.
        seam_z: how far the jumps at seams stand out, in standard deviations of those inside; None where the takes have
            too few seams to tell.
        reach_jump: mean jump where windows begin to reach into the next segment, which is so many frames before its
            seam as are waited for: what stood for that segment gives way to it.
        reach_z: how far those stand out, likewise.
    """

    lookahead: int
    added_ms: float
    delay_ms: float
    same: float
    levels: float
    psnr_db: float
    lowest_psnr_db: float
    ssim: float
    jump: float | None
    jump_inside: float | None
    seam_z: float | None
    reach_jump: float | None
    reach_z: float | None


class LookaheadCurve(_Record, frozen=True, kw_only=True):
    """The delay-quality curve of a bundle.

    Attributes:
        schema: version of this description.
        pflx: version that made it.
        command: that made it, as typed; empty where none was.
        created: time, ISO 8601.
        bundle: its name.
        untrained: seed of made-up weights; None for trained ones.
        feeds_sha256: of the recorded takes it was made of.
        hop: frames of a segment.
        precision: that rendered.
        foresight: whether frames that were not waited for were foretold; else the last one was repeated.
        pictures: rendered frames that each point tells of.
        points: one for each look-ahead from 0 to 13.
        environment: where it ran.
    """

    schema: int = SCHEMA
    pflx: str
    command: str = ""
    created: str
    bundle: str
    untrained: int | None
    feeds_sha256: str
    hop: int
    precision: str
    foresight: bool = False
    pictures: int
    points: list[Point]
    environment: Environment


@dataclass(frozen=True)
class _Scene:
    """The rendered frames of one take.

    Attributes:
        shots: int64 [K], which frames.
        count: frames of the take.
        ends: look-ahead to where the window of each ends, int64 [K].
        images: look-ahead to uint8 [K, size, size, 3].
    """

    shots: Array
    count: int
    ends: Mapping[int, Array]
    images: Mapping[int, Array]


def lookahead_curve(
    bundle: Bundle,
    feeds: Feeds,
    engines: Mapping[str, Engine],
    *,
    precision: str,
    foresight: Foresight | None = None,
    progress: Progress = silent,
) -> LookaheadCurve:
    """Render the held-out takes with every look-ahead, around their seams.

    Args:
        bundle: whose listener it is.
        feeds: recorded from it.
        engines: of all its graphs.
        precision: of these.
        foresight: foretells what is not waited for; None repeats the last frame.
        progress: told about pictures.

    Raises:
        CalibrationError: the feeds are of another bundle, or no take has a seam.
    """
    feeds.require_match(bundle)
    manifest = bundle.manifest
    hop = manifest.generator.hop
    takes = [take for take in feeds.takes() if len(take.steps) > 1]
    if not takes:
        raise CalibrationError(f"No take in {feeds.folder} has a seam. Record a longer clip.")
    scenes = []
    for n, take in enumerate(takes):
        told = _numbered(progress, f"rendering {take.name} ({n + 1} of {len(takes)})")
        scenes.append(_scene(take, bundle, engines, foresight, told))
    generator = make_generator(manifest.generator, engines)
    least = delay_frames(generator, 0)
    points = []
    for lookahead in LOOKAHEADS:
        delay = delay_frames(generator, lookahead)
        points.append(_point(scenes, lookahead, hop, added=delay - least, delay=delay))
    return LookaheadCurve(
        pflx=pflx.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        bundle=bundle.name,
        untrained=manifest.untrained,
        feeds_sha256=feeds.sha256(),
        hop=hop,
        precision=precision,
        foresight=foresight is not None,
        pictures=sum(len(scene.shots) for scene in scenes),
        points=points,
        environment=describe_environment(),
    )


def smallest_good(curve: LookaheadCurve, psnr_db: float) -> int:
    """The smallest look-ahead from which on every picture has so many dB against the full window."""
    bad = [point.lookahead for point in curve.points if point.lowest_psnr_db < psnr_db]
    return max(bad) + 1 if bad else 0


def curve_lines(curve: LookaheadCurve) -> list[str]:
    """The curve as a table."""
    rows: list[list[str]] = [
        ["frames", "added ms", "delay ms", "full window", "levels", "PSNR dB", "worst", "SSIM", "seam z", "reach z"]
    ]
    rows += [
        [
            str(point.lookahead),
            number(point.added_ms),
            number(point.delay_ms),
            f"{point.same:.0%}",
            number(point.levels),
            number(point.psnr_db),
            number(point.lowest_psnr_db),
            f"{point.ssim:.3f}",
            *("-" if z is None else f"{z:+.2f}" for z in (point.seam_z, point.reach_z)),
        ]
        for point in curve.points
    ]
    return table(rows)


def plot_curve(path: Path, curve: LookaheadCurve) -> None:
    """Draw difference and seams against the added delay, .png.

    Raises:
        BackendMissingError: matplotlib is not installed.
        OutputError: it cannot be written.
    """
    points = curve.points
    added = [point.added_ms for point in points]
    short = [point for point in points if point.same < 1]  # the others are the full window
    cut = [point.added_ms for point in short]
    quality = Panel(
        "PSNR against the full window, dB",
        [
            Line("all pictures", cut, [point.psnr_db for point in short]),
            Line("worst picture", cut, [point.lowest_psnr_db for point in short]),
        ],
    )
    seams = Panel(
        "jump of the pictures, levels of 255",
        [
            Line("at seams", added, [point.jump for point in points]),
            Line("where windows reach over them", added, [point.reach_jump for point in points]),
            Line("inside of segments", added, [point.jump_inside for point in points]),
        ],
    )
    title = f"Look-ahead of {curve.bundle}, segments of {curve.hop} frames"
    save_curves(path, [quality, seams], title=title, x="delay added by the look-ahead, ms", untrained=curve.untrained)


def picture_jumps(images: Array, shots: Array, count: int) -> Array:
    """How much of each step from picture to picture the steps around it do not explain, float64 [1, count - 3].

    |d_s − (d_(s−1) + d_(s+1)) / 2| with d_s the step into frame s, as of `judge_motion`, averaged over colour values.

    Args:
        images: uint8 [K, H, W, 3].
        shots: int64 [K], the frames that they are.
        count: frames in all.

    Returns:
        The jump of frame 2 first; NaN where a frame that it needs was not rendered.
    """
    at = {int(shot): image.astype(np.float32) for shot, image in zip(shots, images, strict=True)}
    jumps = np.full((1, max(0, count - 3)), np.nan)
    for frame in range(2, count - 1):
        needed = [at.get(frame + offset) for offset in (-2, -1, 0, 1)]
        a, b, c, d = needed
        if a is not None and b is not None and c is not None and d is not None:
            jumps[0, frame - 2] = float(np.abs((c - b) - ((b - a) + (d - c)) / 2).mean())
    return jumps


def seam_shots(hop: int, count: int) -> Array:
    """The frames around the seams of a track, int64 [K]: around the first ones, up to `BORDERS`."""
    borders = np.arange(hop, count, hop)[:BORDERS]
    shots = {frame for border in borders for frame in range(border - BEFORE, border + BEHIND) if 0 <= frame < count}
    return np.array(sorted(shots), np.int64)


def _scene(
    take: Take,
    bundle: Bundle,
    engines: Mapping[str, Engine],
    foresight: Foresight | None,
    progress: Callable[[int, int], None],
) -> _Scene:
    """Render around the seams; a frame whose window is the same with two look-aheads is rendered once."""
    manifest = bundle.manifest
    hop = manifest.generator.hop
    _, track = react(take, manifest, engines)
    shots = seam_shots(hop, track.shape[1])
    made: dict[tuple[int, int], Array] = {}
    ends, images = {}, {}
    for lookahead in LOOKAHEADS:
        keys = [(shot, _reach(shot, lookahead, hop, track.shape[1])) for shot in shots.tolist()]
        missing = [key for key in keys if key not in made]
        if missing:
            frames = np.array([shot for shot, _ in missing], np.int64)
            pictures = render(take.portrait, track, frames, manifest, engines, lookahead=lookahead, foresight=foresight)
            made |= dict(zip(missing, pictures, strict=True))
        images[lookahead] = np.stack([made[key] for key in keys])
        ends[lookahead] = np.array([end for _, end in keys])
        progress(lookahead + 1, len(LOOKAHEADS))
    return _Scene(shots, track.shape[1], ends, images)


def _reach(shot: int, lookahead: int, hop: int, count: int) -> int:
    """The frame at which the window of a frame ends, which is all that a look-ahead changes."""
    closed = ((shot + lookahead) // hop + 1) * hop
    return min(closed, count, shot + WINDOW_RADIUS + 1)


def _point(scenes: Sequence[_Scene], lookahead: int, hop: int, *, added: int, delay: int) -> Point:
    full = [scene.images[WINDOW_RADIUS] for scene in scenes]
    here = [scene.images[lookahead] for scene in scenes]
    pairs = [pair for one, other in zip(full, here, strict=True) for pair in zip(one, other, strict=True)]
    apart = [one.astype(np.float32) - other for one, other in pairs]
    errors = np.array([float(np.square(each).mean()) for each in apart])
    border, reach = (_border(scenes, lookahead, hop, before) for before in (0, lookahead))
    return Point(
        lookahead=lookahead,
        added_ms=added * 1000 / FPS,
        delay_ms=delay * 1000 / FPS,
        same=float(np.concatenate([one.ends[lookahead] == one.ends[WINDOW_RADIUS] for one in scenes]).mean()),
        levels=float(np.mean([np.abs(each).mean() for each in apart])),
        psnr_db=psnr_db(float(errors.mean())),
        lowest_psnr_db=psnr_db(float(errors.max())),
        ssim=min(similarity(one, other) for one, other in zip(full, here, strict=True)),
        jump=border.at_borders,
        jump_inside=border.within,
        seam_z=border.z,
        reach_jump=reach.at_borders,
        reach_z=reach.z,
    )


def _border(scenes: Sequence[_Scene], lookahead: int, hop: int, before: int) -> Border:
    """Jumps of all takes so many frames before seams, takes behind one another, each cut to whole segments."""
    parts = []
    for scene in scenes:
        jumps = picture_jumps(scene.images[lookahead], scene.shots, scene.count)
        whole = scene.count // hop * hop
        parts.append(np.pad(jumps, ((0, 0), (2, 1)), constant_values=np.nan)[:, :whole])
    found = compare_borders(np.concatenate(parts, axis=1)[:, 2:], hop, first=2 + before, reach=1)
    assert found is not None
    return found


def _numbered(progress: Progress, doing: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(doing, done, total)
