"""Listeners by rules, and what a speaker's sound makes of them: their motion, when they nod, and what they tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from support.speaker.sounds import RATE_HZ

from pflx.engines import Array, GeneratorInfo
from pflx.runtime.frames.event import Event, events_of
from pflx.runtime.generators import State
from pflx.runtime.generators.backchannel import BackchannelGenerator
from pflx.runtime.generators.behaviour import gestures
from pflx.runtime.generators.protocol import GeneratorOptions
from pflx.runtime.speaker.hearing import Hearing
from pflx.runtime.speaker.landmarks import ARKIT_NAMES
from pflx.runtime.stream.chain import Noise, seeded_noise

HOP = 8
PIECE = RATE_HZ // 25 * HOP
SEGMENT_S = HOP / 25
INFO = GeneratorInfo(name="backchannel", window=HOP, hop=HOP, needs=["audio", "coefficients"], graphs={})
BLINK = ARKIT_NAMES.index("eyeBlinkLeft")
# Seconds in which one of the two speaks, from the labels of the whole dialogue, of which this is the 10th to 29th.
TURNS = ((0.0, 1.03), (0.57, 4.70), (4.49, 7.92), (8.05, 11.49), (11.78, 18.50), (17.85, 19.0))


def generator(hearing: Hearing | None = None) -> BackchannelGenerator:
    return BackchannelGenerator(INFO, {}, GeneratorOptions(), hearing=hearing)


@dataclass(frozen=True)
class Run:
    """What a speaker's sound made of M listeners, coefficients [M, T, 58], and when which of them began to nod."""

    coefficients: Array
    nods: list[tuple[int, float]]

    @property
    def angles_deg(self) -> Array:
        """Pitch, yaw and roll in the picture, [M, T, 3]."""
        return np.degrees(self.coefficients[..., 52:55].astype(np.float64)) * [1, -1, -1]


def steps(
    listener: BackchannelGenerator, sound: Array, noise: Noise, samples: int, face: Array | None = None
) -> Iterator[tuple[Array, State]]:
    """Every segment and the state after it; the first one reacts to nothing, as in a stream."""
    state = listener.start(samples)
    frames = np.concatenate([np.zeros(PIECE, np.float32), sound[: len(sound) // PIECE * PIECE]]).reshape(-1, HOP, 640)
    for index, audio in enumerate(frames):
        rows = np.zeros((HOP, 58), np.float32) if face is None or not index else face[(index - 1) * HOP : index * HOP]
        draws = np.stack([noise(index, sample, listener.noise_size) for sample in range(samples)])
        reaction, state = listener.step({"audio": audio, "coefficients": rows}, state, draws)
        yield reaction.coefficients, state


def run(
    sound: Array, *, samples: int = 4, seed: int = 0, hearing: Hearing | None = None, face: Array | None = None
) -> Run:
    segments, nods, before = [], [], gestures.no_nods(samples)[:, 1]
    for index, (segment, state) in enumerate(steps(generator(hearing), sound, seeded_noise(seed), samples, face)):
        segments.append(segment)
        last = state["nods"][:, 1]
        end_s = (index + 1) * SEGMENT_S
        nods += [(m, end_s - last[m, 0]) for m in np.flatnonzero((last[:, 1:] != before[:, 1:]).any(axis=1)).tolist()]
        before = last
    return Run(np.concatenate(segments, axis=1), nods)


def eventful(sound: Array, *, samples: int, seed: int = 0) -> list[tuple[int, Event]]:
    """Whose events, of a stream's first segment of silence and all that follow."""
    listener, state = generator(), generator().start(samples)
    padded = np.concatenate([np.zeros(PIECE, np.float32), sound, np.zeros(2 * PIECE, np.float32)])
    noise, found = seeded_noise(seed), []
    for index, audio in enumerate(padded[: len(padded) // PIECE * PIECE].reshape(-1, HOP, 640)):
        draws = np.stack([noise(index, sample, listener.noise_size) for sample in range(samples)])
        speaker = {"audio": audio, "coefficients": np.zeros((HOP, 58), np.float32)}
        reaction, state = listener.step(speaker, state, draws)
        for sample in range(samples):
            for row in range(HOP):
                frame = index * HOP + row
                here = events_of(reaction.events, sample, row, frame=frame, time_s=frame / 25)
                found += [(sample, event) for event in here]
    return found


def starts(found: list[tuple[int, Event]], kind: str, sample: int) -> list[float]:
    return [event.time_s for whose, event in found if whose == sample and event.kind == kind]
