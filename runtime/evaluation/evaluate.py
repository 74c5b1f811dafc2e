"""All figures that can be told of some predictions, and why others cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pflx.engines import Array, BackendMissingError, FeedError
from pflx.runtime.evaluation.challenge import fr_corr, fr_div, fr_dvs, fr_var
from pflx.runtime.evaluation.distance import FEATURES, fr_dist
from pflx.runtime.evaluation.flicker import judge_pictures
from pflx.runtime.evaluation.predictions import WITH_POSNET, WITHOUT_POSNET, InputError, Predictions
from pflx.runtime.evaluation.results import (
    NAMES,
    Challenge,
    Evaluation,
    LeftOut,
    Motion,
    PictureFigures,
    UndefinedError,
)
from pflx.runtime.evaluation.smoothness import judge_motion
from pflx.runtime.evaluation.synchrony import lags
from pflx.runtime.frames.coefficients import COEFFICIENTS, POSE
from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.clip import open_speaker

Progress = Callable[[str, int, int | None], None]
"""What is being done, steps done, steps in all."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is evaluated, and how.

    Attributes:
        predictions: as read.
        listener: `[N, T, D]` true reactions.
        speaker: `[N, T, D]`.
        neighbours: `[N, N]`; None: to every clip its own reaction only is appropriate.
        video: rendered from the predictions.
        hop: frames of a segment, where the predictions do not say.
        posnet: True for the track with PosNet only, False for the one without; None for all.
        all_samples: FRSyn of all reactions too.
    """

    predictions: Predictions
    listener: Array | None = None
    speaker: Array | None = None
    neighbours: Array | None = None
    video: Path | None = None
    hop: int | None = None
    posnet: bool | None = None
    all_samples: bool = False

    @property
    def tracks(self) -> dict[str, Array]:
        """The tracks to evaluate."""
        tracks = dict(self.predictions.tracks)
        if self.posnet is None:
            return tracks
        wanted, other = (WITH_POSNET, WITHOUT_POSNET) if self.posnet else (WITHOUT_POSNET, WITH_POSNET)
        if wanted not in tracks:
            option = "--with-posnet" if self.posnet else "--without-posnet"
            raise FeedError(
                f"{self.predictions.path} holds one track only, {next(iter(tracks))}. Leave out {option}, or give what "
                f"pflx run --coefficients wrote {wanted}."
            )
        tracks.pop(other, None)
        return tracks

    @property
    def known_hop(self) -> int | None:
        """Frames of a segment; None where nobody says."""
        said = self.predictions.hop
        if said is not None and self.hop is not None and said != self.hop:
            raise FeedError(f"{self.predictions.path} has segments of {said} frames, not {self.hop}. Leave --hop out.")
        return said or self.hop


def evaluate(inputs: Inputs, *, command: str = "", progress: Progress = lambda *_: None) -> Evaluation:
    """Tell all that can be told.

    Args:
        inputs: what is evaluated.
        command: for the result.
        progress: is called as work goes on.

    Raises:
        FeedError: inputs contradict one another.
        InputError: an input has another shape than the predictions.
        MediaError: the video cannot be read.
    """
    tracks, hop = inputs.tracks, inputs.known_hop
    fps = inputs.predictions.fps or FPS
    clips, samples, frames = inputs.predictions.shape
    _check_shapes(inputs, tracks)
    left_out: list[LeftOut] = []
    pictures = _pictures(inputs, hop, left_out, progress)
    challenge = [
        _challenge(inputs, name, track, left_out, lambda figure: progress(figure, 0, None))
        for name, track in tracks.items()
    ]
    motion = list(chain.from_iterable(_motion(name, track, hop, fps, left_out) for name, track in tracks.items()))
    return Evaluation(
        command=command,
        pflx=version("pflx"),
        predictions=str(inputs.predictions.path),
        clips=clips,
        samples=samples,
        frames=frames,
        fps=fps,
        hop=hop,
        untrained=inputs.predictions.untrained,
        chain=list(inputs.predictions.chain),
        neighbours=None if inputs.neighbours is None else float(inputs.neighbours.sum(axis=1).mean()),
        challenge=challenge,
        motion=motion,
        pictures=pictures,
        left_out=left_out,
    )


def pose_of(track: Array) -> dict[str, tuple[str, Array]] | None:
    """Rotation in degrees and translation of 58 coefficients, each `[N·K, T, 3]` after its unit; None of others."""
    if track.shape[-1] != COEFFICIENTS:
        return None
    pose = track[..., POSE].reshape(-1, track.shape[2], 6).astype(np.float64)
    return {"rotation": ("deg", np.degrees(pose[..., :3])), "translation": ("unit", pose[..., 3:])}


def _check_shapes(inputs: Inputs, tracks: Mapping[str, Array]) -> None:
    """Every input is of the predictions' clips and frames, and of the features of one of the tracks."""
    clips, _, frames = inputs.predictions.shape
    features = sorted({track.shape[-1] for track in tracks.values()})
    for name, array in (("listener", inputs.listener), ("speaker", inputs.speaker)):
        if array is None or (array.shape[:2] == (clips, frames) and array.shape[2] in features):
            continue
        wanted = " or ".join(f"[{clips}, {frames}, {d}]" for d in features)
        raise InputError(f"The {name} is {list(array.shape)}; {inputs.predictions.path} takes {wanted}.")
    if inputs.neighbours is not None and len(inputs.neighbours) != clips:
        raise InputError(f"The neighbours are {list(inputs.neighbours.shape)}; there are {clips} clips.")


