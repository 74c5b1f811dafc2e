"""All figures that can be told of some predictions, and why others cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pflx.engines import Array, BackendMissingError, FeedError
from pflx.runtime.evaluation.challenge import fr_corr, fr_div, fr_dvs, fr_var
from pflx.runtime.evaluation.distance import FEATURES, fr_dist
from pflx.runtime.evaluation.pictures.frechet import STEP, RealPictures
from pflx.runtime.evaluation.pictures.videos import Progress, Shown, judge_videos, videos_of
from pflx.runtime.evaluation.predictions import WITH_POSNET, WITHOUT_POSNET, InputError, Predictions
from pflx.runtime.evaluation.results import (
    NAMES,
    Challenge,
    Evaluation,
    LeftOut,
    Motion,
    PictureFigures,
    Realism,
    UndefinedError,
)
from pflx.runtime.evaluation.smoothness import judge_motion
from pflx.runtime.evaluation.synchrony import lags
from pflx.runtime.frames.coefficients import COEFFICIENTS, POSE
from pflx.runtime.frames.timing import FPS


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is evaluated, and how.

    Attributes:
        predictions: as read.
        listener: `[N, T, D]` true reactions.
        speaker: `[N, T, D]`.
        neighbours: `[N, N]`; None: to every clip its own reaction only is appropriate.
        video: rendered from the predictions: of one clip, or the folder that `pflx batch --video` made.
        steadiness: whether flicker and flow of the videos are wanted; they take long.
        real: real pictures, for FRRea.
        vbench: what VBench said of the videos, see `pictures.vbench`.
        hop: frames of a segment, where the predictions do not say.
        posnet: True for the track with PosNet only, False for the one without; None for all.
        all_samples: FRSyn of all reactions too.
    """

    predictions: Predictions
    listener: Array | None = None
    speaker: Array | None = None
    neighbours: Array | None = None
    video: Path | None = None
    steadiness: bool = True
    real: RealPictures | None = None
    vbench: Mapping[str, float] = field(default_factory=dict)
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
        MediaError: a video cannot be read.
    """
    tracks, hop = inputs.tracks, inputs.known_hop
    fps = inputs.predictions.fps or FPS
    clips, samples, frames = inputs.predictions.shape
    _check_shapes(inputs, tracks)
    left_out: list[LeftOut] = []
    videos = [] if inputs.video is None else videos_of(inputs.video, inputs.predictions)
    pictures = _pictures(inputs, videos, hop, left_out, progress)
    realism = _realism(inputs, videos, left_out, progress)
    if not inputs.vbench:
        why = "pass --vbench RESULT.json of VBench, which takes the folder that --vbench-folder DIR writes"
        left_out.append(LeftOut(figure="VBench", why=why))
    challenge = [_challenge(inputs, name, track, left_out, progress) for name, track in tracks.items()]
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
        realism=realism,
        vbench=dict(inputs.vbench),
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


def _challenge(inputs: Inputs, name: str, track: Array, left_out: list[LeftOut], progress: Progress) -> Challenge:
    """The challenge's figures of one track."""
    found: dict[str, Any] = {}
    truth, speaker = (
        array if array is not None and array.shape[-1] == track.shape[-1] else None
        for array in (inputs.listener, inputs.speaker)
    )
    near = np.eye(len(track)) if inputs.neighbours is None else inputs.neighbours

    def clip_by_clip(figure: str) -> Callable[[int], None]:
        return lambda done: progress(figure, done, len(track))

    figures: dict[str, Callable[[], float]] = {
        "fr_corr": lambda: fr_corr(
            track, _needed(truth, inputs.listener, "listener", track), near, clip_by_clip("FRCorr")
        ),
        "fr_dist": lambda: _distance(track, truth, inputs.listener, near, clip_by_clip("FRDist")),
        "fr_dvs": lambda: fr_dvs(track),
        "fr_var": lambda: fr_var(track),
        "fr_div": lambda: fr_div(track),
    }
    for figure, tell in figures.items():
        progress(NAMES[figure], 0, None)
        with _leaving_out(NAMES[figure], name, left_out):
            found[figure] = tell()
    with _leaving_out(NAMES["fr_syn"], name, left_out):
        heard = _needed(speaker, inputs.speaker, "speaker", track)
        trailing = lags(track if inputs.all_samples else track[:, :1], heard, clip_by_clip("FRSyn"))
        found |= {"fr_syn": float(trailing[:, 0].mean()), "lags": trailing.tolist()}
        if inputs.all_samples:
            found["fr_syn_all"] = float(trailing.mean())
    return Challenge(track=name, features=track.shape[-1], **found)


def _distance(
    track: Array, truth: Array | None, given: Array | None, near: Array, count: Callable[[int], None]
) -> float:
    if track.shape[-1] != FEATURES:  # said first: a listener would not help
        raise UndefinedError(f"it is defined for the {FEATURES} emotion features only, not for {track.shape[-1]}")
    return fr_dist(track, _needed(truth, given, "listener", track), near, count)


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


def _pictures(
    inputs: Inputs, videos: Sequence[Path], hop: int | None, left_out: list[LeftOut], progress: Progress
) -> PictureFigures | None:
    """Flicker and dynamic degree of the videos; where the speaker is in one, of the first reaction beside it."""
    figures = "flicker and dynamic degree"
    if not inputs.steadiness:
        return None
    if inputs.video is None:
        left_out.append(LeftOut(figure=figures, why="pass --video FILE or FOLDER, rendered from these"))
        return None
    with _leaving_out(figures, "", left_out):
        return judge_videos(inputs.video, videos, inputs.predictions, hop=hop, progress=progress)
    return None


def _realism(inputs: Inputs, videos: Sequence[Path], left_out: list[LeftOut], progress: Progress) -> Realism | None:
    """FRRea of every 30th frame of the videos."""
    if inputs.real is None or inputs.video is None:
        needs = [] if inputs.video else ["--video FILE or FOLDER"]
        needs += [] if inputs.real else ["--fid-network NET.onnx and --real FOLDER of real pictures or clips"]
        left_out.append(LeftOut(figure="FRRea", why=f"pass {', '.join(needs)}"))
        return None
    frames = (
        picture
        for video in videos
        for index, picture in enumerate(Shown(video, inputs.predictions))
        if index % STEP == 0
    )
    total = len(videos) * -(-inputs.predictions.shape[2] // STEP)
    with _leaving_out("FRRea", "", left_out):
        return inputs.real.distance_to(frames, lambda done: progress("FRRea", done, total))
    return None
