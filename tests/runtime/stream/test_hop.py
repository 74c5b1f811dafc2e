"""The hop as two plain functions: a loop around them makes what a stream makes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support.fakes import HOP, REGION
from support.sessions import FRAMES, SOUND, VIDEO, listener, whole

from pflx.engines import Array
from pflx.runtime import Listener, seeded_noise
from pflx.runtime.frames.coefficients import POSE, WINDOW_RADIUS
from pflx.runtime.generators.speaker_window import Window
from pflx.runtime.speaker.face_track import FaceTrack
from pflx.runtime.stream.chain import Chain
from pflx.runtime.stream.hop import HopState, make_pictures, make_segment

SEED, SAMPLES, LOOKAHEAD = 5, 2, 3
SEGMENTS = FRAMES // HOP


def taken(index: int) -> Window:
    """The speaker's frames of a segment."""
    rows = np.arange(index * HOP, (index + 1) * HOP)
    sound = SOUND[640 * rows[0] : 640 * (rows[-1] + 1)]
    return Window([*VIDEO[rows]], sound, rows, scheduled=0, read=0, closed=0, av_offset_ns=0)


def noise(chain: Chain, index: int) -> Array:
    draw = seeded_noise(SEED)
    return np.stack([draw(index, sample, chain.generator.noise_size) for sample in range(SAMPLES)])


def played(source: Listener) -> Iterator[tuple[Array, Array, Array]]:
    """Picture, coefficients and generated pose of every frame and sample, without a stream."""
    chain = source.chain
    state = HopState.start(chain, FaceTrack(region=REGION), SAMPLES)
    raw, joined = [], []
    for index in range(SEGMENTS):
        motion, state = make_segment(chain, taken(index), state, noise(chain, index))
        raw.append(motion.reaction.coefficients)
        joined.append(motion.joined)
    generated, track = np.concatenate(raw, axis=1), np.concatenate(joined, axis=1)
    for frame in range(SEGMENTS * HOP - LOOKAHEAD):
        closed = ((frame + LOOKAHEAD) // HOP + 1) * HOP
        around = np.clip(np.arange(frame - WINDOW_RADIUS, frame + WINDOW_RADIUS + 1), 0, closed - 1)
        for sample in range(SAMPLES):
            made = make_pictures(chain, track[sample, around], 1, chain.portraits[sample % len(chain.portraits)])
            shown = track[sample, frame] + chain.mean_face
            yield made.images[0].copy(), shown, generated[sample, frame, POSE] + chain.mean_face[POSE]


def test_a_plain_loop_makes_what_a_stream_makes() -> None:
    source = listener(lookahead=LOOKAHEAD)
    frames = whole(source, samples=SAMPLES, seed=SEED, region=REGION)
    plain = list(played(source))
    assert len(plain) == (SEGMENTS * HOP - LOOKAHEAD) * SAMPLES
    for frame, (image, coefficients, pose) in zip(frames, plain, strict=False):
        np.testing.assert_array_equal(frame.image, image)
        np.testing.assert_array_equal(frame.coefficients, coefficients)
        np.testing.assert_array_equal(frame.generated_pose, pose)


@pytest.mark.parametrize("index", [0, 1])
def test_a_hop_is_a_function_of_what_goes_in(index: int) -> None:
    chain = listener().chain
    state = HopState.start(chain, FaceTrack(region=REGION), SAMPLES)
    for before in range(index):
        _, state = make_segment(chain, taken(before), state, noise(chain, before))
    kept = {name: np.array(value) for name, value in {**state.generator, **state.pose}.items()}
    first, after = make_segment(chain, taken(index), state, noise(chain, index))
    numbers = np.array(first.joined)
    again, also = make_segment(chain, taken(index), state, noise(chain, index))
    np.testing.assert_array_equal(again.joined, numbers)
    assert {**after.generator, **after.pose}.keys() == {**also.generator, **also.pose}.keys()
    for name, value in {**state.generator, **state.pose}.items():
        np.testing.assert_array_equal(value, kept[name])


def test_a_segment_without_a_seam_passes_posnet_unchanged() -> None:
    chain = listener().chain
    state = HopState.start(chain, FaceTrack(region=REGION), SAMPLES)
    _, state = make_segment(chain, taken(0), state, noise(chain, 0))
    whole_piece, _ = make_segment(chain, taken(1), state, noise(chain, 1), is_seam=False)
    np.testing.assert_array_equal(whole_piece.joined, whole_piece.reaction.coefficients)
    seam, _ = make_segment(chain, taken(1), state, noise(chain, 1))
    assert not np.array_equal(seam.joined[..., POSE], seam.reaction.coefficients[..., POSE])
    np.testing.assert_array_equal(seam.joined[..., : POSE.start], seam.reaction.coefficients[..., : POSE.start])
