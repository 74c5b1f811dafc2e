"""ReactFace in window mode: constant cost per step, unlimited length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pflx.engines import Array, Engine, GeneratorInfo
from pflx.engines.gpu.placement import kept
from pflx.runtime.generators.protocol import GeneratorOptions, Reaction, SpeakerWindow, State, fixed_size, zeros

VARIANCE_FLOOR = 1e-7
"""Added to the audio variance. Source: ReactFace fa4b3a4, wav2vec2 feature extractor."""


class ReactFaceGenerator:
    """M listener reactions from the speaker's picture and sound.

    The speaker's side, where nearly all of the work is, runs once for all samples.

    The public code normalises the whole audio file with its own mean and variance. A live session cannot know them, so
    the running mean and variance up to and including the current window stand in; they come close to the file's
    within seconds of speech and differ most in the first window.

    Source: ReactFace fa4b3a4, dyadic inference.
    """

    options: ClassVar[frozenset[str]] = frozenset()
    needs: tuple[str, ...] = ("video", "audio")
    is_joined = False
    reads_itself = True
    steps: tuple[int, ...] = ()
    lead = 0

    def __init__(self, info: GeneratorInfo, engines: Mapping[str, Engine], options: GeneratorOptions) -> None:
        self.window = info.window
        self.hop = self.opening = info.hop
        self._speaker, self._listener = engines["speaker"], engines["listener"]
        self.noise_size = fixed_size(self._listener, "eps", axis=1)
        self._coefficients = fixed_size(self._listener, "past_reaction", axis=2)

    def start(self, samples: int) -> State:
        """The state before the first step."""
        return {
            "past_reaction": zeros(samples, self.window, self._coefficients),
            "past_motion": zeros(samples, self.noise_size),
            "first": np.ones(1, np.bool_),
            "audio_moments": np.zeros(3, np.float64),
        }

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        """One step; see `Generator.step`."""
        sound = speaker["audio"].reshape(-1)
        moments = add_moments(state["audio_moments"], sound)
        features = self._speaker.run({"video": speaker["video"][None], "audio": normalise(sound, moments)[None]})
        listener = self._listener.run(
            {
                **features,
                "past_reaction": state["past_reaction"],
                "past_motion": state["past_motion"],
                "first": state["first"],
                "eps": noise,
            }
        )
        reaction = kept(listener["reaction"])
        after = {
            "past_reaction": reaction,
            "past_motion": kept(listener["motion"]),
            "first": np.zeros(1, np.bool_),
            "audio_moments": moments,
        }
        return Reaction(reaction), after

    def remember(self, before: State, after: State, shown: Array) -> State:
        """See `SelfReader`: the past reaction is what was shown."""
        return {**after, "past_reaction": shown}


def add_moments(moments: Array, audio: Array) -> Array:
    """Running count, mean and sum of squared deviations, float64 [3], extended by `audio`.

    Source: Chan, Golub, LeVeque 1983, pairwise update.
    """
    count, mean, deviations = moments
    values = audio.astype(np.float64)
    total = count + values.size
    shift = values.mean() - mean
    spread = np.square(values - values.mean()).sum() + shift * shift * count * values.size / total
    return np.array([total, mean + shift * values.size / total, deviations + spread])


def normalise(audio: Array, moments: Array) -> Array:
    """`audio` with zero mean and unit variance by running moments, float32 [N]."""
    count, mean, deviations = moments
    return np.asarray((audio - mean) / np.sqrt(deviations / count + VARIANCE_FLOOR), np.float32)
