"""How far eyes close and the background stays in pictures of the weightless renderer, and what they cost in each size.

PYTHONPATH=benchmarks python benchmarks/accuracy/warp_pictures.py [PORTRAIT ...] [--against FRAME.onnx] [--rounds 200]
    [--films CLIP ...]

`lids` are the numbers of those that were chosen, of `pflx.runtime.rendering.lid_choice.TRIED`. Openings are those that
the face mesh finds, of the ones at rest: what a blink leaves of 0.15 or less counts as closed.
The background's error is the mean difference to the portrait, in levels, where neither it nor the picture shows the
person, with the head rolled by 7 degrees to both sides. `--against` is an earlier frame graph, of one layer and 256 px:
figures of both are taken in turns. Of films it tells what people leave of their eyes when they blink. By default the
portraits are those of tests/media.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import report

from pflx.engines import Array, OrtEngine
from pflx.runtime import open_speaker
from pflx.runtime.builtin import builtin_bundle
from pflx.runtime.rendering.layers import Layers, make_layers
from pflx.runtime.rendering.lid_choice import TRIED, choose_lids, openings
from pflx.runtime.rendering.silhouette import Silhouette
from pflx.runtime.rendering.warp import cut_portrait, find_geometry
from pflx.runtime.speaker.landmarks import ARKIT_NAMES, FaceMesh

MEDIA = Path(__file__).resolve().parents[2] / "tests" / "media"
SIZE, SIZES = 256, (256, 384, 512)
CLOSED = 0.15
"""Of the opening at rest: eyes that are open no further are closed."""
ROLL_DEG = 7.0
TURNS: tuple[Mapping[str, float], ...] = tuple(
    {angle: sign * by}
    for angle, by in (("roll_deg", ROLL_DEG), ("yaw_deg", 8.0), ("pitch_deg", 6.0))
    for sign in (1, -1)
)
"""How the head is turned where the lids were not chosen."""


def row(roll_deg: float = 0.0, blink: float = 0.0, *, yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> Array:
    """float32 [58]."""
    made = np.zeros(58, np.float32)
    made[52:55] = math.pi + math.radians(pitch_deg), -math.radians(yaw_deg), -math.radians(roll_deg)
    made[[ARKIT_NAMES.index(f"eyeBlink{side}") for side in ("Left", "Right")]] = blink
    return made


class Pictures:
    """Pictures of one portrait, of the graphs that come with pflx or of an earlier frame's."""

    def __init__(self, path: Path, size: int, mesh: FaceMesh, threads: int, earlier: Path | None = None) -> None:
        self.portrait, face = cut_portrait(path, size, mesh)
        geometry = find_geometry(self.portrait, face)
        self.layers = make_layers(self.portrait, face, geometry, Silhouette(), mesh)
        self.lids = choose_lids(self.portrait, face, mesh)
        bundle, sizes = builtin_bundle(), {"portraits": 1, "frames": 1, "track": 1, "side": size}
        self._frame = OrtEngine(earlier or bundle.graph_path("warp_frame"), threads=threads, sizes=sizes)
        if earlier is None:
            self._painter = OrtEngine(bundle.graph_path("warp_portrait"), threads=threads)
            source = self._features(self.layers)
        else:
            source = {"source": np.moveaxis(self.portrait, -1, 0)[None].astype(np.float32)}
        numbers = self._frame.inputs["geometry"].shape[-1]
        self._given = {**source, "geometry": geometry[None, : int(numbers)], "shown": np.zeros((1, 6), np.float32)}

    def _features(self, layers: Layers) -> dict[str, Array]:
        return {name: value.copy() for name, value in self._painter.run(layers.feeds()).items()}

    def picture(self, coefficients: Array, features: Mapping[str, Array] | None = None) -> Array:
        """uint8 [S, S, 3]."""
        given = {
            **self._given,
            **(features or {}),
            "coefficients": coefficients[None, None],
            "frames": np.zeros(1, int),
        }
        return np.array(self._frame.run({name: given[name] for name in self._frame.inputs})["image"][0, 0])

    def person(self, coefficients: Array) -> Array:
        """How much of each pixel is the person's in a picture, [S, S] in 0…1."""
        masks = self.layers.masks.copy()
        masks[..., 1:] = 0
        white = np.repeat(np.round(255 * masks[..., :1]), 3, axis=2).astype(np.uint8)
        features = self._features(Layers(white, white, white, np.zeros_like(white), masks))
        return self.picture(coefficients, features)[..., 0] / 255


def opening(picture: Array, mesh: FaceMesh) -> Array:
    """Height by width of both eyes; not a number without a face."""
    return np.full(2, np.nan) if (face := mesh.find(picture)) is None else openings(face)


def eyes(pictures: Pictures, mesh: FaceMesh) -> dict[str, list[float]]:
    """Openings in half a blink and in a whole one, of those at rest, and these."""
    rest, half, full = (opening(pictures.picture(row(blink=share)), mesh) for share in (0, 0.5, 1))
    return {
        name: np.round(each, 3).tolist()
        for name, each in {"rest": rest, "half a blink": half / rest, "blink": full / rest}.items()
    }


