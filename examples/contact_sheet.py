"""A run on one page: the speaker and the listener where something happens, and the motion before and after PosNet.

A line leads from each picture to its moment on the time axis. Scales are the same from run to run, wider only where the
motion needs it. Drawn at twice the size and scaled down, which is how Pillow gets smooth lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from PIL.PngImagePlugin import PngInfo

from pflx.runtime import FaceState, Region, SpeakerFile, open_speaker
from pflx.runtime.media.mark import xmp_packet
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

COLUMNS = 6
CELL = 200
LEFT, RIGHT, TOP, BOTTOM = 136, 24, 88, 92
CAPTION, LEADERS = 32, 56
PANEL, GAP = 96, 36

INK, SOFT, PALE, SEAM, PAPER = "#1c2430", "#5d6b7c", "#dfe4ea", "#c9d1d9", "#ffffff"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
TINTS = {BLUE: "#9cc9e6", ORANGE: "#f2b98d", GREEN: "#94d3bf"}
"""Of the wide lines under the thin ones."""
STATES = {"LOCKED": "#1a8f4c", "COASTING": "#e0a100", "LOST": "#c8362b", "REACQUIRED": "#3b7dd8"}
WARNING = "#c8362b"

POSE = slice(52, 58)
TO_PICTURE = np.array([1.0, -1.0, -1.0])
"""FaceVerse's angles to pitch, yaw and roll."""
LIDS, SMILE, BROWS = (
    [ARKIT_NAMES.index(name) for name in names]
    for names in (("eyeBlinkLeft", "eyeBlinkRight"), ("mouthSmileLeft", "mouthSmileRight"), ("browInnerUp",))
)
ANGLES, WEIGHTS, SHIFTS = (10.0, 20.0, 45.0, 90.0), (1.0, 2.0, 5.0, 20.0), (0.05, 0.2, 1.0, 5.0, 50.0)
"""Ends of the scales, in degrees, as weights and in FaceVerse units: the first that holds the motion."""
AT_LEAST = {"nod": 2.5, "blink": 0.5, "smile": 0.1, "turn": 3.0}
"""Of what is worth a picture: degrees, weights."""
APART = 5
"""Frames between two pictures, at least."""
Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Run:
    """What `pflx run --side-by-side --coefficients` left of one reaction."""

    generated: Array
    """[T, 6] pose of the generator: degrees, then FaceVerse units."""
    smoothed: Array
    """[T, 6] pose after PosNet."""
    face: Array
    """[T, 3] weights of lids, smile and brows."""
    faces: list[FaceState]
    region: Region | None
    """The crop that the generator sees; None where it sees no pictures."""
    fps: int
    hop: int
    untrained: int | None

    @property
    def is_joined(self) -> bool:
        """Whether the generator's own segments join, so that no PosNet has changed them."""
        return np.array_equal(self.generated, self.smoothed)

    @classmethod
    def read(cls, path: Path) -> Run:
        """From the `.npz`."""
        with np.load(path) as arrays:
            seed = int(arrays["untrained"])
            return cls(
                generated=_readable(arrays["generated_pose"][0]),
                smoothed=_readable(arrays["coefficients"][0, :, POSE]),
                face=np.stack([arrays["coefficients"][0][:, of].mean(axis=1) for of in (LIDS, SMILE, BROWS)], axis=1),
                faces=[FaceState(int(face)) for face in arrays["face"]],
                region=Region(*edges) if (edges := [int(edge) for edge in arrays["region"]]) else None,
                fps=int(arrays["fps"]),
                hop=int(arrays["hop"]),
                untrained=None if seed < 0 else seed,
            )

    @property
    def seconds(self) -> float:
        """Length of the reaction."""
        return len(self.generated) / self.fps


@dataclass(frozen=True)
class Moment:
    """A frame that is shown, and what happens in it."""

    frame: int
    name: str


