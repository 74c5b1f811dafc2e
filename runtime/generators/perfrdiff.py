"""PerFRDiff: a second of a listener, denoised step by step from what the speaker did until now."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import numpy as np

from pflx.engines import Array, BundleError, Engine, GeneratorInfo, TensorSpec
from pflx.engines.bundle.manifest import PERSONAL_ROLE
from pflx.engines.gpu.placement import concatenate, kept
from pflx.engines.graphs.protocol import placed, run_loop
from pflx.runtime.generators.diffusion import N_STEPS, Solver, check_sampler, updates
from pflx.runtime.generators.protocol import (
    GeneratorOptions,
    Reaction,
    SpeakerWindow,
    State,
    StepDifference,
    fixed_size,
    zeros,
)

_FEWER = (25, 12, 6)
"""Numbers of steps to fall back to where there is no time: about half of the work each."""

_ROTATION = slice(52, 55)


class PerFRDiffGenerator:
    """M listener reactions from the speaker's coefficients and sound.

    The speaker is encoded once per window for all samples; every denoising step runs all samples, with and without the
    speaker, in one call.

    Windows are 50 frames long and 25 apart, and window 0 gives the first two segments: its second half waits in the
    state. Later windows give their second half. All windows of a session start from the same noise, the first step's.

    The public code scales MFCC with the smallest and largest value of the whole clip, its future included. Here the
    bounds are fixed, part of the bundle; what lies outside is clipped, for the network has never seen it.

    A network that was trained with the past listener reads the whole window before, of which the first half was made
    again and never shown; `remember` gives it the two segments that were shown in its place.

    Emotion is told for the coefficients of the segment, before PosNet.

    With the weights of a person, a denoising step is another graph, to which they are inputs: any number of persons and
    nobody take turns on the same engines, each in calls of its own.

    Source: PFLPosNet 6c274a2, `TransformerDenoiser_v5`, config/pos/pos.yaml in test mode.
    """

    options: frozenset[str] = frozenset({"steps", "solver"})
    needs: tuple[str, ...] = ("coefficients", "mfcc")
    is_joined = False

    def __init__(self, info: GeneratorInfo, engines: Mapping[str, Engine], options: GeneratorOptions) -> None:
        n_steps = N_STEPS if options.steps is None else options.steps
        self._solver: Solver = options.solver or "ddim"
        check_sampler(n_steps, self._solver)
        self.window = info.window
        self.hop = self.lead = self.opening = info.hop
        self.steps = (n_steps, *(fewer for fewer in _FEWER if fewer < n_steps))
        self._condition, self._denoise = engines["condition"], engines["denoise"]
        self._personal, self._emotion = engines.get(PERSONAL_ROLE), engines.get("emotion")
        self.person, self._own = "", dict[str, Array]()
        self.reads_itself = "past" in self._condition.inputs
        self._low, self._high = _mfcc_bounds(info)
        self._coefficients = fixed_size(self._denoise, "x", axis=2)
        self.noise_size = self.window * self._coefficients

    @property
    def edited(self) -> Mapping[str, TensorSpec]:
        """See `Personal`."""
        if self._personal is None:
            return {}
        return {name: spec for name, spec in self._personal.inputs.items() if name not in self._denoise.inputs}

    def as_person(self, weights: Mapping[str, Array], sha256: str) -> PerFRDiffGenerator:
        """See `Personal`."""
        assert self._personal is not None, "nothing is edited"
        made = copy(self)
        made.person, made._own = sha256, placed(self._personal, weights)
        return made

    def start(self, samples: int) -> State:
        """The state before the first step."""
        shape = (samples, self.window, self._coefficients)
        past = {"past": zeros(*shape)} if self.reads_itself else {}
        waiting = zeros(samples, self.hop, self._coefficients)
        return {"made": np.zeros(1, np.int64), "noise": zeros(*shape), "waiting": waiting, **past}

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        """One step; see `Generator.step`. `steps` may be any number from 1 to 49.

        Raises:
            FeedError: another number of steps.
        """
        made = int(state["made"][0])
        if made == 1:
            return self._reaction(state["waiting"]), {**state, "made": state["made"] + 1}
        start = state["noise"] if made else noise.reshape(state["noise"].shape)
        window = self._sample(speaker, state, start, self.steps[0] if steps is None else steps)
        after = {**state, "made": state["made"] + 1, "noise": start}
        if self.reads_itself:
            after["past"] = window
        if made:
            return self._reaction(window[:, self.hop :]), after
        return self._reaction(window[:, : self.hop]), {**after, "waiting": window[:, self.hop :].copy()}

    def remember(self, before: State, after: State, shown: Array) -> State:
        """See `SelfReader`: the past window is the last two segments that were shown; zeros before the first."""
        past: Array = concatenate([before["past"][:, self.hop :], shown], 1)
        return {**after, "past": past}

    @property
    def is_trained_sampler(self) -> bool:
        """Whether it denoises as it was trained to: 49 steps of DDIM."""
        return self.steps[0] == N_STEPS and self._solver == "ddim"

    def step_difference(self, speaker: SpeakerWindow, noise: Array) -> StepDifference:
        """How far the chosen steps and solver are from the trained sampler, on one window.

        Args:
            speaker: the window, as for a first step.
            noise: float32 [M, 2900].
        """
        state = self.start(len(noise))
        start = noise.reshape(state["noise"].shape)
        chosen = np.asarray(self._sample(speaker, state, start, self.steps[0]))
        trained = np.asarray(self._sample(speaker, state, start, N_STEPS, "ddim"))
        difference = np.abs(chosen - trained)
        turned = np.rad2deg(difference[..., _ROTATION])
        return StepDifference(
            n_steps=self.steps[0],
            solver=self._solver,
            rms=float(np.sqrt(np.mean(np.square(difference)))),
            largest=float(difference.max()),
            typical=float(np.sqrt(np.mean(np.square(trained)))),
            head_mean_deg=float(turned.mean()),
            head_largest_deg=float(turned.max()),
        )

    def scaled(self, mfcc: Array) -> Array:
        """MFCC as the network takes them, float32 of the same shape in [0, 1]."""
        return np.asarray(np.clip((mfcc - self._low) / (self._high - self._low), 0, 1), np.float32)

    def _sample(
        self, speaker: SpeakerWindow, state: State, noise: Array, n_steps: int, solver: Solver | None = None
    ) -> Array:
        """A window of reactions, float32 [M, 50, 58]."""
        given = {"coefficients": speaker["coefficients"][None], "mfcc": self.scaled(speaker["mfcc"])[None]}
        past = {"past": state["past"]} if self.reads_itself else {}
        condition = {name: kept(value) for name, value in self._condition.run({**given, **past}).items()}
        steps = [
            {"step": np.array([row]), "update": weights} for row, weights in updates(n_steps, solver or self._solver)
        ]
        feeds = {"x": noise, "previous": noise, **condition, **self._own}
        denoise = self._personal if self._personal is not None and self._own else self._denoise
        return run_loop(denoise, feeds, {"x": "next", "previous": "clean"}, steps)["next"]

    def _reaction(self, coefficients: Array) -> Reaction:
        segment = coefficients.copy()
        if self._emotion is None:
            return Reaction(segment)
        return Reaction(segment, kept(self._emotion.run({"coefficients": segment})["emotion"]))


def _mfcc_bounds(info: GeneratorInfo) -> tuple[np.float32, np.float32]:
    low, high = (info.settings.get(name, np.nan) for name in ("mfcc_min", "mfcc_max"))
    if not low < high:
        raise BundleError(
            f"The bundle scales MFCC from {low:g} to {high:g}; {info.name} needs mfcc_min below mfcc_max in its "
            "settings. Export it again."
        )
    return np.float32(low), np.float32(high)
