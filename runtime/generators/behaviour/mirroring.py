"""The speaker's head pose and smile, as a listener takes them over: late, less, as in a mirror; and lively voices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from pflx.engines import Array
from pflx.runtime.frames.event import Cause, Noted, note
from pflx.runtime.generators.behaviour.gestures import ROTATION, follow
from pflx.runtime.generators.behaviour.habits import habit
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

SMILES = [ARKIT_NAMES.index(f"mouthSmile{side}") for side in ("Left", "Right")]

_MIRRORED = np.array([1.0, -1.0, -1.0])  # pitch stays, yaw and roll turn round
_WINDOW_S = 0.32
_RATES = np.array([2 / (habit(f"mirror_{what}_after") - _WINDOW_S) for what in ("head", "head", "head", "smile")])


def start() -> dict[str, Array]:
    """The state before the first frame: nobody was seen."""
    return {"speaker": np.zeros(58, np.float32), "rest": np.zeros(4), "mirrored": np.zeros((2, 4))}


def mirror(rows: Array, state: Mapping[str, Array], frame_s: float) -> tuple[Array, dict[str, Array]]:
    """What the listener takes over in each frame.

    A head pose counts against the speaker's own mean, so that neither a camera that stands askew nor the origin of the
    angles matters. Rows of zeros, and rows that all repeat the one before the window, show nobody: then the listener
    goes back to rest.

    Args:
        rows: float32 [T, 58], the speaker's coefficients.
        state: of `start`, or of the last window.
        frame_s: from frame to frame.

    Returns:
        Pitch, yaw and roll as FaceVerse has them, in deg, and a smile in 0…1, [T, 4]; and the next state.
    """
    is_new = bool((rows != state["speaker"]).any())
    (angles, speeds), rest, frames = state["mirrored"], state["rest"], []
    for row in np.asarray(rows, np.float64):
        target = np.zeros(4)
        if is_new and row.any():
            rest, turned = _turned(row[ROTATION], rest, frame_s)
            target = np.append(habit("mirror_head") * _MIRRORED * turned, _smile(row))
        angles, speeds = follow(angles, speeds, target, _RATES, frame_s)
        frames.append(angles)
    return np.stack(frames), {"speaker": rows[-1].copy(), "rest": rest, "mirrored": np.stack([angles, speeds])}


def smile_at(lively: float, mirrored: Array, state: Mapping[str, Array], frame_s: float) -> tuple[Array, Array]:
    """The listener's smile: at a face that smiles, or at a voice that is lively, whichever is more.

    Args:
        lively: weight of the smile that the voice asks for.
        mirrored: [T], that which the face asks for.
        state: with `smile`, zeros before the first window.
        frame_s: from frame to frame.

    Returns:
        Its weight [T] in 0…1; and the next state: what follows the voice and its velocity, and the last weight.
    """
    smile, speed, _ = state["smile"]
    frames = []
    for _ in mirrored:
        smile, speed = follow(smile, speed, np.asarray(lively), _RATES[-1], frame_s)
        frames.append(float(smile))
    smiles = np.maximum(mirrored, frames)
    return smiles, np.array([smile, speed, smiles[-1]])


def begun_smile(smiles: Array, mirrored: Array, before: float, samples: int) -> Iterator[Noted]:
    """The event, if a smile begins to be one in one of the frames.

    Args:
        smiles: [T], weights.
        mirrored: [T], what of it is at the speaker's face.
        before: the weight before.
        samples: of whom.
    """
    seen = habit("smile_seen")
    rises = (smiles >= seen) & (np.append(before, smiles[:-1]) < seen)
    for row in np.flatnonzero(rises).tolist():
        cause: Cause = "face" if mirrored[row] >= smiles[row] else "voice"
        yield from (note(sample, row, "smile", cause, size=float(smiles[row])) for sample in range(samples))


def _turned(rotation: Array, rest: Array, frame_s: float) -> tuple[Array, Array]:
    """The next rest (seconds it is a mean of, and three angles in rad), and how far the head is from it, in deg."""
    seen_s = min(rest[0] + frame_s, habit("mirror_rest"))
    away = (rotation - rest[1:] + math.pi) % math.tau - math.pi
    mean = rest[1:] + away * frame_s / seen_s
    bound = habit("mirror_head_deg")
    turned = np.degrees((rotation - mean + math.pi) % math.tau - math.pi)
    return np.append(seen_s, mean), np.clip(turned, -bound, bound)


def _smile(row: Array) -> float:
    """What is taken over of a smile."""
    none = habit("mirror_smile_from")
    smile = (float(row[SMILES].mean()) - none) / (1 - none)
    return habit("mirror_smile") * min(max(smile, 0.0), 1.0)
