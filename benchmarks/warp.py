"""What a picture of the weightless renderer costs, and what moving a late renderer's last picture is worth.

python benchmarks/warp.py BUNDLE CLIP PORTRAIT [--threads 1] [--rounds 300] [--frames 96] [--gaps 2 4 8]

The bundle's own renderer is PIRender, with the weightless one for a preview. The head in the portrait follows the head
in the clip. Of that motion every n-th frame is rendered in full, and the others are the last of these, held or moved
by the difference of the poses. Both are compared with what the renderer makes of these frames, once for PIRender and
once for the weightless renderer in its place. Where a new picture is rendered there is a seam: its score tells how far
the step of the picture there (mean optical flow) stands out of those between the others, in their standard deviations.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import report

from pflx.engines import Array, Bundle
from pflx.runtime import EngineSettings, Listener, open_speaker
from pflx.runtime.evaluation.pictures.flicker import judge_pictures
from pflx.runtime.frames.coefficients import POSE, WINDOW_RADIUS
from pflx.runtime.rendering import renderers
from pflx.runtime.rendering.renderers import Features, PictureMover, Renderer
from pflx.runtime.rendering.warp import cut_portrait
from pflx.runtime.speaker.landmarks import FaceMesh, LandmarkExtractor

SIDES = (256, 512)
"""Of pictures that are rendered both ways, in px."""


def followed(clip: Path, frames: int) -> Array:
    """Coefficients of the head in a clip, relative to their medians, float32 [frames + 26, 58]."""
    extractor = LandmarkExtractor(np.zeros(58))
    rows: list[Array] = []
    for chunk in open_speaker(clip).limited((frames + 2 * WINDOW_RADIUS) / 25).chunks():
        for picture in chunk.video:
            found = extractor.extract(picture)
            rows.append(rows[-1] if found is None else found)
    track = np.stack(rows)
    return np.asarray(track - np.median(track, axis=0), np.float32)


def costs(listener: Listener, portrait: Path, track: Array, args: argparse.Namespace) -> dict[str, Any]:
    """What a portrait, a picture, and a picture that is moved cost, on these threads."""
    renderer, (features,) = listener.chain.renderer, listener.chain.portraits
    mover = mover_of(listener)
    window = track[: 2 * WINDOW_RADIUS + 1]
    picture = np.array(renderer.render(window, 1, features)[0])
    still, turned = np.zeros(6, np.float32), np.full(6, 0.05, np.float32)
    runs: dict[str, Callable[[], object]] = {
        "picture": lambda: renderer.render(window, 1, features),
        "picture moved": lambda: mover.move(picture, still, turned, features["geometry"]),
    }
    for size in SIDES:
        for name, exact in (("painted", True), ("by the graph alone", False)):
            runs[f"picture of {size} px, {name}"] = partial(render_of(args, size, exact=exact), window)
    timed = report.interleaved(runs, rounds=args.rounds)
    looks = []
    for _ in range(5):
        begin = time.perf_counter()
        renderer.prepare(portrait)
        looks.append(time.perf_counter() - begin)
    painted = {
        f"{size} px, painted to by the graph alone": report.ratio(
            timed, f"picture of {size} px, painted", f"picture of {size} px, by the graph alone"
        )
        for size in SIDES
    }
    return {name: report.summary(seconds) for name, seconds in {**timed, "portrait": looks}.items()} | painted


def render_of(args: argparse.Namespace, size: int, *, exact: bool) -> Callable[[Array], Array]:
    """Renders a window of coefficients at some size, by OpenCV from the field on, or all of it by the graph."""
    with patch.object(renderers, "looks_up_exactly", lambda: exact):
        threads = EngineSettings(threads=args.threads)
        listener = Listener.open(args.bundle, args.portrait, engines=threads, renderer="warp", size=size)
    (features,) = listener.chain.portraits
    return lambda window: listener.chain.renderer.render(window, 1, features)


def mover_of(listener: Listener) -> PictureMover:
    """Moves pictures of a listener on the weightless renderer, with that renderer's own graphs."""
    roles = listener.manifest.renderer.graphs
    opened = {role: listener._engines[graph] for role, graph in roles.items() if graph in listener._engines}
    return PictureMover(opened, listener.manifest.renderer.size)


