"""Trans-VAE: every step looks back on the session, on all of it or on a bounded history."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pflx.engines import Array, Engine, FeedError, GeneratorInfo
from pflx.engines.gpu.placement import concatenate, kept
from pflx.runtime.generators.protocol import GeneratorOptions, Reaction, SpeakerWindow, State, fixed_size

MAX_FRAMES = 751
"""History and window together. Source: baseline_react2024 0c3ce58, the masks of Trans-VAE's decoders."""

_GROWING = {
    "past_features": ("features", 0),
    "past_moments": ("moments", 0),
    "past_mfcc": ("mfcc", 1),
    "past_coefficients": ("coefficients", 1),
    "past_emotion": ("emotion", 1),
}
"""Part of the state → what a step adds to it, and along which axis its frames lie."""


class TransVAEGenerator:
    """M listener reactions from the speaker's picture and sound.

    The public code encodes all frames since the start of a clip in every step, and normalises each by all of them: the
    cost of a step grows, and a session is at most 751 frames long. So the history can be bounded. The last frames are
    then all there is, as if the session had begun with them: steps cost the same for ever, and a session shorter than
    history and window together is exactly the unbounded one. A history of 0 keeps everything, as the public code does.

    What only depends on a frame itself is computed once: its first convolution, pooled, and the moments of it.

    Source: baseline_react2024 0c3ce58, Trans-VAE, online.
    """

    options: frozenset[str] = frozenset({"history"})
    needs: tuple[str, ...] = ("video", "mfcc")
    is_joined = False
    reads_itself = True
    steps: tuple[int, ...] = ()
    lead = 0

    def __init__(self, info: GeneratorInfo, engines: Mapping[str, Engine], options: GeneratorOptions) -> None:
        self.window = info.window
        self.hop = self.opening = info.hop
        self._first, self._next = engines["first"], engines["next"]
        self.noise_size = fixed_size(self._next, "eps", axis=1)
        given = options.history
        self.history = int(info.settings.get("history", 0)) if given is None else given
        if not 0 <= self.history <= MAX_FRAMES - self.window:
            raise FeedError(
                f"history is {self.history}; Trans-VAE looks back on 1 to {MAX_FRAMES - self.window} frames, "
                "or with 0 on all of a clip of up to 30 s."
            )

    def start(self, samples: int) -> State:
        """The state before the first step: no frames."""
        sizes = {"samples": samples, "history": 0}
        shapes = {name: self._next.inputs[name].shape for name in _GROWING}
        return {
            name: np.zeros([sizes[axis] if isinstance(axis, str) else axis for axis in shape], np.float32)
            for name, shape in shapes.items()
        }

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        """One step; see `Generator.step`.

        Raises:
            FeedError: the history is not bounded, and the session is longer than the network can look back.
        """
        n_past = state["past_features"].shape[0]
        if n_past + self.window > MAX_FRAMES:
            raise FeedError(
                f"The session is longer than {n_past} frames, and Trans-VAE looks back on {MAX_FRAMES} at most. "
                "Bound its history, as with 64 frames: history=64, or --history 64."
            )
        feeds = {"video": speaker["video"][None], "mfcc": speaker["mfcc"][None], "eps": noise}
        made = self._next.run({**feeds, **state}) if n_past else self._first.run(feeds)
        new = {**made, "mfcc": feeds["mfcc"]}
        after = {name: self._kept(state[name], new[source], axis) for name, (source, axis) in _GROWING.items()}
        return Reaction(kept(made["coefficients"]), kept(made["emotion"])), after

    def remember(self, before: State, after: State, shown: Array) -> State:
        """See `SelfReader`: the past coefficients are what was shown; the past emotion stays as it was told."""
        return {**after, "past_coefficients": self._kept(before["past_coefficients"], shown, 1)}

    def _kept(self, past: Array, new: Array, axis: int) -> Array:
        """Past and new frames, no more than the history."""
        n_past, n_new = past.shape[axis], new.shape[axis]
        surplus = max(0, n_past + n_new - self.history) if self.history else 0
        lead = (slice(None),) * axis
        still, fresh = slice(min(surplus, n_past), None), slice(max(0, surplus - n_past), None)
        frames: Array = concatenate([past[(*lead, still)], new[(*lead, fresh)]], axis)
        return frames
