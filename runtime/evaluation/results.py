"""What an evaluation found, as data that is written to JSON."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from pflx.engines import PflxError
from pflx.engines.files.writer import write_whole

SCHEMA = 1

NAMES = {
    "fr_corr": "FRCorr",
    "fr_dist": "FRDist",
    "fr_dvs": "FRDvs",
    "fr_var": "FRVar",
    "fr_div": "FRDiv",
    "fr_syn": "FRSyn",
    "fr_syn_all": "FRSyn_all",
}
"""Of the figures in JSON and in text."""

_NUMBERS = re.compile(rb"\[(?:\s+-?\d+,?)+\s+\]")


class UndefinedError(PflxError, ValueError):
    """What was given is too little to tell a figure by."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the evaluation."""


class Challenge(_Record, frozen=True, kw_only=True, rename=NAMES):
    """The challenge's figures of one track; None where a figure cannot be told, see `Evaluation.left_out`.

    Attributes:
        track: its name.
        features: D.
        fr_var: see `challenge.fr_var`; and so on.
        fr_syn: of the first reaction to each clip, as published.
        fr_syn_all: of all reactions; None where it was not asked for.
        lags: frames, by clip and reaction: what FRSyn is the mean of.
    """

    track: str
    features: int
    fr_corr: float | None = None
    fr_dist: float | None = None
    fr_dvs: float | None = None
    fr_var: float | None = None
    fr_div: float | None = None
    fr_syn: float | None = None
    fr_syn_all: float | None = None
    lags: list[list[int]] = []


class Border(_Record, frozen=True, kw_only=True):
    """A quantity at the borders of segments, against the same quantity inside of them.

    Attributes:
        borders: values at borders.
        inside: values inside.
        at_borders: mean at borders; None without any.
        within: mean inside; None without any.
        z: (mean at borders − mean inside) / standard deviation inside; None where it cannot be told.
        refused: why not; empty if it is told.
    """

    borders: int
    inside: int
    at_borders: float | None
    within: float | None
    z: float | None
    refused: str = ""


class Motion(_Record, frozen=True, kw_only=True):
    """How smooth the rotation or the translation of one track is.

    Attributes:
        track: its name.
        quantity: `rotation` or `translation`.
        unit: `deg`, or `unit` of the face model.
        jump: at borders; None where segments are not known.
        velocity_jump: per second.
        acceleration_jump: per second².
        jerk: mean size of the third derivative, per second³.
        speed: mean size of the first derivative, per second.
    """

    track: str
    quantity: str
    unit: str
    jump: Border | None
    velocity_jump: Border | None
    acceleration_jump: Border | None
    jerk: float
    speed: float


class PictureFigures(_Record, frozen=True, kw_only=True):
    """How steady pictures are, and how much moves in them. See `pictures.flicker`.

    Attributes:
        path: the video, or the folder of videos; empty where it was no file.
        part: what of each picture was looked at.
        videos: how many.
        frames: of each.
        flicker: mean absolute difference of consecutive pictures, levels of 255.
        temporal_flickering: VBench's: (255 - the same of pictures that were not scaled) / 255, mean over videos.
            Source: VBench 45e79ec, temporal_flickering.
        unexplained_flicker: the same after the motion was taken out; None where no pixel could be followed.
        dynamic_degree: mean of the fastest 5 % of the optical flow, pixels a frame at a shorter side of 256.
        flicker_at_borders: `unexplained_flicker` at borders; None where segments are not known.
        flow_at_borders: mean size of the flow there.
    """

    path: str = ""
    part: str = ""
    videos: int = 1
    frames: int
    flicker: float
    temporal_flickering: float
    unexplained_flicker: float | None
    dynamic_degree: float
    flicker_at_borders: Border | None = None
    flow_at_borders: Border | None = None


class Realism(_Record, frozen=True, kw_only=True, rename={"fr_rea": "FRRea"}):
    """FRRea, a Fréchet distance of pictures. See `pictures.frechet`.

    Attributes:
        fr_rea: squared distance, 0 and up.
        network: the file of the network.
        features: D of the network.
        pictures: rendered ones.
        real: real ones.
    """

    fr_rea: float
    network: str
    features: int
    pictures: int
    real: int

    @property
    def too_few(self) -> bool:
        """Whether there are no more pictures than features, so that a covariance has directions without any spread."""
        return min(self.pictures, self.real) <= self.features


class LeftOut(_Record, frozen=True, kw_only=True):
    """A figure that is not there.

    Attributes:
        figure: its name.
        track: for which track; empty for all.
        why: and what to do about it.
    """

    figure: str
    track: str = ""
    why: str


class Evaluation(_Record, frozen=True, kw_only=True):
    """One evaluation.

    Attributes:
        schema: version of this description.
        command: the command line that made it.
        pflx: version.
        predictions: the file.
        clips: N.
        samples: K, reactions to each.
        frames: T of each.
        fps: frames per second.
        hop: frames of a segment; None where it is not known.
        untrained: seed of made-up weights; None for trained ones, or where it is not known.
        chain: what of the chain was left out or exchanged, in words; empty where it is not known.
        neighbours: how many reactions are appropriate to a clip on average; None where every clip has its own only.
        challenge: figures of each track.
        motion: rotation and translation of each track that has a pose.
        pictures: of the videos.
        realism: of the videos, against real pictures.
        vbench: dimensions that VBench judged, 0…1, mean over videos.
        left_out: what is not there.
    """

    schema: int = SCHEMA
    command: str = ""
    pflx: str
    predictions: str
    clips: int
    samples: int
    frames: int
    fps: float
    hop: int | None
    untrained: int | None
    chain: list[str] = []
    neighbours: float | None
    challenge: list[Challenge]
    motion: list[Motion]
    pictures: PictureFigures | None = None
    realism: Realism | None = None
    vbench: dict[str, float] = {}
    left_out: list[LeftOut]


def save_evaluation(path: Path, evaluation: msgspec.Struct) -> None:
    """Write an evaluation, or a comparison of several, as JSON that appears at its path complete, or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    indented = msgspec.json.format(msgspec.json.encode(evaluation), indent=2)
    write_whole(path, _NUMBERS.sub(lambda numbers: re.sub(rb"\s+", b" ", numbers[0]), indented) + b"\n")