def full(renderer: Renderer, features: Features, track: Array) -> list[Array]:
    """Every frame of a track, rendered."""
    spans = (track[at : at + 2 * WINDOW_RADIUS + 1] for at in range(len(track) - 2 * WINDOW_RADIUS))
    return [np.array(renderer.render(span, 1, features)[0]) for span in spans]


def stand_ins(
    truth: Sequence[Array], track: Array, gap: int, mover: PictureMover, geometry: Array
) -> dict[str, list[Array]]:
    """What is shown where every `gap`-th frame is rendered and the others are not."""
    poses = track[WINDOW_RADIUS:, POSE]
    held = [truth[at - at % gap] for at in range(len(truth))]
    moved = [
        truth[at] if at % gap == 0 else np.array(mover.move(held[at], poses[at - at % gap], poses[at], geometry))
        for at in range(len(truth))
    ]
    return {"held": held, "moved": moved}


def judged(truth: Sequence[Array], shown: Sequence[Array], gap: int) -> dict[str, float | None]:
    """PSNR of the frames that stand in, in dB, and how far the seams stand out."""
    errors = [
        np.mean((one.astype(np.float64) - other) ** 2)
        for at, (one, other) in enumerate(zip(truth, shown, strict=True))
        if at % gap
    ]
    return {"psnr_db": round(float(10 * np.log10(255**2 / np.mean(errors))), 2), **seams(shown, gap)}


def seams(pictures: Sequence[Array], gap: int) -> dict[str, float | None]:
    """How far pictures move at seams and between the others, and how far seams stand out."""
    border = judge_pictures(pictures, hop=gap).flow_at_borders
    assert border is not None, "a gap was given"
    return {"seam_z": border.z, "step_at_seams_px": border.at_borders, "step_between_px": border.within}


def compared(
    listener: Listener, mover: PictureMover, geometry: Array, track: Array, gaps: Sequence[int]
) -> dict[str, Any]:
    """Holding and moving, of one renderer, for each gap."""
    truth = full(listener.chain.renderer, listener.chain.portraits[0], track)
    found: dict[str, Any] = {}
    for gap in gaps:
        shown = stand_ins(truth, track, gap, mover, geometry)
        ways = {way: judged(truth, pictures, gap) for way, pictures in shown.items()}
        found[f"every {gap}"] = {"true": seams(truth, gap), **ways}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "clip", "portrait"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--gaps", type=int, nargs="+", default=[2, 4, 8])
    args = parser.parse_args()
    machine = report.machine(args.threads)
    track = followed(args.clip, args.frames)
    with Listener.open(
        args.bundle, args.portrait, engines=EngineSettings(threads=args.threads), renderer="warp"
    ) as warp:
        mover = mover_of(warp)
        picture, _ = cut_portrait(args.portrait, warp.manifest.renderer.size, FaceMesh())
        geometry = mover.geometry(picture)["geometry"]
        content: dict[str, Any] = {
            "what": "pictures of the weightless renderer, and moving the last picture in the place of holding it",
            "command": "python benchmarks/warp.py BUNDLE CLIP PORTRAIT",
            "clip": args.clip.name,
            "portrait": args.portrait.name,
            "frames": args.frames,
            "machine": machine,
            "costs": costs(warp, args.portrait, track, args),
            "warp": compared(warp, mover, geometry, track, args.gaps),
        }
        with Listener.open(args.bundle, args.portrait, renderer="pirender") as own:
            content["untrained"] = Bundle.open(args.bundle, verify=False).manifest.untrained
            content["pirender"] = compared(own, mover, geometry, track, args.gaps)
    report.write("warp", content)


if __name__ == "__main__":
    main()
