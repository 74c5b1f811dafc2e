"""What OpenVINO computes a bundle's graphs in, without any INT8: as much bf16 as the pictures bear."""

from __future__ import annotations

from collections.abc import Collection

from pflx.calibration.judge import Bound
from pflx.calibration.precision.int8_player import Player
from pflx.calibration.precision.int8_report import TrialFigures
from pflx.calibration.progress import Progress
from pflx.engines.bundle.variant_admission import cpu_features


def has_bf16() -> bool:
    """Whether this CPU computes in bf16."""
    return bool({"avx512_bf16", "amx_bf16"} & set(cpu_features()))


def choose_inference(player: Player, graphs: Collection[str], bound: Bound, progress: Progress) -> list[TrialFigures]:
    """Let OpenVINO compute graphs in bf16: all, or the one that draws pictures, or none; the first within the bound.

    Args:
        player: plays the takes; its `inference` is what was chosen.
        graphs: that may be in bf16.
        bound: that pictures and motion must keep.
        progress: told about every step.

    Returns:
        What was tried, the last of which was chosen; out of bound if even float32 on this engine is.
    """
    can = player.engine == "openvino" and has_bf16()
    choices: list[list[str]] = [list(graphs), [player.manifest.renderer.graphs["frame"]], []] if can else [[]]
    trials = []
    for n, chosen in enumerate(choices):
        progress("judging without INT8", n, len(choices))
        player.inference = dict.fromkeys(chosen, "bf16")
        found = player.judge({})
        trials.append(TrialFigures(units=0, share=0.0, judgement=found, faults=bound.faults(found)))
        if not trials[-1].faults:
            break
    return trials
