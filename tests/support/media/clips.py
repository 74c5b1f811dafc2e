"""Clips of a known picture at every moment, and what is seen and heard in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from pflx.runtime.evaluation.psnr import psnr_db
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.media.clip import SpeakerChunk, SpeakerFile

MILLISECOND = Fraction(1, 1000)


def grey_level(index: int) -> int:
    """A picture's own brightness, so that it can be told which one is shown."""
    return 20 + 9 * (index % 24)


def click_train(seconds: float, rate: int, channels: int = 1) -> Float32Array:
    """A 20 ms burst of 1 kHz at every half second, float32 [channels, N]."""
    t = np.arange(round(seconds * rate)) / rate
    burst = np.where(t % 0.5 < 0.02, 0.8 * np.sin(2 * np.pi * 1000 * t), 0.0)
    return np.tile(burst.astype(np.float32), (channels, 1))


def onsets(audio: Float32Array, rate: int = 16_000) -> Float32Array:
    """Seconds at which a burst begins."""
    width = rate // 500
    loud = np.convolve(np.abs(audio), np.ones(width) / width, "same") > 0.1
    starts = np.flatnonzero(loud[1:] & ~loud[:-1])
    return np.asarray(starts[np.diff(starts, prepend=-rate) > rate // 4] / rate, np.float32)


def write_clip(
    path: Path,
    times_s: Sequence[float],
    *,
    size: tuple[int, int] = (64, 48),
    rotation: int = 0,
    sound: Float32Array | None = None,
    rate: int = 16_000,
    sound_start_s: float = 0.0,
    sound_gap: tuple[float, float] | None = None,
    codec: str = "mpeg4",
    title: str = "",
) -> Path:
    """A clip whose n-th picture, shown from `times_s[n]`, has `grey_level(n)` and a red corner."""
    with av.open(str(path), "w") as container:
        if title:
            container.metadata["title"] = title
        video: Any = container.add_stream(codec, rate=1000)
        video.width, video.height = size
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video.time_base = video.codec_context.time_base = MILLISECOND
        video.codec_context.bit_rate = 2_000_000
        if rotation:
            video.set_display_rotation(rotation)
        audio: Any = None
        layout = ""
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = container.add_stream(
                "pcm_s16le" if path.suffix in (".mkv", ".avi", ".mov") else "aac", rate=rate, layout=layout
            )
        for index, time_s in enumerate(times_s):
            picture = np.full((size[1], size[0], 3), grey_level(index), np.uint8)
            picture[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), MILLISECOND
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            for start in range(0, sound.shape[1], 1024):
                if sound_gap and sound_gap[0] <= start / rate < sound_gap[1]:
                    continue
                block = np.ascontiguousarray(sound[:, start : start + 1024])
                piece = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
                piece.sample_rate, piece.time_base = rate, Fraction(1, rate)
                piece.pts = start + round(sound_start_s * rate)
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def read(speaker: SpeakerFile, frames_per_chunk: int = 7) -> SpeakerChunk:
    """The whole clip as one chunk."""
    chunks = list(speaker.chunks(frames_per_chunk))
    video = np.concatenate([chunk.video for chunk in chunks])
    audio = np.concatenate([chunk.audio for chunk in chunks])
    assert len(audio) == speaker.sample_rate_hz // 25 * len(video)
    return SpeakerChunk(video, audio, chunks[0].start_s, chunks[-1].skipped)


def shown(video: UInt8Array) -> list[int]:
    """Which picture each frame shows, by its brightness in the lower right."""
    levels = video[:, -8:, -8:].reshape(len(video), -1).mean(axis=1)
    return [round((level - 20) / 9) for level in levels]


@dataclass
class PictureTrack:
    """A stream of pictures at a steady rate.

    Attributes:
        pictures: uint8 [H, W, 3] RGB, or frames.
        rate: pictures per second.
        codec, pix_fmt, options: FFmpeg's.
        disposition: of the stream; None leaves it to the container.
        facts: what the codec's context is told: `sample_aspect_ratio`, `color_trc`, …
    """

    pictures: Sequence[npt.NDArray[Any] | av.VideoFrame]
    rate: int | Fraction = 25
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] | None = None
    disposition: Disposition | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, container: Any) -> Any:
        stream = container.add_stream(self.codec, rate=self.rate, options=self.options)
        first = self.pictures[0]
        size = (first.height, first.width) if isinstance(first, av.VideoFrame) else first.shape[:2]
        stream.height, stream.width = size
        stream.pix_fmt = self.pix_fmt
        if self.disposition is not None:
            stream.disposition = self.disposition
        for name, value in self.facts.items():
            setattr(stream.codec_context, name, value)
        return stream

    def write(self, container: Any, stream: Any) -> None:
        for index, each in enumerate(self.pictures):
            frame = each if isinstance(each, av.VideoFrame) else av.VideoFrame.from_ndarray(each, "rgb24")
            frame.pts, frame.time_base = index, 1 / Fraction(self.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@dataclass
class SoundTrack:
    """A stream of mono sound, float32 [1, N]."""

    sound: Float32Array
    rate: int = 16_000
    codec: str = "aac"
    disposition: Disposition | None = None

    def add(self, container: Any) -> Any:
        stream = container.add_stream(self.codec, rate=self.rate, layout="mono")
        if self.disposition is not None:
            stream.disposition = self.disposition
        return stream

    def write(self, container: Any, stream: Any) -> None:
        for start in range(0, self.sound.shape[1], 1024):
            piece = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(self.sound[:, start : start + 1024]), "fltp", "mono"
            )
            piece.sample_rate, piece.time_base, piece.pts = self.rate, Fraction(1, self.rate), start
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def write_tracks(path: Path, *tracks: PictureTrack | SoundTrack) -> Path:
    """A file of these streams, one stored after the other."""
    with av.open(str(path), "w") as container:
        streams = [track.add(container) for track in tracks]
        for track, stream in zip(tracks, streams, strict=True):
            track.write(container, stream)
    return path


def greys(count: int, size: tuple[int, int] = (64, 48)) -> list[UInt8Array]:
    """Pictures of `grey_level` each."""
    return [np.full((size[1], size[0], 3), grey_level(index), np.uint8) for index in range(count)]


def scene(index: int, size: tuple[int, int] = (96, 96)) -> UInt8Array:
    """A soft picture of every colour, which moves a little from one to the next."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin((x / width * (3 + colour) + y / height * (4 - colour) + index / 10) * 2.2) for colour in range(3)]
    return np.asarray(127.5 + 120 * np.stack(waves, -1), np.uint8)


def likeness_db(made: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of two videos, over all their pictures."""
    return psnr_db(float(np.mean((made.astype(np.float64) - expected) ** 2)))
