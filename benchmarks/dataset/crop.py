"""Clips cropped by pflx, against a loop that goes about it as the released code does, in one run.

    pip install --target FOLDER --no-deps 'opencv-python-headless<5'
    PYTHONPATH=benchmarks python benchmarks/dataset/crop.py FOLDER CLIP... [--heights 576] [--seconds 4] [--rounds 3]

FOLDER has an OpenCV with cascades, which OpenCV 5 dropped; here all use it. The loop reads all frames into memory,
looks for faces in each with the Haar cascade at full size (scale 1.1, 6 neighbours, from 60 px on), and writes the
crops as mp4v without sound; OpenCV takes as many threads as it likes. pflx reads each clip twice and keeps the sound.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import report

from pflx.engines.graphs.threads import usable_cores
from pflx.runtime import open_speaker
from pflx.runtime.dataset.crop_folder import crop_clips
from pflx.runtime.dataset.crop_record import read_record
from pflx.runtime.media.video_writer import VideoWriter
from pflx.runtime.speaker.pfl import crop, fixed_region, track_boxes

WINDOW = 256


def released_loop(clips: Sequence[Path], folder: Path) -> tuple[int, int]:
    """Frames with a face, and all."""
    import cv2

    library: Any = cv2
    finder = library.CascadeClassifier(library.data.haarcascades + "haarcascade_frontalface_default.xml")
    seen = total = 0
    for clip in clips:
        reader, frames = cv2.VideoCapture(str(clip)), []
        while (read := reader.read())[0]:
            frames.append(read[1])
        found = [
            finder.detectMultiScale(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 1.1, 6, minSize=(60, 60))
            for frame in frames
        ]
        boxes = track_boxes([[*map(tuple, each)] for each in found])
        region = fixed_region(boxes, (frames[0].shape[1], frames[0].shape[0]), window=WINDOW)
        writer = cv2.VideoWriter(
            str(folder / clip.name),
            cv2.VideoWriter.fourcc(*"mp4v"),
            reader.get(cv2.CAP_PROP_FPS),
            (WINDOW, WINDOW),
        )
        for frame in frames:
            writer.write(crop(np.asarray(frame, np.uint8)[None], region, WINDOW)[0].copy())
        writer.release()
        seen, total = seen + len(boxes), total + len(frames)
    return seen, total


def scaled(clip: Path, height: int, seconds: float, folder: Path) -> Path:
    """The clip's start, as so many lines."""
    import cv2

    speaker = open_speaker(clip).limited(seconds)
    height = height or speaker.height
    size = (2 * round(speaker.width * height / speaker.height / 2), height)
    path = folder / f"{clip.stem}_{height}.mp4"
    with VideoWriter(path, size, audio=speaker.has_audio) as writer:
        for chunk in speaker.chunks():
            writer.write(np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in chunk.video]))
            if speaker.has_audio:
                writer.write_audio(chunk.audio)
    return path


def measure(clips: Sequence[Path], folder: Path, rounds: int) -> dict[str, Any]:
    """All ways in turn, on clips of one height."""
    (folder / "loop").mkdir(parents=True)
    cores = usable_cores()
    counts: list[tuple[int, int]] = []
    runs: dict[str, Callable[[], object]] = {
        "loop": lambda: counts.append(released_loop(clips, folder / "loop")),
        "pflx, one process": partial(crop_clips, clips, folder / "one", workers=1, redo=True),
        f"pflx, {cores} processes": partial(crop_clips, clips, folder / "all", workers=cores, redo=True),
    }
    seconds = report.interleaved(runs, rounds=rounds)
    seen, total = counts[-1]
    records = [read_record(folder / "one" / f"{clip.stem}.mp4") for clip in clips]
    boxes = [box for record in records if record is not None for box in record.boxes]
    return {
        "sizes": ["{}x{}".format(*record.frame_size) for record in records if record is not None],
        "frames": total,
        "frames_with_a_face": {"loop": seen, "pflx": sum(box is not None for box in boxes)},
        "times": {name: report.summary(each) for name, each in seconds.items()},
        "clips_per_second": {name: round(len(clips) / min(each), 3) for name, each in seconds.items()},
        "loop_takes_times_as_long_as": {
            name: round(1 / report.ratio(seconds, name, "loop")["median_of_rounds"], 2)
            for name in runs
            if name != "loop"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("opencv", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--heights", type=int, nargs="+", default=[0, 576], help="of the clips; 0 leaves them")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each clip")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    sys.path.insert(0, str(given.opencv.resolve()))
    os.environ["PYTHONPATH"] = str(given.opencv.resolve())  # of the workers
    import cv2

    machine = report.machine(usable_cores())
    machine["versions"]["opencv-python-headless"] = cv2.__version__
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        for height in given.heights:
            place = Path(folder) / str(height)
            place.mkdir()
            clips = [scaled(clip, height, given.seconds, place) for clip in given.clips]
            cases["as they are" if height == 0 else f"{height} lines"] = measure(clips, place / "crops", given.rounds)
    names = " ".join(f"tests/media/{clip.name}" for clip in given.clips)
    heights = " ".join(map(str, given.heights))
    options = f"--heights {heights} --seconds {given.seconds:g} --rounds {given.rounds}"
    command = f"PYTHONPATH=benchmarks python benchmarks/dataset/crop.py FOLDER {names} {options}"
    report.write("crop_cpu", {"command": command, "machine": machine, "cases": cases})


if __name__ == "__main__":
    main()
