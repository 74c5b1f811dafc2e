"""Draws docs/images/evaluation_pose.png: a made-up motion with a jump at every seam, and the same without."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pflx.runtime.evaluation import Inputs, Predictions, evaluate
from pflx.runtime.evaluation.plot import save_plot
from pflx.runtime.evaluation.predictions import WITH_POSNET, WITHOUT_POSNET
from pflx.runtime.frames.coefficients import POSE

HOP, FRAMES, FPS = 8, 160, 25
SIZES = np.array([0.15, 0.2, 0.1, 0.05, 0.05, 0.1])
"""Of swings: radians, then units."""
PICTURE = Path(__file__).parent.parent / "docs/images/evaluation_pose.png"


def main() -> None:
    """Make up both motions, judge them, and draw."""
    rng = np.random.default_rng(0)
    t, segments = np.arange(FRAMES)[:, None] / FPS, np.arange(FRAMES) // HOP
    swings = [np.sin(2 * np.pi * rng.uniform(0.2, 0.9, 6) * t + rng.uniform(0, 6, 6)) for _ in range(3)]
    places = 0.3 * SIZES * rng.normal(size=(segments[-1] + 1, 6))
    generated = SIZES * np.mean(swings, axis=0) + places[segments]
    faded = generated.copy()
    weights = np.cos(np.linspace(0, np.pi / 2, HOP))[:, None] ** 2
    for start in range(HOP, FRAMES, HOP):
        expected = 2 * faded[start - 1] - faded[start - 2]
        faded[start : start + HOP] += weights * (expected - generated[start])
    tracks = {}
    for name, pose in ((WITH_POSNET, faded), (WITHOUT_POSNET, generated)):
        tracks[name] = np.zeros((1, 1, FRAMES, 58))
        tracks[name][..., POSE] = pose
    inputs = Inputs(predictions=Predictions(Path("made-up.npz"), tracks, fps=FPS, hop=HOP))
    save_plot(PICTURE, inputs, evaluate(inputs))


if __name__ == "__main__":
    main()
