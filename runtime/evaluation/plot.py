"""The pose over time, with the seams between segments: one picture to see what the figures say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pflx.engines import Array, FeedError
from pflx.engines.files.writer import write_whole
from pflx.engines.graphs.protocol import import_backend
from pflx.runtime.evaluation.distance import INSTALL
from pflx.runtime.evaluation.evaluate import Inputs, pose_of
from pflx.runtime.evaluation.predictions import WITHOUT_POSNET
from pflx.runtime.evaluation.results import Border, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _SOFT, _PALE = "#1c2430", "#5d6b7c", "#dfe4ea"
_SEAM, _WARNING = "#aab4c0", "#c8362b"
_SHOWN: dict[str, Any] = {"color": "#0072b2", "linewidth": 1.2, "zorder": 3}
_GENERATED: dict[str, Any] = {"color": "#f2a86f", "linewidth": 3.6, "zorder": 2}
"""Wide and pale, so that it is seen beside the other where both are the same."""
_AXES = {"rotation": ("pitch", "yaw", "roll"), "translation": ("translation x", "translation y", "translation z")}
_LEAST = {"rotation": 5.0, "translation": 0.02}
"""Height of a row in degrees and in units, at least: less is noise, and looks like it."""
_WIDTH_IN, _DPI = 12.0, 120
LONGEST_S = 30.0
"""Time that is drawn, at most: more is not legible at this width."""


def check_plot(inputs: Inputs) -> None:
    """Refuse a plot that cannot be drawn, before any work.

    Raises:
        FeedError: the predictions have no pose.
        BackendMissingError: matplotlib is not installed.
    """
    if not _poses(inputs):
        features = next(iter(inputs.tracks.values())).shape[-1]
        raise FeedError(
            f"--plot draws the pose, which the {features} features in {inputs.predictions.path} do not have. Leave it "
            "out, or give 58 coefficients."
        )
    import_backend("matplotlib", INSTALL)


def save_plot(path: Path, inputs: Inputs, evaluation: Evaluation) -> None:
    """Draw the first reaction to the first clip, its first 30 s at most: rotation and translation, of three axes each.

    Angles are FaceVerse's, without the half turn by which its heads are turned: 0 faces the camera.

    Args:
        path: PNG that appears complete, or not at all.
        inputs: what was evaluated.
        evaluation: what was found.

    Raises:
        BackendMissingError: matplotlib is not installed.
        OutputError: it cannot be written.
    """
    content = BytesIO()
    draw_pose(inputs, evaluation).savefig(content, format="png", dpi=_DPI)
    write_whole(path, content.getbuffer())


def draw_pose(inputs: Inputs, evaluation: Evaluation) -> Figure:
    """The picture that `save_plot` writes."""
    import_backend("matplotlib", INSTALL)
    from matplotlib.figure import Figure  # no pyplot: nothing global, no window

    frames = min(evaluation.frames, round(LONGEST_S * evaluation.fps))
    figure = Figure(figsize=(_WIDTH_IN, 10.5), facecolor="white", layout="constrained")
    rows: Any = figure.subplots(6, 1, sharex=True)
    poses = _poses(inputs)
    for row, axes in enumerate(rows):
        quantity, axis = ("rotation", "translation")[row // 3], row % 3
        lines = {name: _about_zero(*pose[quantity])[0, :frames, axis] for name, pose in poses.items()}
        _draw_row(axes, lines, evaluation, _LEAST[quantity])
        unit = next(iter(poses.values()))[quantity][0]
        axes.set_ylabel(f"{_AXES[quantity][axis]}, {unit}", color=_INK, fontsize=9)
    rows[0].set_xlim(0, frames / evaluation.fps)
    rows[-1].set_xlabel("time, s", color=_INK)
    for quantity, axes in (("rotation", rows[0]), ("translation", rows[3])):
        axes.set_title(_caption(evaluation, quantity, list(poses)), loc="left", fontsize=9, color=_SOFT)
    figure.align_ylabels(rows)
    _title(figure, evaluation)
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False, fontsize=10)
    return figure


def _about_zero(unit: str, values: Array) -> Array:
    """Angles without FaceVerse's half turn, whichever way round it is; what is no angle as it is."""
    return values - 180 * np.round(values / 180) if unit == "deg" else values


def _poses(inputs: Inputs) -> dict[str, Mapping[str, tuple[str, Array]]]:
    poses = {name: pose_of(track) for name, track in inputs.tracks.items()}
    return {name: pose for name, pose in poses.items() if pose is not None}


def _draw_row(axes: Axes, lines: Mapping[str, Array], evaluation: Evaluation, least: float) -> None:
    """One axis of the pose; a frame lasts from its time to that of the next, so a seam lies between two points."""
    fps = evaluation.fps
    if evaluation.hop:
        frames = len(next(iter(lines.values())))
        borders = np.arange(evaluation.hop, frames, evaluation.hop)
        for index, border in enumerate(borders):
            label = "seam between two segments" if index == 0 else None
            axes.axvline(
                float(border / fps), color=_SEAM, linewidth=0.8 if len(borders) < 40 else 0.4, label=label, zorder=1
            )
    for name, values in lines.items():
        style = _GENERATED if name == WITHOUT_POSNET and len(lines) > 1 else _SHOWN  # broad to be seen behind another
        axes.plot((np.arange(len(values)) + 0.5) / fps, values, label=name, **style)
    axes.grid(axis="y", color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, (low + high - least) / 2), max(high, (low + high + least) / 2))
    axes.tick_params(colors=_SOFT, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(_PALE)


def _title(figure: Figure, evaluation: Evaluation) -> None:
    of = [] if evaluation.samples == 1 else [f"first of {evaluation.samples} reactions"]
    of += [] if evaluation.clips == 1 else [f"first of {evaluation.clips} clips"]
    seconds = evaluation.frames / evaluation.fps
    of += [] if seconds <= LONGEST_S else [f"first {LONGEST_S:g} of {seconds:.0f} s"]
    name = Path(evaluation.predictions).name
    title = f"Pose of the listener, {name}" + (f" ({', '.join(of)})" if of else "")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=_INK)
    if evaluation.untrained is not None:
        warning = f"UNTRAINED WEIGHTS (SEED {evaluation.untrained}): THE MOTION MEANS NOTHING"
        figure.supxlabel(warning, x=0.99, ha="right", fontsize=9, color=_WARNING)


def _caption(evaluation: Evaluation, quantity: str, tracks: Sequence[str]) -> str:
    """Size and z-score of the jumps, as far as they are known."""
    jumps = {motion.track: motion.jump for motion in evaluation.motion if motion.quantity == quantity}
    unit = next((motion.unit for motion in evaluation.motion if motion.quantity == quantity), "")
    said = [f"{name} {_jump(jump, unit)}" for name in tracks if (jump := jumps.get(name)) and jump.borders]
    return f"{quantity}: mean jump at seams, all reactions: {'; '.join(said)}" if said else quantity


def _jump(jump: Border, unit: str) -> str:
    z = "no z-score" if jump.z is None else f"z {jump.z:+.1f}"
    return f"{jump.at_borders:.3g} {unit} ({z})"