def _challenge(
    inputs: Inputs, name: str, track: Array, left_out: list[LeftOut], report: Callable[[str], None]
) -> Challenge:
    """The challenge's figures of one track."""
    found: dict[str, Any] = {}
    truth, speaker = (
        array if array is not None and array.shape[-1] == track.shape[-1] else None
        for array in (inputs.listener, inputs.speaker)
    )
    near = np.eye(len(track)) if inputs.neighbours is None else inputs.neighbours
    figures: dict[str, Callable[[], float]] = {
        "fr_corr": lambda: fr_corr(track, _needed(truth, inputs.listener, "listener", track), near),
        "fr_dist": lambda: _distance(track, truth, inputs.listener, near),
        "fr_dvs": lambda: fr_dvs(track),
        "fr_var": lambda: fr_var(track),
        "fr_div": lambda: fr_div(track),
    }
    for field, tell in figures.items():
        report(NAMES[field])
        with _leaving_out(NAMES[field], name, left_out):
            found[field] = tell()
    report(NAMES["fr_syn"])
    with _leaving_out(NAMES["fr_syn"], name, left_out):
        heard = _needed(speaker, inputs.speaker, "speaker", track)
        trailing = lags(track if inputs.all_samples else track[:, :1], heard)
        found |= {"fr_syn": float(trailing[:, 0].mean()), "lags": trailing.tolist()}
        if inputs.all_samples:
            found["fr_syn_all"] = float(trailing.mean())
    return Challenge(track=name, features=track.shape[-1], **found)


def _distance(track: Array, truth: Array | None, given: Array | None, near: Array) -> float:
    if track.shape[-1] != FEATURES:  # said first: a listener would not help
        raise UndefinedError(f"it is defined for the {FEATURES} emotion features only, not for {track.shape[-1]}")
    return fr_dist(track, _needed(truth, given, "listener", track), near)


def _needed(matching: Array | None, given: Array | None, name: str, track: Array) -> Array:
    """The input of this name."""
    if matching is not None:
        return matching
    shape = f"[N, T, {track.shape[-1]}] or [T, {track.shape[-1]}]"
    if given is not None:
        raise UndefinedError(f"--{name} has {given.shape[-1]} features; pass one of {shape} in its place")
    raise UndefinedError(f"pass --{name} FILE, {shape}")


@contextmanager
def _leaving_out(figure: str, track: str, left_out: list[LeftOut]) -> Iterator[None]:
    """What cannot be told is noted, and the others go on."""
    try:
        yield
    except (UndefinedError, BackendMissingError) as error:
        left_out.append(LeftOut(figure=figure, track=track, why=str(error).rstrip(".")))


def _motion(name: str, track: Array, hop: int | None, fps: float, left_out: list[LeftOut]) -> list[Motion]:
    """Rotation and translation of one track."""
    pose = pose_of(track)
    if pose is None:
        why = f"it is that of the pose, which {track.shape[-1]} features do not have"
        left_out.append(LeftOut(figure="smoothness", track=name, why=why))
        return []
    found = []
    with _leaving_out("smoothness", name, left_out):
        found = [
            judge_motion(values, fps=fps, hop=hop, track=name, quantity=quantity, unit=unit)
            for quantity, (unit, values) in pose.items()
        ]
    if hop is None:
        left_out.append(LeftOut(figure="seam score", track=name, why="pass --hop N, the frames of a segment"))
    return found


def _pictures(inputs: Inputs, hop: int | None, left_out: list[LeftOut], progress: Progress) -> PictureFigures | None:
    """Flicker and dynamic degree of the video; where the speaker is in it, of the first reaction beside it."""
    if inputs.video is None:
        left_out.append(LeftOut(figure="flicker and dynamic degree", why="pass --video FILE, rendered from these"))
        return None
    clips, samples, frames = inputs.predictions.shape
    if clips > 1:
        raise FeedError(f"--video {inputs.video} is one clip, {inputs.predictions.path} holds {clips}. Leave it out.")
    clip = open_speaker(inputs.video)
    beside = inputs.predictions.hop is not None and clip.width == clip.height * (1 + samples)
    edges = slice(clip.height, 2 * clip.height) if beside else slice(None)
    shown = 0

    def pictures() -> Iterator[Array]:
        nonlocal shown
        for picture in chain.from_iterable(chunk.video for chunk in clip.chunks()):
            shown += 1
            progress("comparing pictures", shown, frames)
            yield picture[:, edges]

    part = "the first reaction, right of the speaker" if beside else "the whole picture"
    figures = None
    with _leaving_out("flicker and dynamic degree", "", left_out):
        figures = judge_pictures(pictures(), hop=hop, path=str(inputs.video), part=part)
    if shown != frames:
        raise FeedError(f"{inputs.video} has {shown} frames, {inputs.predictions.path} has {frames}: not of one run.")
    return figures
