"""What ReactFace costs and makes where windows overlap: a segment every 8 frames as published, every 4, every frame.

    python benchmarks/accuracy/hops.py BUNDLE CLIP PORTRAIT

A window of 8 speaker frames gives the reaction to these 8, so that a frame is known 8 frames after what it reacts to at
worst. A window every 4 or every frame, of which only the newest 4 or 1 are shown, knows it earlier, for as many calls
more. Its past is the reaction of the 8 frames before its own, as in training, as it was shown; the sound's moments are
those up to its end. Noise is the same in every call, so that what differs is what overlapping does.

- jump: of the head's rotation at a frame, what the steps around it do not explain; mean over all frames.
- z: the same where a segment begins against inside of segments; a hop of 1 has no inside.
- apart: root mean square difference from the published hop, in standard deviations of each coefficient, and the same
  between the published hop with two seeds.

What a segment looks like depends on the weights; with made-up ones the cost alone says something.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import report

from pflx.engines import Array, Bundle
from pflx.runtime import EngineSettings, Listener
from pflx.runtime.evaluation.smoothness import judge_motion
from pflx.runtime.frames.coefficients import POSE
from pflx.runtime.frames.timing import FPS
from pflx.runtime.generators import Generator, State
from pflx.runtime.generators.reactface import add_moments

HOPS = (8, 4, 1)
SEEDS = (0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "clip", "portrait"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    settings = EngineSettings(threads=given.threads)
    with Listener.open(given.bundle, given.portrait, engines=settings) as listener:
        generator = listener.chain.generator
        speaker = heard_and_seen(listener, given.clip)
        made = {(hop, seed): overlapped(generator, speaker, hop, seed) for seed in SEEDS for hop in HOPS}
    first, scale = made[HOPS[0], 0][0], made[HOPS[0], 0][0].std(axis=0)
    rows = [row(hop, *made[hop, 0], first, scale) for hop in HOPS]
    rows.append({"hop": HOPS[0], "seed": 1, "apart": apart(made[HOPS[0], 1][0], first, scale)})
    for each in rows:
        print("  ".join(f"{key} {value}" for key, value in each.items()))
    report.write(
        "hops",
        {
            "command": "python benchmarks/accuracy/hops.py BUNDLE CLIP PORTRAIT",
            "machine": report.machine(given.threads),
            "untrained": Bundle.open(given.bundle).manifest.untrained,
            "rows": rows,
        },
    )


def heard_and_seen(listener: Listener, clip: Path) -> dict[str, Array]:
    """What the generator is given of a clip, window after window, put together again."""
    windows: list[dict[str, Array]] = []
    generator: Any = listener.chain.generator
    step = generator.step

    def noted(speaker: dict[str, Array], *rest: Any, **more: Any) -> Any:
        windows.append(speaker)
        return step(speaker, *rest, **more)

    generator.step = noted
    for _ in listener.react(clip, render=False):
        pass
    generator.step = step
    return {need: np.concatenate([window[need] for window in windows]) for need in windows[0]}


def overlapped(generator: Generator, speaker: dict[str, Array], hop: int, seed: int) -> tuple[Array, float]:
    """The reaction to the whole clip, [T, 58], and how long a call took, in seconds."""
    window, frames = generator.window, len(speaker["video"])
    samples = len(speaker["audio"]) // frames
    noise = np.random.default_rng(seed).standard_normal((1, generator.noise_size)).astype(np.float32)
    start, seconds = generator.start(1), []
    shown = np.zeros((frames, 58), np.float32)
    motions: dict[int, Array] = {}
    for end in range(window, frames + 1, hop):
        begin = end - window
        state: State = {
            **start,
            "audio_moments": add_moments(start["audio_moments"], speaker["audio"][: begin * samples]),
        }
        if begin == 0:
            state = start
        elif begin - window in motions:
            past = {"past_reaction": shown[None, begin - window : begin], "past_motion": motions[begin - window]}
            state = {**state, **past, "first": np.zeros(1, np.bool_)}
        given = {
            "video": speaker["video"][begin:end],
            "audio": speaker["audio"][begin * samples : end * samples],
        }
        started = time.perf_counter()
        reaction, after = generator.step(given, state, noise)
        seconds.append(time.perf_counter() - started)
        motions[begin] = after["past_motion"]
        new = window if begin == 0 else hop
        shown[end - new : end] = np.asarray(reaction.coefficients)[0, -new:]
    return shown[: frames // window * window], float(np.median(seconds))


def row(hop: int, reaction: Array, call_s: float, published: Array, scale: Array) -> dict[str, Any]:
    """The figures of a hop."""
    at_seams = judge_motion(turned_deg(reaction), fps=FPS, hop=hop).jump
    every = judge_motion(turned_deg(reaction), fps=FPS, hop=len(reaction)).jump
    assert at_seams is not None
    assert every is not None
    return {
        "hop": hop,
        "delay_ms": hop * 1000 // FPS,
        "call_ms": round(1000 * call_s, 1),
        "share_of_time": round(call_s * FPS / hop, 3),
        "jump_deg": None if every.within is None else round(every.within, 3),
        "z": None if at_seams.z is None else round(at_seams.z, 2),
        "apart": apart(reaction, published, scale),
    }


def turned_deg(reaction: Array) -> Array:
    """The head's rotation, float64 [1, T, 3]."""
    return np.degrees(reaction[None, :, POSE][..., :3].astype(np.float64))


def apart(reaction: Array, published: Array, scale: Array) -> float:
    """Root mean square difference in standard deviations."""
    return round(float(np.sqrt(np.square((reaction - published) / scale).mean())), 2)


if __name__ == "__main__":
    main()
