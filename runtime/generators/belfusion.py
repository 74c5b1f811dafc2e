"""BeLFusion: two seconds of a listener from the speaker's emotion of the two seconds before."""

from __future__ import annotations

from collections.abc import Mapping

from pflx.engines import Array, Engine, GeneratorInfo
from pflx.engines.gpu.placement import kept
from pflx.runtime.generators.protocol import GeneratorOptions, Reaction, SpeakerWindow, State, fixed_size


class BeLFusionGenerator:
    """M listener reactions from the speaker's emotion.

    Windows are made one by one and know nothing of each other, so that there is no state. The reaction to a window is
    shown during the next one, and the first window reacts to zeros.

    Its coefficients come from the emotion it makes, by a regressor trained on data without the mean face.

    Source: baseline_react2024 0c3ce58, BeLFusion, online.
    """

    options: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ("emotion",)
    is_joined = False
    steps: tuple[int, ...] = ()
    opening = 0

    def __init__(self, info: GeneratorInfo, engines: Mapping[str, Engine], options: GeneratorOptions) -> None:
        self.window = info.window
        self.hop = self.lead = info.hop
        self._react = engines["react"]
        self.noise_size = fixed_size(self._react, "noise", axis=1)

    def start(self, samples: int) -> State:
        """The state before the first step: none."""
        return {}

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        """One step; see `Generator.step`."""
        made = self._react.run({"speaker_emotion": speaker["emotion"][None], "noise": noise})
        return Reaction(kept(made["coefficients"]), kept(made["emotion"])), state
