"""A run on one page: the speaker and the listener along time, and the pose before and after PosNet.

Everything shares one time axis: a picture stands above the moment it shows. Drawn at twice the size and scaled down,
which is how Pillow gets smooth lines.
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

from pflx.runtime import FaceState, Region, SpeakerFile, open_speaker

COLUMNS = 8
CELL = 150
LEFT, RIGHT, TOP, BOTTOM = 108, 24, 88, 60
CAPTION, LEGEND = 28, 84
PANEL, GAP = 132, 40

INK, SOFT, PALE, PAPER = "#1c2430", "#5d6b7c", "#dfe4ea", "#ffffff"
AXES = {"x": "#0072b2", "y": "#d55e00", "z": "#009e73"}
STATES = {"LOCKED": "#1a8f4c", "COASTING": "#e0a100", "LOST": "#c8362b", "REACQUIRED": "#3b7dd8"}
WARNING = "#c8362b"

POSE = slice(52, 58)
Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Run:
    """What `pflx run --side-by-side --coefficients` left of one reaction."""

    generated: Array
    """[T, 6] pose of the generator: degrees, then FaceVerse units."""
    smoothed: Array
    """[T, 6] pose after PosNet."""
    faces: list[FaceState]
    region: Region | None
    """The crop that the generator sees; None where it sees no pictures."""
    fps: int
    hop: int
    untrained: int | None

    @classmethod
    def read(cls, path: Path) -> Run:
        """From the `.npz`."""
        with np.load(path) as arrays:
            seed = int(arrays["untrained"])
            return cls(
                generated=_readable(arrays["generated_pose"][0]),
                smoothed=_readable(arrays["coefficients"][0, :, POSE]),
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

    @property
    def instants(self) -> list[int]:
        """The frame in the middle of each column."""
        return [int((column + 0.5) * len(self.generated) / COLUMNS) for column in range(COLUMNS)]


def draw_contact_sheet(speaker: Path, video: Path, coefficients: Path, sheet: Path) -> None:
    """Draw one run.

    Args:
        speaker: the clip that was reacted to.
        video: of `pflx run --side-by-side`: speaker on the left, listener on the right.
        coefficients: of the same run.
        sheet: the PNG to write.
    """
    run = Run.read(coefficients)
    clip = open_speaker(speaker)
    picture_height = round(CELL * clip.height / clip.width)
    listener_top = TOP + picture_height + CAPTION
    plots_top = listener_top + CELL + LEGEND
    page = Page(LEFT + COLUMNS * CELL + RIGHT, plots_top + 4 * PANEL + 3 * GAP + BOTTOM)
    _title(page, run, speaker.name)

    _row_label(page, TOP + picture_height / 2, "speaker", "crop, face state" if run.region else "")
    for column, picture in enumerate(_frames(clip, run.instants)):
        left = LEFT + column * CELL
        shown = _with_region(picture, run.region) if run.region else Image.fromarray(picture)
        _paste(page, shown, (left, TOP, left + CELL, TOP + picture_height))
        _caption(page, left + 6, TOP + picture_height + CAPTION / 2, run, run.instants[column])

    _row_label(page, listener_top + CELL / 2, "listener", "")
    for column, picture in enumerate(_frames(open_speaker(video), run.instants)):
        left = LEFT + column * CELL
        listener = Image.fromarray(picture[:, picture.shape[1] // 2 :])
        _paste(page, listener, (left, listener_top, left + CELL, listener_top + CELL))

    _plots(page, run, plots_top)
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
        self.image.resize((width // self.SCALE, height // self.SCALE), Image.Resampling.LANCZOS).save(
            path, optimize=True
        )


def _readable(pose: Array) -> Array:
    """[T, 6] in radians and units → degrees, without the half turn of FaceVerse's heads, and units."""
    degrees = np.degrees(pose[:, :3])
    return np.concatenate([degrees - 180 * np.round(degrees / 180), pose[:, 3:]], axis=1)


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


def _caption(page: Page, x: float, y: float, run: Run, frame: int) -> None:
    """When the picture was shown, and whether the face was there, if that was looked for."""
    state = run.faces[frame].name
    x = page.text(x, y, f"{frame / run.fps:.2f} s", 13, SOFT, "lm") + 14
    if run.region is None:
        return
    page.box((x - 4, y - 4, x + 4, y + 4), fill=STATES[state], radius=4)
    page.text(x + 9, y, state.lower(), 13, SOFT, "lm")


