"""Draw docs/images/warp_sheet_*.jpg: what the weightless renderer makes of ten portraits, at full size.

    python tools/pictures/draw_warp_sheet.py [--output FOLDER]

Portraits are those of tests/media. Needs pflx[cpu].
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pflx.engines import OrtEngine
from pflx.runtime.builtin import builtin_bundle
from pflx.runtime.rendering.renderers import WarpRenderer
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

ROOT = Path(__file__).resolve().parents[2]
MEDIA = ROOT / "tests" / "media"
SIZE, LABEL, PER_SHEET = 256, 20, 5

_ANGLES = ("pitch", "yaw", "roll")
SHOTS: Mapping[str, Mapping[str, float]] = {
    "at rest": {},
    "half a blink": {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5},
    "blink": {"eyeBlinkLeft": 1, "eyeBlinkRight": 1},
    "nod": {"pitch": 10},
    "yaw 15": {"yaw": 15},
    "yaw -15": {"yaw": -15},
    "roll 8": {"roll": 8},
    "roll -8": {"roll": -8},
    "jaw": {"jawOpen": 0.6},
    "smile, look aside": {"mouthSmileLeft": 1, "mouthSmileRight": 1, "eyeLookOutLeft": 0.6, "eyeLookInRight": 0.6},
}


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    folder = parser.parse_args().output
    bundle = builtin_bundle()
    engines = {role: OrtEngine(bundle.graph_path(f"warp_{role}"), threads=1) for role in ("portrait", "frame")}
    renderer = WarpRenderer(engines, SIZE)
    portraits = [MEDIA / "portrait_astronaut_256.png", *sorted((MEDIA / "portraits").glob("*.[jp][pn]g"))]
    for first in range(0, len(portraits), PER_SHEET):
        sheet = np.concatenate([_row(renderer, path) for path in portraits[first : first + PER_SHEET]])
        target = folder / f"warp_sheet_{first // PER_SHEET + 1}.jpg"
        cv2.imwrite(str(target), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def _row(renderer: WarpRenderer, portrait: Path) -> npt.NDArray[np.uint8]:
    """All shots of one portrait."""
    features = renderer.prepare(portrait)
    cells = []
    for name, shot in SHOTS.items():
        track = np.broadcast_to(_coefficients(**shot), (27, 58))
        cells.append(_labelled(np.array(renderer.render(np.array(track), 1, features)[0]), name))
    return np.concatenate(cells, axis=1)


def _coefficients(**values: float) -> npt.NDArray[np.float32]:
    row = np.zeros(58, np.float32)
    pitch, yaw, roll = (math.radians(values.pop(angle, 0)) for angle in _ANGLES)
    row[52:55] = math.pi + pitch, -yaw, -roll
    for name, weight in values.items():
        row[ARKIT_NAMES.index(name)] = weight
    return row


def _labelled(image: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    cell = np.full((SIZE + LABEL, SIZE, 3), 255, np.uint8)
    cell[:SIZE] = image
    cv2.putText(cell, name, (4, SIZE + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return cell


if __name__ == "__main__":
    main()