def find_moments(run: Run) -> list[Moment]:
    """The frames to show: where the listener nods, blinks, smiles and turns most; one at rest, one before the nod.

    What does not happen leaves its place to a frame far from the others.
    """
    lids, smile, _ = run.face.T
    pitch, yaw = run.smoothed[:, 0], run.smoothed[:, 1]
    found: list[Moment] = []
    happens = {"nod": _dips(pitch), "blink": lids, "smile": smile * (1 - lids.clip(0, 1)), "turn": np.abs(yaw)}
    for name, much in happens.items():
        frame = _most(much, found)
        if much[frame] >= AT_LEAST[name]:
            found.append(Moment(frame, name))
    nods = [moment.frame for moment in found if moment.name == "nod"]
    if nods and (before := nods[0] - run.fps // 2) >= 0 and _distance(before, found) >= APART:
        found.append(Moment(before, "before the nod"))
    stir = np.abs(run.smoothed[:, :3]).sum(axis=1) + 10 * np.abs(run.face).sum(axis=1)
    found.append(Moment(_most(-stir, found), "rest"))
    while len(found) < COLUMNS:
        far = max(range(len(lids)), key=lambda frame: min(_distance(frame, found), frame + 1, len(lids) - frame))
        found.append(Moment(far, ""))
    return sorted(found[:COLUMNS], key=lambda moment: moment.frame)


def _dips(pitch: Array, around: int = 15) -> Array:
    """By how much each frame is lower than the highest before and after it, the lesser of both."""
    padded = np.pad(pitch, around, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, around + 1)
    return np.asarray(pitch - np.maximum(windows[: len(pitch)].min(axis=1), windows[around:].min(axis=1)))


def _most(much: Array, found: Sequence[Moment]) -> int:
    """Where there is most of something, apart from what was found."""
    free = [_distance(frame, found) >= APART for frame in range(len(much))]
    return int(np.argmax(np.where(free, much, -np.inf)))


def _distance(frame: int, found: Sequence[Moment]) -> int:
    return min((abs(frame - moment.frame) for moment in found), default=APART)


def draw_contact_sheet(speaker: Path, video: Path, coefficients: Path, sheet: Path) -> None:
    """Draw one run.

    Args:
        speaker: the clip that was reacted to.
        video: of `pflx run --side-by-side`: speaker on the left, listener on the right.
        coefficients: of the same run.
        sheet: the PNG to write.
    """
    run = Run.read(coefficients)
    moments, curves = find_moments(run), _curves(run)
    frames = [moment.frame for moment in moments]
    clip = open_speaker(speaker)
    picture_height = round(CELL * clip.height / clip.width)
    listener_top = TOP + picture_height + CAPTION
    plots_top = listener_top + CELL + LEADERS
    page = Page(LEFT + COLUMNS * CELL + RIGHT, plots_top + len(curves) * (PANEL + GAP) - GAP + BOTTOM)
    _title(page, run, speaker.name)

    _row_label(page, TOP + picture_height / 2, "speaker", "crop, face state" if run.region else "")
    for column, picture in enumerate(_frames(clip, frames)):
        left = LEFT + column * CELL
        shown = _with_region(picture, run.region) if run.region else Image.fromarray(picture)
        _paste(page, shown, (left, TOP, left + CELL, TOP + picture_height))
        _caption(page, left + 6, TOP + picture_height + CAPTION / 2, run, moments[column])

    _row_label(page, listener_top + CELL / 2, "listener", "")
    for column, picture in enumerate(_frames(open_speaker(video), frames)):
        left = LEFT + column * CELL
        listener = Image.fromarray(picture[:, picture.shape[1] // 2 :])
        _paste(page, listener, (left, listener_top, left + CELL, listener_top + CELL))

    _plots(page, run, curves, frames, plots_top)
    page.save(sheet)


class Page:
    """A canvas in page units (pixels of the finished picture), drawn at twice the size."""

    SCALE = 2

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * self.SCALE, height * self.SCALE), PAPER)
        self._draw = ImageDraw.Draw(self.image)
        self._fonts: dict[int, Any] = {}

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.0) -> None:
        """A polyline."""
        scaled = [(x * self.SCALE, y * self.SCALE) for x, y in points]
        self._draw.line(scaled, fill=colour, width=round(width * self.SCALE), joint="curve")

    def box(self, box: Box, fill: str | None = None, outline: str | None = None, radius: float = 0) -> None:
        """A rectangle, with round corners if wanted."""
        scaled = [value * self.SCALE for value in box]
        self._draw.rounded_rectangle(scaled, radius * self.SCALE, fill, outline, self.SCALE)

    def text(self, x: float, y: float, words: str, size: int = 15, colour: str = INK, anchor: str = "la") -> float:
        """Words at a point; returns where they end."""
        if size not in self._fonts:
            self._fonts[size] = ImageFont.load_default(size * self.SCALE)
        font = self._fonts[size]
        self._draw.text((x * self.SCALE, y * self.SCALE), words, colour, font, anchor)
        return x + float(font.getlength(words)) / self.SCALE

    def save(self, path: Path) -> None:
        """Scale down and write."""
        width, height = self.image.size
        told = PngInfo()
        told.add_itxt("XML:com.adobe.xmp", xmp_packet().decode())  # the listener's pictures are no camera's
        self.image.resize((width // self.SCALE, height // self.SCALE), Image.Resampling.LANCZOS).save(
            path, optimize=True, pnginfo=told
        )


def _readable(pose: Array) -> Array:
    """[T, 6] in radians and units → pitch, yaw, roll in degrees, without FaceVerse's half turn, and units."""
    degrees = np.degrees(pose[:, :3])
    return np.concatenate([(degrees - 180 * np.round(degrees / 180)) * TO_PICTURE, pose[:, 3:]], axis=1)


def _frames(clip: SpeakerFile, wanted: Sequence[int]) -> Iterator[Array]:
    pictures = chain.from_iterable(chunk.video for chunk in clip.chunks())
    last = -1
    for index in wanted:
        yield next(islice(pictures, index - last - 1, None))
        last = index


def _with_region(picture: Array, region: Region) -> Image.Image:
    """The frame, pale outside of the region."""
    image = Image.fromarray(picture)
    edges = (max(0, region.left), max(0, region.top), min(image.width, region.right), min(image.height, region.bottom))
    pale = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(0.15)).enhance(0.55)
    pale.paste(image.crop(edges), edges[:2])
    left, top, right, bottom = edges
    ImageDraw.Draw(pale).rectangle(
        (left, top, right - 1, bottom - 1), outline="#ffd400", width=max(2, image.width // 110)
    )
    return pale


def _paste(page: Page, image: Image.Image, box: Box) -> None:
    left, top, right, bottom = (round(value * page.SCALE) for value in box)
    inset = page.SCALE
    size = (right - left - 2 * inset, bottom - top - 2 * inset)
    page.image.paste(image.resize(size, Image.Resampling.LANCZOS), (left + inset, top + inset))


def _title(page: Page, run: Run, name: str) -> None:
    page.text(LEFT, 14, f"A listener's reaction to the first {run.seconds:g} s of {name}", 24)
    if run.untrained is None:
        return
    page.box((LEFT, 50, LEFT + 272, 74), fill=WARNING, radius=4)
    page.text(LEFT + 136, 62, f"UNTRAINED WEIGHTS (SEED {run.untrained})", 14, PAPER, "mm")
    words = "The pictures mean nothing, and neither does the pose: trained, PosNet takes the jumps away at the seams."
    page.text(LEFT + 286, 62, words, 14, WARNING, "lm")


def _row_label(page: Page, y: float, words: str, below: str) -> None:
    page.text(LEFT - 12, y - (9 if below else 0), words, 16, INK, "rm")
    page.text(LEFT - 12, y + 10, below, 13, SOFT, "rm")


def _caption(page: Page, x: float, y: float, run: Run, moment: Moment) -> None:
    """What happens and when, and whether the speaker's face was there, if that was looked for."""
    if moment.name:
        x = page.text(x, y, moment.name, 15, INK, "lm") + 10
    x = page.text(x, y, f"{moment.frame / run.fps:.2f} s", 13, SOFT, "lm") + 14
    if run.region is None:
        return
    state = run.faces[moment.frame].name
    page.box((x - 4, y - 4, x + 4, y + 4), fill=STATES[state], radius=4)
    page.text(x + 9, y, state.lower(), 13, SOFT, "lm")


@dataclass(frozen=True)
class Curves:
    """What one panel shows: the tracks after PosNet, [T, n], and where there is such a thing, those before."""

    title: str
    unit: str
    span: tuple[float, float]
    shown: Array
    before: Array | None = None
    names: tuple[str, ...] = ()


def _curves(run: Run) -> list[Curves]:
    """A panel for each angle and one for the face; one for the translation only where there is any."""
    made, joined = run.generated, run.smoothed
    angles = _span(ANGLES, made[:, :3], joined[:, :3])
    panels = [
        Curves(name, "degrees", angles, joined[:, [axis]], None if run.is_joined else made[:, [axis]])
        for axis, name in enumerate(("pitch", "yaw", "roll"))
    ]
    panels.append(Curves("face", "weight", _span(WEIGHTS, run.face), run.face, names=("lids", "smile", "brows")))
    shifts = made[:, 3:], joined[:, 3:]
    if max(float(np.abs(track).max()) for track in shifts) > 0.01:
        before = None if run.is_joined else shifts[0]
        panels.append(Curves("translation", "units", _span(SHIFTS, *shifts), shifts[1], before, ("x", "y", "z")))
    return panels


def _span(ends: Sequence[float], *tracks: Array) -> tuple[float, float]:
    """A scale around 0, or from it where nothing is below: the first end that holds the tracks, or the last."""
    low, high = min(float(track.min()) for track in tracks), max(float(track.max()) for track in tracks)
    end = next((end for end in ends if max(-low, high) <= end), ends[-1])
    return (0.0 if low >= 0 else -end), end


def _plots(page: Page, run: Run, curves: Sequence[Curves], frames: Sequence[int], top: float) -> None:
    """The panels under one another, each with its own scale and all with one time axis."""
    for index, shown in enumerate(curves):
        panel = Panel(page, (LEFT, top, LEFT + COLUMNS * CELL, top + PANEL), run, shown)
        if index == 0:
            panel.lead(frames, top - LEADERS)
        panel.draw(frames)
        panel.label()
        top += PANEL + GAP
    _time_axis(page, run, top - GAP)
    _legend(page, run, top - GAP + 72)


def _legend(page: Page, run: Run, y: float) -> None:
    x: float = LEFT
    if not run.is_joined:
        page.line([(x, y), (x + 26, y)], TINTS[ORANGE], 5)
        x = page.text(x + 34, y, "from the generator", 15, SOFT, "lm") + 28
    page.line([(x, y), (x + 26, y)], BLUE, 1.5)
    words = "from the generator, whose segments join without PosNet" if run.is_joined else "after PosNet"
    x = page.text(x + 34, y, words, 15, SOFT, "lm") + 28
    page.line([(x, y - 9), (x, y + 9)], SEAM, 1)
    x = page.text(x + 10, y, "seam between two segments", 15, SOFT, "lm") + 28
    page.line([(x, y - 9), (x, y + 9)], INK, 1)
    page.text(x + 10, y, "moment of a picture above", 15, SOFT, "lm")


def _time_axis(page: Page, run: Run, y: float) -> None:
    width = COLUMNS * CELL
    for second in range(int(run.seconds) + 1):
        x = LEFT + width * second / run.seconds
        page.line([(x, y), (x, y + 6)], SOFT)
        page.text(x, y + 10, str(second), 14, SOFT, "ma")
    page.text(LEFT + width / 2, y + 30, "time on the speaker's clock, s", 14, SOFT, "ma")


def _steps(track: Array, hop: int) -> tuple[float, float]:
    """Mean absolute change from one frame to the next: across seams, and inside segments."""
    steps = np.abs(np.diff(track, axis=0)).mean(axis=1)
    seams = np.arange(1, len(track)) % hop == 0
    return float(steps[seams].mean()), float(steps[~seams].mean())


class Panel:
    """One plot over the common time axis."""

    def __init__(self, page: Page, box: Box, run: Run, curves: Curves) -> None:
        self._page, self._run, self._curves = page, run, curves
        self._left, self._top, self._right, self._bottom = box

    def lead(self, frames: Sequence[int], top: float) -> None:
        """Lines from the pictures above to their moments."""
        for column, frame in enumerate(frames):
            x = LEFT + (column + 0.5) * CELL
            self._page.line([(x, top + 4), (x, top + 14), (self._x(frame), self._top)], INK)

    def draw(self, frames: Sequence[int]) -> None:
        """Grid, seams, moments, wide lines for what comes from the generator, thin ones for what is shown."""
        page, curves = self._page, self._curves
        for value in _ticks(*curves.span):
            page.line([(self._left, self._y(value)), (self._right, self._y(value))], PALE)
            page.text(self._left - 8, self._y(value), f"{value:g}", 13, SOFT, "rm")
        for seam in range(self._run.hop, len(curves.shown), self._run.hop):
            page.line([(self._x(seam - 0.5), self._top), (self._x(seam - 0.5), self._bottom)], SEAM)
        for frame in frames:
            page.line([(self._x(frame), self._top), (self._x(frame), self._bottom)], INK)
        colours = (BLUE, ORANGE, GREEN)[: curves.shown.shape[1]]
        if curves.before is not None:
            tints = [TINTS[colour] for colour in colours] if len(colours) > 1 else [TINTS[ORANGE]]
            self._lines(curves.before, tints, 5)
        self._lines(curves.shown, colours, 1.5)
        page.box((self._left, self._top, self._right, self._bottom), outline=SOFT)

    def label(self) -> None:
        """What it shows on the left; above it the names of its lines, or under it how large its steps are."""
        page, curves, middle = self._page, self._curves, (self._top + self._bottom) / 2
        page.text(18, middle - 9, curves.title, 16, INK, "lm")
        page.text(18, middle + 11, curves.unit, 13, SOFT, "lm")
        x = self._right - 76.0 * len(curves.names)
        for name, colour in zip(curves.names, (BLUE, ORANGE, GREEN), strict=False):
            page.line([(x, self._top - 11), (x + 18, self._top - 11)], colour, 2)
            x = page.text(x + 24, self._top - 11, name, 14, INK, "lm") + 18
        if not curves.names:
            joined, inside = _steps(curves.shown, self._run.hop)
            words = f"mean step at seams {joined:.2g}, inside segments {inside:.2g}"
            if curves.before is not None:
                made, within = _steps(curves.before, self._run.hop)
                words = (
                    f"mean step at seams {made:.2g}, after PosNet {joined:.2g}; "
                    f"inside segments {within:.2g}, {inside:.2g}"
                )
            page.text(self._left, self._bottom + 12, words, 13, SOFT, "lm")

    def _lines(self, tracks: Array, colours: Sequence[str], width: float) -> None:
        for colour, values in zip(colours, tracks.T, strict=True):
            points = [(self._x(frame), self._y(float(value))) for frame, value in enumerate(values)]
            self._page.line(points, colour, width)

    def _x(self, frame: float) -> float:
        return self._left + (self._right - self._left) * (frame + 0.5) / len(self._curves.shown)

    def _y(self, value: float) -> float:
        low, high = self._curves.span
        return self._bottom - (self._bottom - self._top) * min(1.0, max(0.0, (value - low) / (high - low)))


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers between low and high."""
    rough = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [float(round(index * step, 6)) for index in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
