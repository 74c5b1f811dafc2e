"""Camera and microphone of a browser that has none: files."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
from support.places import MEDIA


def fake_devices(folder: Path) -> list[str]:
    """Writes both; the flags by which Chromium takes them."""
    write_camera(folder / "camera.y4m")
    write_microphone(folder / "microphone.wav")
    return [
        f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}",
        f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}",
    ]


def write_camera(path: Path) -> None:
    """Y4M, 320x240 at 25 fps: five seconds of the webcam clip."""
    with av.open(MEDIA / "webcam_cap12_12s.mp4") as clip, path.open("wb") as file:
        file.write(b"YUV4MPEG2 W320 H240 F25:1 Ip A1:1 C420jpeg\n")
        for number, frame in enumerate(clip.decode(video=0)):
            if number == 125:
                return
            picture = frame.reformat(width=320, height=240, format="yuv420p").to_ndarray()
            file.write(b"FRAME\n" + picture.tobytes())


def write_microphone(path: Path) -> None:
    """WAV, 48 kHz: a second and a half of silence and three of speech, again and again."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
    with av.open(MEDIA / "podium_speech_8s.mp4") as clip:
        parts = [part.to_ndarray().ravel() for frame in clip.decode(audio=0) for part in resampler.resample(frame)]
    speech = np.concatenate(parts)[: 3 * 48_000]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(np.concatenate([np.zeros(72_000, np.int16), speech]).tobytes())