def _plots(page: Page, run: Run, top: float) -> None:
    """Four panels under one another: rotation and translation, each before and after PosNet, on one scale each."""
    right = LEFT + COLUMNS * CELL
    panels = (
        ("rotation", "degrees", "from the generator", run.generated[:, :3], run.smoothed[:, :3]),
        ("rotation", "degrees", "after PosNet", run.smoothed[:, :3], run.generated[:, :3]),
        ("translation", "units", "from the generator", run.generated[:, 3:], run.smoothed[:, 3:]),
        ("translation", "units", "after PosNet", run.smoothed[:, 3:], run.generated[:, 3:]),
    )
    _legend(page, top - 46)
    for quantity, unit, stage, track, partner in panels:
        panel = Panel(page, (LEFT, top, right, top + PANEL), run, _range(track, partner))
        panel.draw(track)
        panel.name(quantity, unit, stage, _steps(track, run.hop))
        top += PANEL + GAP
    _time_axis(page, run, top - GAP)


def _legend(page: Page, y: float) -> None:
    x = float(LEFT)
    for axis, colour in AXES.items():
        page.line([(x, y), (x + 22, y)], colour, 2.5)
        x = page.text(x + 28, y, axis, 15, INK, "lm") + 20
    page.line([(x + 6, y - 9), (x + 6, y + 9)], "#aab4c0", 1.5)
    x = page.text(x + 16, y, "seam between two segments", 15, SOFT, "lm") + 24
    page.box((x, y - 3, x + 6, y + 3), fill=INK)
    page.text(x + 14, y, "moment of a picture above", 15, SOFT, "lm")


def _time_axis(page: Page, run: Run, y: float) -> None:
    width = COLUMNS * CELL
    for second in range(int(run.seconds) + 1):
        x = LEFT + width * second / run.seconds
        page.line([(x, y), (x, y + 6)], SOFT)
        page.text(x, y + 10, str(second), 14, SOFT, "ma")
    page.text(LEFT + width / 2, y + 30, "time on the speaker's clock, s", 14, SOFT, "ma")


def _range(*tracks: Array) -> tuple[float, float]:
    low, high = min(float(track.min()) for track in tracks), max(float(track.max()) for track in tracks)
    margin = 0.06 * (high - low) + 1e-6
    return low - margin, high + margin


def _steps(track: Array, hop: int) -> tuple[float, float]:
    """Mean absolute change from one frame to the next: across seams, and inside segments."""
    steps = np.abs(np.diff(track, axis=0)).mean(axis=1)
    seams = np.arange(1, len(track)) % hop == 0
    return float(steps[seams].mean()), float(steps[~seams].mean())


class Panel:
    """One plot over the common time axis."""

    def __init__(self, page: Page, box: Box, run: Run, span: tuple[float, float]) -> None:
        self._page, self._run, self._span = page, run, span
        self._left, self._top, self._right, self._bottom = box

    def draw(self, track: Array) -> None:
        """Grid, seams and one line per axis."""
        page, run = self._page, self._run
        for value in _ticks(*self._span):
            y = self._y(value)
            page.line([(self._left, y), (self._right, y)], PALE)
            page.text(self._left - 8, y, f"{value:g}", 13, SOFT, "rm")
        for seam in range(run.hop, len(track), run.hop):
            x = self._x(seam - 0.5)
            page.line([(x, self._top), (x, self._bottom)], "#aab4c0", 1.5)
        for colour, values in zip(AXES.values(), track.T, strict=True):
            points = [(self._x(frame), self._y(float(value))) for frame, value in enumerate(values)]
            page.line(points, colour, 2)
        for frame in run.instants:
            x = self._x(frame)
            page.box((x - 3, self._bottom - 3, x + 3, self._bottom + 3), fill=INK)
        page.box((self._left, self._top, self._right, self._bottom), outline=SOFT)

    def name(self, quantity: str, unit: str, stage: str, steps: tuple[float, float]) -> None:
        """What it shows, and how large its steps are."""
        end = self._page.text(self._left, self._top - 6, f"{quantity} {stage}", 16, INK, "ls")
        seam, inside = steps
        words = f"mean step {seam:.2g} {unit} at seams, {inside:.2g} inside segments"
        self._page.text(max(end + 20, self._left), self._top - 6, words, 14, SOFT, "ls")
        self._page.text(18, (self._top + self._bottom) / 2, unit, 14, SOFT, "lm")

    def _x(self, frame: float) -> float:
        return self._left + (self._right - self._left) * (frame + 0.5) / len(self._run.generated)

    def _y(self, value: float) -> float:
        low, high = self._span
        return self._bottom - (self._bottom - self._top) * (value - low) / (high - low)


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers between low and high."""
    rough = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [float(round(index * step, 6)) for index in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
