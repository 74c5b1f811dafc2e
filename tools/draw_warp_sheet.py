"""Draw docs/images/warp_sheet.png: what the weightless renderer makes of three portraits.

    python tools/draw_warp_sheet.py

Portraits and clips are those of tests/media. Needs pflx[cpu,export].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pflx.export.models.warp import WarpFrame, WarpPortrait
from pflx.runtime import open_speaker
from pflx.runtime.rendering.portrait import load_portrait
from pflx.runtime.rendering.warp import frame_portrait
from pflx.runtime.speaker.landmarks import ARKIT_NAMES, FaceMesh

ROOT = Path(__file__).resolve().parents[1]
MEDIA = ROOT / "tests" / "media"
SIZE, SHOWN, LABEL = 256, 144, 20
COLUMNS = 7

_ANGLES = ("pitch", "yaw", "roll")
SHOTS: Mapping[str, Mapping[str, float]] = {
    "as it is": {},
    "pitch 15": {"pitch": 15},
    "pitch -15": {"pitch": -15},
    "yaw 15": {"yaw": 15},
    "yaw -15": {"yaw": -15},
    "roll 15": {"roll": 15},
    "roll -15": {"roll": -15},
    "blink": {"eyeBlinkLeft": 1, "eyeBlinkRight": 1},
    "half a blink": {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5},
    "smile": {"mouthSmileLeft": 1, "mouthSmileRight": 1},
    "jaw": {"jawOpen": 0.5},
    "jaw, wide": {"jawOpen": 1},
    "brows up": {"browInnerUp": 1, "browOuterUpLeft": 1, "browOuterUpRight": 1},
    "nod, smile": {"pitch": 10, "yaw": 8, "roll": 6, "mouthSmileLeft": 0.7, "mouthSmileRight": 0.7, "jawOpen": 0.15},
}


def main() -> None:
    """Draw it."""
    sources = (
        load_portrait(MEDIA / "portrait_astronaut_256.png"),
        _frame("podium_speech_8s.mp4", 40),
        _frame("webcam_cap12_12s.mp4", 10),
    )
    mesh = FaceMesh()
    sheet = np.concatenate([_rows(*frame_portrait(source, SIZE, mesh)) for source in sources])
    target = ROOT / "docs" / "images" / "warp_sheet.png"
    cv2.imwrite(str(target), sheet[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _frame(clip: str, number: int) -> npt.NDArray[np.uint8]:
    frames = (picture for chunk in open_speaker(MEDIA / clip).chunks() for picture in chunk.video)
    return np.array(next(islice(frames, number, None)))


def _rows(portrait: npt.NDArray[np.uint8], geometry: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """All shots of one portrait."""
    track = torch.from_numpy(np.stack([_coefficients(**shot) for shot in SHOTS.values()]))[None]
    with torch.inference_mode():
        source = WarpPortrait()(torch.from_numpy(portrait.copy())[None])
        frames = torch.arange(len(SHOTS))
        images = WarpFrame(SIZE)(source, torch.from_numpy(geometry)[None], track, frames)[0].numpy()
    cells = [_labelled(image, name) for image, name in zip(images, SHOTS, strict=True)]
    return np.concatenate([np.concatenate(cells[at : at + COLUMNS], axis=1) for at in range(0, len(cells), COLUMNS)])


def _coefficients(**values: float) -> npt.NDArray[np.float32]:
    row = np.zeros(58, np.float32)
    pitch, yaw, roll = (math.radians(values.pop(angle, 0)) for angle in _ANGLES)
    row[52:55] = math.pi + pitch, -yaw, -roll
    for name, weight in values.items():
        row[ARKIT_NAMES.index(name)] = weight
    return row


def _labelled(image: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    cell = np.full((SHOWN + LABEL, SHOWN, 3), 255, np.uint8)
    cell[:SHOWN] = cv2.resize(image, (SHOWN, SHOWN), interpolation=cv2.INTER_AREA)
    cv2.putText(cell, name, (4, SHOWN + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
    return cell


if __name__ == "__main__":
    main()