def turned(pictures: Pictures, mesh: FaceMesh) -> dict[str, list[float]]:
    """What a blink leaves of the openings of a head that is turned, by `TURNS`: mean and largest, of each eye."""
    left = np.array(
        [np.divide(*(opening(pictures.picture(row(blink=share, **turn)), mesh) for share in (1, 0))) for turn in TURNS]
    )
    return {"mean": left.mean(axis=0).round(3).tolist(), "largest": left.max(axis=0).round(3).tolist()}


def closed(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How many eyes a blink closes, and what it leaves of them on the average."""
    left = np.array([share for portrait in found.values() for share in portrait["blink"]])
    return {
        "eyes": len(left),
        "closed": int((left <= CLOSED).sum()),
        "mean": round(float(left.mean()), 3),
        "largest": round(float(left.max()), 3),
        f"largest in {SIZES[-1]} px": max(max(each[f"blink, {SIZES[-1]} px"]) for each in found.values()),
        "mean with the head turned": round(
            float(np.mean([each["blink, head turned"]["mean"] for each in found.values()])), 3
        ),
        "portraits with both closed": [name for name, each in found.items() if max(each["blink"]) <= CLOSED],
    }


def film(path: Path, mesh: FaceMesh) -> list[float]:
    """What is left of the wider open eye where it is narrowest, of the usual opening, of every blink below a half."""
    pictures = (picture for chunk in open_speaker(path).chunks() for picture in chunk.video)
    found = np.array([opening(picture, mesh) for picture in pictures])
    left = (found / np.nanmedian(found, axis=0)).max(axis=1)
    inner = left[1:-1]
    least = inner[(inner < 0.5) & (inner <= left[:-2]) & (inner < left[2:])]
    return [round(float(share), 2) for share in least]


def outside(pictures: Pictures, roll_deg: float) -> Array:
    """Pixels that show no person, neither in the portrait nor in a picture with the head rolled."""
    person = np.maximum(pictures.layers.masks[..., 0], pictures.person(row(roll_deg)))
    found: Array = np.asarray(cv2.dilate((person > 0.02).astype(np.uint8), np.ones((3, 3)))) == 0
    return found


def background(pictures: Pictures, where: Mapping[float, Array]) -> float:
    """Mean difference to the portrait there, in levels."""
    errors = [
        np.abs(pictures.picture(row(roll)).astype(int) - pictures.portrait)[pixels] for roll, pixels in where.items()
    ]
    return round(float(np.concatenate(errors).mean()), 2)


def costs(path: Path, mesh: FaceMesh, args: argparse.Namespace) -> dict[str, Any]:
    """Times of a picture in each size, taken in turns, and of an earlier graph's."""
    moved = row(5, 0.3)
    moved[52] += 0.1
    made = {f"{size} px": Pictures(path, size, mesh, args.threads) for size in SIZES}
    if args.against:
        made["earlier, 256 px"] = Pictures(path, SIZE, mesh, args.threads, args.against)
    runs = {name: partial(each.picture, moved) for name, each in made.items()}
    seconds = report.interleaved(runs, rounds=args.rounds)
    found: dict[str, Any] = {name: report.summary(times) for name, times in seconds.items()}
    if args.against:
        found["256 px, of earlier"] = report.ratio(seconds, "256 px", "earlier, 256 px")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path, nargs="*")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--films", type=Path, nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    given = args.portraits or [MEDIA / "portrait_astronaut_256.png", *sorted((MEDIA / "portraits").glob("*.[jp][pn]g"))]
    machine, mesh, found = report.machine(args.threads), FaceMesh(), {}
    for path in given:
        now = Pictures(path, SIZE, mesh, args.threads)
        where = {roll: outside(now, roll) for roll in (ROLL_DEG, -ROLL_DEG)}
        lids = [TRIED.index(lid) for lid in now.lids]
        found[path.stem] = {"lids": lids, **eyes(now, mesh), "background": background(now, where)}
        found[path.stem]["blink, head turned"] = turned(now, mesh)
        large = Pictures(path, SIZES[-1], mesh, args.threads)
        found[path.stem][f"blink, {SIZES[-1]} px"] = eyes(large, mesh)["blink"]
        if args.against:
            then = Pictures(path, SIZE, mesh, args.threads, args.against)
            earlier = {**eyes(then, mesh), "background": background(then, where)}
            found[path.stem]["earlier"] = earlier
    content = {
        "what": "openings of eyes and errors of the background in pictures of the weightless renderer, and their cost",
        "command": "PYTHONPATH=benchmarks python benchmarks/accuracy/warp_pictures.py --against FRAME.onnx --films …",
        "machine": machine,
        "portraits": found,
        f"blinks to {CLOSED} or less": closed(found),
        "blinks in films": {path.stem: film(path, mesh) for path in args.films},
        "costs": costs(given[0], mesh, args),
    }
    report.write("warp_pictures", content)


if __name__ == "__main__":
    main()
