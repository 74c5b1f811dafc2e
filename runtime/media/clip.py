"""Video and audio in: any clip as 25 fps RGB pictures and mono sound of one rate on one clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from pflx.engines import FeedError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.timing import FPS, SAMPLE_RATE_HZ, samples_per_frame
from pflx.runtime.media.decoder import (
    TIME_TOLERANCE_S,
    DecodedStream,
    is_picture,
    opened,
    stamp_s,
    stated_duration_s,
    stream_of,
)
from pflx.runtime.media.errors import MediaError
from pflx.runtime.media.orientation import orientation_of
from pflx.runtime.media.pictures import shown_pictures
from pflx.runtime.media.sound import SampleTrack, sound_blocks


@dataclass(frozen=True)
class SpeakerChunk:
    """Some consecutive frames of a speaker and the sound that belongs to them.

    Attributes:
        video: uint8 [T, H, W, 3] RGB at 25 fps, turned upright.
        audio: float32 [sample rate / 25 * T] mono, about [-1, 1]; zeros where the clip has no sound.
        start_s: when the first frame is shown, from the start of the clip.
        skipped: damaged packets and frames left out so far, video and audio together.
    """

    video: UInt8Array
    audio: Float32Array
    start_s: float
    skipped: int


@dataclass(frozen=True)
class SpeakerFile:
    """A clip that was looked into. It holds no open file: `chunks` opens it anew each time.

    Attributes:
        path: the file.
        width: of a frame in pixels, turned upright. The stored pixels are taken as they are, as OpenCV does
            and the public training data was made, also where a player would stretch them.
        height: of a frame in pixels, turned upright.
        rotation: degrees anticlockwise by which the file asks to turn its pictures; done already.
        source_fps: mean frame rate of the file, if it states one.
        duration_s: length that the file states, if it does.
        frames: expected number of 25 fps frames, from `duration_s`.
        has_audio: whether there is sound.
        origin_s: time stamp of the earlier of the two streams' first frames: the zero of all other times.
        max_frames: 25 fps frames after which the clip is taken to end, if not at its own end.
        sample_rate_hz: of the sound that `chunks` gives, whatever the file's own.
    """

    path: Path
    width: int
    height: int
    rotation: int
    source_fps: float | None
    duration_s: float | None
    frames: int | None
    has_audio: bool
    origin_s: float
    max_frames: int | None = None
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def at_rate(self, sample_rate_hz: int) -> SpeakerFile:
        """The same clip, giving its sound at another rate, a multiple of 25 Hz."""
        samples_per_frame(sample_rate_hz)
        return replace(self, sample_rate_hz=sample_rate_hz)

    def limited(self, seconds: float) -> SpeakerFile:
        """The start of the clip: `seconds` of it, rounded to whole frames, or all if it is shorter.

        Raises:
            FeedError: not a number above 0.
        """
        if not 0 < seconds < math.inf:
            raise FeedError(f"A clip cannot be cut to {seconds} s. Give a number above 0.")
        limit = max(1, round(seconds * FPS))
        return replace(self, max_frames=limit, frames=min(self.frames or limit, limit))

    def chunks(self, frames_per_chunk: int = FPS) -> Iterator[SpeakerChunk]:
        """The clip from its start, in order.

        Frame k is the picture that a player shows at k / 25 s: the latest one whose time stamp is not later.
        Before the first picture the first one is shown. The pictures decide the length; sound that is shorter
        or has gaps is filled with silence. Time stamps that run back, or leap by more than a minute, are
        taken for a broken clock: the picture follows the one before it, the sound goes on. What cannot be
        decoded is left out, counted, and warned about once. Memory does not depend on the length.

        Args:
            frames_per_chunk: frames in each chunk but the last, which may have fewer.
        """
        video = DecodedStream(self.path, "video")
        audio = DecodedStream(self.path, "audio")
        pictures = islice(shown_pictures(video, self.origin_s, (self.width, self.height)), self.max_frames)
        sound = SampleTrack(sound_blocks(audio, self.origin_s, self.sample_rate_hz) if self.has_audio else iter(()))
        per_frame = samples_per_frame(self.sample_rate_hz)
        shown = 0
        while batch := list(islice(pictures, frames_per_chunk)):
            samples = sound.take(per_frame * len(batch))
            yield SpeakerChunk(np.stack(batch), samples, shown / FPS, video.skipped + audio.skipped)
            shown += len(batch)


def open_speaker(path: str | Path, sample_rate_hz: int = SAMPLE_RATE_HZ) -> SpeakerFile:
    """Look into a clip: any container, codec, frame rate, sample rate and channel count that FFmpeg reads.

    Args:
        path: the clip.
        sample_rate_hz: of the sound to give, a multiple of 25; see `SpeakerFile.at_rate`.

    Raises:
        FeedError: the rate is no multiple of 25.
        MediaError: there is no such file, it is no video, or none of its pictures can be decoded.
    """
    samples_per_frame(sample_rate_hz)
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path} is a folder. Give a video file.")
    if not path.exists():
        raise MediaError(f"{path} does not exist. Check the path.")
    with opened(path) as container:
        stream = stream_of(container, "video")
        if stream is None or is_picture(container):
            raise MediaError(f"{path} holds no video. Give a clip that shows the speaker.")
        duration_s = stated_duration_s(container, stream)
        source_fps = float(stream.average_rate) if stream.average_rate else None
        has_track = stream_of(container, "audio") is not None
    picture = next(iter(DecodedStream(path, "video")), None)
    if picture is None:
        raise MediaError(f"{path} holds no picture that can be decoded; it is empty or damaged.")
    sound = next(iter(DecodedStream(path, "audio")), None) if has_track else None
    width, height = picture.width, picture.height
    if orientation_of(picture)[0]:
        width, height = height, width
    return SpeakerFile(
        path=path,
        width=width,
        height=height,
        rotation=picture.rotation,
        source_fps=source_fps,
        duration_s=duration_s,
        frames=None if duration_s is None else max(1, math.ceil((duration_s - TIME_TOLERANCE_S) * FPS)),
        has_audio=sound is not None,
        origin_s=min(stamp_s(frame) or 0.0 for frame in (picture, sound) if frame is not None),
        sample_rate_hz=sample_rate_hz,
    )
