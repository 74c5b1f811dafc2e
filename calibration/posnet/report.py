"""From files of motion to fitted weights, and what they do to the part that was held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from pflx.calibration.posnet.fit import FitOptions, Fitted, fit, joined, save_posnet
from pflx.calibration.posnet.motion import JUMP, Motion, read_motion
from pflx.calibration.posnet.table import Row, baselines, compare, table_lines
from pflx.calibration.progress import Progress, silent
from pflx.engines.files.writer import write_whole


def fit_and_judge(
    paths: Sequence[Path],
    options: FitOptions,
    output: Path,
    *,
    jump: float = JUMP,
    figures: Path | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Fit PosNet, judge it by what was held out, and write it.

    Args:
        paths: as `read_motion` takes them.
        options: how to fit.
        output: `.safetensors` to write; the fit is kept beside it, under this name and `.state`, until it is done.
        jump: as `read_motion`.
        figures: `.json` to write all figures to.
        progress: told about every step.

    Returns:
        What to tell people, line by line.

    Raises:
        CalibrationError, OutputError: as `read_motion`, `fit` and `save_posnet`.
    """
    motions = list(
        chain.from_iterable(read_motion(path, options.slide, jump=jump, seed=options.seed) for path in paths)
    )
    fitted = fit(motions, options, state=output.with_name(f"{output.name}.state"), progress=progress)
    rows = judge(motions, fitted, options)
    facts = _facts(motions, fitted, options, rows)
    save_posnet(output, fitted.state_dict, facts)
    if figures is not None:
        write_whole(figures, msgspec.json.format(msgspec.json.encode(facts | {"history": fitted.history})) + b"\n")
    return [*_told(fitted), *_table(rows)]


def judge(motions: Sequence[Motion], fitted: Fitted, options: FitOptions) -> list[Row]:
    """PosNet beside plain filters, on what was held out; empty where no segments lie in a row."""
    held_out = [motion.held_out for motion in motions if len(motion.held_out)]
    if not held_out:
        return []
    posnet = {"PosNet": lambda segments: joined(fitted.state_dict, segments)}
    return compare(held_out, baselines(options.pulled) | posnet)


def _facts(motions: Sequence[Motion], fitted: Fitted, options: FitOptions, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "slide": options.slide,
        "options": asdict(options) | {"pull": options.pulled},
        "motion": [{"name": m.name, "sha256": m.sha256, "windows": len(m.windows)} for m in motions],
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "objective_held_out": min(loss for _, loss in fitted.history),
        "held_out": msgspec.to_builtins(list(rows)),
    }


def _told(fitted: Fitted) -> list[str]:
    first, best = fitted.history[0][1], min(loss for _, loss in fitted.history)
    return [
        f"{fitted.steps} steps; the objective of what was held out went from {first:.4g} to {best:.4g}, "
        f"at step {fitted.best_step}."
    ]


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return [
            "No segments in a row were held out: the jumps cannot be judged. Give what pflx run --coefficients wrote."
        ]
    return [
        "Held out; jump at the borders (degrees, units), its z-score, energy of the motion inside:",
        *table_lines(rows),
    ]
