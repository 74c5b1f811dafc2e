"""A data set in the layout of the REACT challenge, made up."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from support.dataset.sets import PODIUM, WEBCAM
from support.media.clips import SoundTrack, write_tracks

from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.video_writer import VideoWriter

PAIRS = [
    ("NoXI/001_Paris/Expert_video/1", "NoXI/001_Paris/Novice_video/1"),
    ("RECOLA/group-1/P25/2", "RECOLA/group-1/P26/2"),
]
FRAMES = 60


def write_react(root: Path, pairs: Sequence[tuple[str, str]] = PAIRS, *, cut: bool = False) -> Path:
    """Two pairs in `val`: clips, sound, 3DMM of [T, 1, 58], and emotions in folders called P1 and P2.

    Args:
        root: the folder to make.
        pairs: of speakers and listeners.
        cut: whether the clips have as many frames as the numbers, and no more.
    """
    lines = [",speaker_path,listener_path", *(f"{number},{one},{other}" for number, (one, other) in enumerate(pairs))]
    root.mkdir()
    (root / "val.csv").write_text("\n".join(lines) + "\n")
    for number, name in enumerate(name for pair in pairs for name in pair):
        place = {kind: root / "val" / kind / name for kind in ("Video_files", "Audio_files", "3D_FV_files")}
        emotions = name
        for person, role in (("Expert_video", "P1"), ("Novice_video", "P2"), ("P25", "P1"), ("P26", "P2")):
            emotions = emotions.replace(f"/{person}/", f"/{role}/")
        place["Emotion"] = root / "val" / "Emotion" / emotions
        for path in place.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        clip, video = (PODIUM, WEBCAM)[number % 2], Path(f"{place['Video_files']}.mp4")
        if cut:
            _cut(clip, video)
        else:
            shutil.copyfile(clip, video)
        tone = np.sin(2 * np.pi * (200 + 50 * number) * np.arange(44_100 * 3) / 44_100) * 0.3
        sound = SoundTrack(tone[None].astype(np.float32), rate=44_100, codec="pcm_s16le")
        write_tracks(Path(f"{place['Audio_files']}.wav"), sound)
        numbers = np.random.default_rng(number).normal(0, 0.1, (FRAMES, 1, 58)).astype(np.float32)
        np.save(f"{place['3D_FV_files']}.npy", numbers)
        header = ",".join(f"c{column}" for column in range(25))
        rows = np.random.default_rng(number).uniform(0, 1, (FRAMES, 25))
        np.savetxt(f"{place['Emotion']}.csv", rows, delimiter=",", header=header, comments="")
    return root


def _cut(clip: Path, video: Path) -> None:
    opened = open_speaker(clip).limited(FRAMES / FPS)
    with VideoWriter(video, size=(opened.width, opened.height)) as writer:
        for chunk in opened.chunks():
            writer.write(chunk.video)
