"""What the backchannel listener takes over of the speaker: pose and smile, late and less."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.speaker.heads import SMILE, turning_head

from pflx.engines import Array
from pflx.runtime.generators.behaviour import mirroring
from pflx.runtime.generators.behaviour.habits import habit

HOP = 8


def mirrored(face: Array) -> Array:
    """Pitch, yaw and roll of FaceVerse in deg, and a smile, [T, 4]."""
    state, made = mirroring.start(), []
    for begin in range(0, len(face), HOP):
        values, state = mirroring.mirror(face[begin : begin + HOP], state, 0.04)
        made.append(values)
    return np.concatenate(made)


def still(frames: int, *rotation: float) -> Array:
    """A speaker who keeps the head so, but for what no tracker tells twice alike."""
    face = np.zeros((frames, 58), np.float32)
    face[:, 52:55] = rotation
    face[:, 57] = 1e-3 * np.arange(frames)
    return face


def test_a_turned_head_is_mirrored_late_and_less() -> None:
    face = np.concatenate([still(400, 0.1, 0.2, 0.0), still(100, 0.25, 0.0, 0.1)])
    values = mirrored(face)
    assert np.abs(values[:400]).max() < 0.01
    after = values[400:]
    assert after[:, 0].max() > 1
    assert after[:, 1].max() > 1, "yaw is not that of a mirror"
    assert after[:, 2].min() < -0.5, "roll is not that of a mirror"
    assert np.abs(after).max() < habit("mirror_head") * np.degrees(0.2)
    assert np.abs(after[:10]).max() < 0.3 * np.abs(after).max()
    assert 15 < np.abs(after[:, 1]).argmax() < 90


@pytest.mark.parametrize("upright", [0.0, math.pi, -math.pi])
def test_the_origin_of_the_angles_does_not_matter(upright: float) -> None:
    face = turning_head(400)
    face[:, 52] += upright
    np.testing.assert_allclose(mirrored(face), mirrored(turning_head(400)), atol=1e-3)


def test_angles_that_leap_by_a_whole_turn_are_the_same_angles() -> None:
    face, leaping = turning_head(400), turning_head(400)
    leaping[200:, 52] += math.tau
    np.testing.assert_allclose(mirrored(leaping), mirrored(face), atol=1e-3)


def test_a_smile_is_answered_late_and_less() -> None:
    face = still(200, 0, 0, 0)
    face[100:, [SMILE, SMILE + 1]] = 0.8
    smile = mirrored(face)[:, 3]
    assert smile[:100].max() == 0
    assert smile[101] < 0.2 * smile[-1]
    assert smile[-1] == pytest.approx(habit("mirror_smile") * 0.7 / 0.9, rel=1e-3)


def test_who_is_not_seen_is_not_mirrored() -> None:
    lost = np.repeat(turning_head(201)[-1:], 400, axis=0)
    values = mirrored(np.concatenate([np.zeros((64, 58), np.float32), turning_head(200), lost]))
    assert np.abs(values[:64]).max() == 0
    assert np.abs(values[100:250, :3]).max() > 1
    assert np.abs(values[-1]).max() < 0.01
