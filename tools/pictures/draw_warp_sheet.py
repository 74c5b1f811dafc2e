"""Draw docs/images/warp_sheet_*.jpg: what the weightless renderer makes of portraits, at full size.

    python tools/pictures/draw_warp_sheet.py [--before FRAME.onnx] [--output FOLDER]

Portraits are those of tests/media. With an earlier graph `warp_frame` of one layer and 256 px, as the first bundle that
came with pflx had it, it draws warp_before_after.jpg too. Needs pflx[cpu].
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pflx.engines import Array, OrtEngine
from pflx.runtime.builtin import builtin_bundle
from pflx.runtime.rendering.renderers import WarpRenderer
from pflx.runtime.rendering.warp import cut_portrait, find_geometry
from pflx.runtime.speaker.landmarks import ARKIT_NAMES, FaceMesh

ROOT = Path(__file__).resolve().parents[2]
MEDIA = ROOT / "tests" / "media"
SIZE, LABEL, PER_SHEET = 256, 20, 5
COMPARED, COMPARED_SHOTS = ("cartoon", "hopper", "mona"), ("at rest", "half a blink", "blink", "roll 8")
Picture = npt.NDArray[np.uint8]

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
    parser.add_argument("--before", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    args = parser.parse_args()
    bundle = builtin_bundle()
    engines = {role: OrtEngine(bundle.graph_path(f"warp_{role}"), threads=1) for role in ("portrait", "frame")}
    renderer = WarpRenderer(engines, SIZE)
    portraits = [MEDIA / "portrait_astronaut_256.png", *sorted((MEDIA / "portraits").glob("*.[jp][pn]g"))]
    for first in range(0, len(portraits), PER_SHEET):
        rows = [_row(_now(renderer, path), list(SHOTS)) for path in portraits[first : first + PER_SHEET]]
        _write(args.output / f"warp_sheet_{first // PER_SHEET + 1}.jpg", rows)
    if args.before is not None:
        earlier, rows = OrtEngine(args.before, threads=1), []
        for path in (path for path in portraits if path.stem in COMPARED):
            for render, when in ((_before(earlier, path), ", before"), (_now(renderer, path), ", now")):
                rows.append(_row(render, COMPARED_SHOTS, when))
        _write(args.output / "warp_before_after.jpg", rows)


def _write(target: Path, rows: Sequence[Picture]) -> None:
    cv2.imwrite(str(target), np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])


def _row(render: Callable[[npt.NDArray[np.float32]], Picture], shots: Sequence[str], when: str = "") -> Picture:
    """Shots of one portrait."""
    return np.concatenate(
        [_labelled(render(_coefficients(**SHOTS[name])), name + when) for name in shots],
        axis=1,
    )


def _now(renderer: WarpRenderer, portrait: Path) -> Callable[[npt.NDArray[np.float32]], Picture]:
    """What makes pictures of a portrait out of coefficients, float32 [58]."""
    features = renderer.prepare(portrait)
    return lambda row: np.array(renderer.render(np.tile(row, (27, 1)), 1, features)[0])


def _before(frame: OrtEngine, portrait: Path) -> Callable[[npt.NDArray[np.float32]], Picture]:
    """The same, of an earlier graph: the portrait is one layer, and fewer numbers are known of it."""
    picture, face = cut_portrait(portrait, SIZE, FaceMesh())
    geometry = find_geometry(picture, face)[None, : int(frame.inputs["geometry"].shape[-1])]
    given: dict[str, Array] = {
        "source": np.moveaxis(picture, -1, 0)[None].astype(np.float32),
        "geometry": geometry,
        "shown": np.zeros((1, 6), np.float32),
        "frames": np.zeros(1, np.int64),
    }
    return lambda row: np.array(frame.run({**given, "coefficients": row[None, None]})["image"][0, 0])


def _coefficients(**values: float) -> npt.NDArray[np.float32]:
    row = np.zeros(58, np.float32)
    pitch, yaw, roll = (math.radians(values.pop(angle, 0)) for angle in _ANGLES)
    row[52:55] = math.pi + pitch, -yaw, -roll
    for name, weight in values.items():
        row[ARKIT_NAMES.index(name)] = weight
    return row


def _labelled(image: Picture, name: str) -> Picture:
    cell = np.full((SIZE + LABEL, SIZE, 3), 255, np.uint8)
    cell[:SIZE] = image
    cv2.putText(cell, name, (4, SIZE + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return cell


if __name__ == "__main__":
    main()
