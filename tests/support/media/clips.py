"""Clips of a known picture at every moment, and what is seen and heard in them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

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
