"""What every generator is: windows of the speaker in, segments of the listener out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from pflx.engines import Array, Engine, TensorSpec
from pflx.runtime.frames.event import NO_EVENTS, Events

State: TypeAlias = Mapping[str, Array]
"""Recurrent state: named arrays that go into a step and come out of it, never changed in place."""

SpeakerWindow: TypeAlias = Mapping[str, Array]
"""What a generator reads in one step: need to [window, *one frame], the newest speaker frames.

| need | one frame | |
|---|---|---|
| `video` | uint8 [224, 224, 3] | RGB, the PFL region |
| `audio` | float32 [sample rate / 25] | mono in [-1, 1] |
| `mfcc` | float32 [78] | of the frame's sound, not scaled |
| `coefficients` | float32 [58] | mean face subtracted |
| `emotion` | float32 [25] | action units, valence, arousal, expressions |

Only what the generator needs is there. Where the session is younger than the window, the first rows are zero.
"""


class Reaction(NamedTuple):
    """A new segment of M reactions.

    Attributes:
        coefficients: float32 [M, hop, 58], mean face subtracted.
        emotion: float32 [M, hop, 25], of generators that tell it.
        rest: float32 [M, hop, 58], the same listener who does not react, of generators that know.
        events: what begins in it, of generators that tell it.
    """

    coefficients: Array
    emotion: Array | None = None
    rest: Array | None = None
    events: Events = NO_EVENTS


class Generator(Protocol):
    """One online generator. A step is a pure function: the same arguments give the same result."""

    @property
    def window(self) -> int:
        """Speaker frames that one step reads."""
        ...

    @property
    def hop(self) -> int:
        """New coefficient frames that one step yields."""
        ...

    @property
    def lead(self) -> int:
        """How many frames a segment lies ahead of the speaker frames it is made of: 0…hop."""
        ...

    @property
    def opening(self) -> int:
        """Speaker frames that the first segment waits for at least."""
        ...

    @property
    def is_joined(self) -> bool:
        """Whether each segment goes on where the last one ended, so that there is no seam for PosNet to close."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """What it reads of the speaker, by the names of `SpeakerWindow`."""
        ...

    @property
    def noise_size(self) -> int:
        """Standard normal numbers that one step of one sample takes."""
        ...

    @property
    def steps(self) -> tuple[int, ...]:
        """Numbers of denoising steps it can run with, most first; none for a generator that does not denoise."""
        ...

    def start(self, samples: int) -> State:
        """The state before the first step, for M parallel reactions. An axis of size 0 may grow."""
        ...

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        """One step.

        Args:
            speaker: the newest speaker frames.
            state: of `start`, or of the last step.
            noise: float32 [M, noise_size].
            steps: one of `steps`; None takes the most.

        Returns:
            The segment and the next state.
        """
        ...


class StepDifference(NamedTuple):
    """How far one window is from that of the trained sampler, 49 steps of DDIM.

    Attributes:
        n_steps: denoising steps it was made with.
        solver: and how.
        rms: root of the mean squared difference of coefficients.
        largest: difference of a coefficient.
        typical: root mean square of the trained sampler's coefficients, to compare with.
        head_mean_deg: mean difference of the head's three angles.
        head_largest_deg: largest difference of one of them.
    """

    n_steps: int
    solver: str
    rms: float
    largest: float
    typical: float
    head_mean_deg: float
    head_largest_deg: float


@runtime_checkable
class Denoiser(Protocol):
    """What a generator is besides, if it denoises and a user may choose how."""

    @property
    def is_trained_sampler(self) -> bool:
        """Whether it denoises as it was trained to."""
        ...

    def step_difference(self, speaker: SpeakerWindow, noise: Array) -> StepDifference:
        """How far the chosen steps and solver are from the trained sampler, on one window.

        Args:
            speaker: the window, as for a first step.
            noise: float32 [M, noise_size].
        """
        ...


@runtime_checkable
class TurnTaker(Protocol):
    """What a generator is besides, if it knows whose turn it is."""

    def told(self, state: State, *, answers: bool) -> State:
        """The state before a step, told whether the listener may begin to answer, by a nod, in it and after it.

        Args:
            state: of `start`, or of the last step.
            answers: False drops what is planned and has not begun, and plans nothing.
        """
        ...


@runtime_checkable
class SelfReader(Protocol):
    """What a generator is besides, if it may look back on its own segments."""

    @property
    def reads_itself(self) -> bool:
        """Whether this one does."""
        ...

    def remember(self, before: State, after: State, shown: Array) -> State:
        """The state after a step as if the segment had been generated as it was shown.

        Args:
            before: the state before the step.
            after: the state after it, which remembers the segment as it was generated.
            shown: float32 [M, hop, 58], the segment after PosNet, mean face subtracted.
        """
        ...


@runtime_checkable
class Personal(Protocol):
    """What a generator is besides, if it may have the weights of a person."""

    @property
    def person(self) -> str:
        """SHA-256 of the weights of the person that it is, in hexadecimal; empty for nobody."""
        ...

    @property
    def edited(self) -> Mapping[str, TensorSpec]:
        """The weights that a person has; none where the bundle takes no persons."""
        ...

    def as_person(self, weights: Mapping[str, Array], sha256: str) -> Generator:
        """The same generator on the same engines with other weights.

        Args:
            weights: those of `edited`, float32.
            sha256: of the person.
        """
        ...


def reach(generator: Generator, segment: int) -> int:
    """How many speaker frames must be there before segment k can be made.

    Segment k are the listener's frames [k·hop, (k+1)·hop); it reads the `window` speaker frames before its reach.
    """
    return max((segment + 1) * generator.hop - generator.lead, generator.opening)


def first_after(generator: Generator, position: int) -> int:
    """The first frame of the listener that what is told with a frame of the speaker can change.

    Args:
        generator: that makes the segments.
        position: of the speaker's frame: the first segment that waits for it, or the frame itself if it lies in that.
    """
    segment = 0 if position < generator.opening else (position + generator.lead) // generator.hop
    return max(position, segment * generator.hop)


def delay_frames(generator: Generator, lookahead: int) -> int:
    """How many frames the listener trails the speaker by, computing aside: at worst, and at least one.

    Args:
        generator: that makes the segments.
        lookahead: coefficient frames to wait for before a frame is rendered.
    """
    return max(1, generator.hop - generator.lead + lookahead)


@dataclass(frozen=True)
class GeneratorOptions:
    """What a user may choose of a generator; None leaves it to the bundle.

    Attributes:
        steps: denoising steps; fewer are quicker, and differ from the trained sampler's result.
        solver: `ddim`, which the paper uses, or `dpm++` (DPM-Solver++ 2M), which needs fewer steps.
        history: past frames that a generator with a growing history looks back on; 0 for all.
    """

    steps: int | None = None
    solver: Literal["ddim", "dpm++"] | None = None
    history: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The chosen ones."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def fixed_size(engine: Engine, name: str, *, axis: int) -> int:
    """The size of an input's axis that is the same in every call.

    Raises:
        LookupError: there is no such input, or its axis has no such size.
    """
    size = engine.inputs[name].shape[axis]
    if not isinstance(size, int):
        raise LookupError(f"'{name}' has the dynamic axis '{size}'")
    return size


def zeros(samples: int, *shape: int) -> Array:
    """float32 zeros [samples, *shape], to start a state with."""
    return np.zeros((samples, *shape), np.float32)
