"""Generators: what turns past speaker behaviour into segments of listener coefficients. One file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.engines import Array, BundleError, Engine, GeneratorInfo
from pflx.runtime.generators.reactface import ReactFaceGenerator

State: TypeAlias = Mapping[str, Array]
"""Recurrent state: named arrays that go into a step and come out of it, never changed in place."""


@dataclass(frozen=True)
class SpeakerWindow:
    """What a generator reads in one step.

    Attributes:
        video: uint8 [window, 224, 224, 3] RGB, the PFL region at 25 fps.
        audio: float32 [640 · window], 16 kHz mono in [-1, 1].
    """

    video: npt.NDArray[np.uint8]
    audio: npt.NDArray[np.float32]


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
    def noise_size(self) -> int:
        """Standard normal numbers that one step of one sample takes."""
        ...

    @property
    def steps(self) -> tuple[int, ...]:
        """Numbers of denoising steps it can run with, most first; none for a generator that does not denoise."""
        ...

    def start(self, samples: int) -> State:
        """The state before the first step, for M parallel reactions."""
        ...

    def step(self, window: SpeakerWindow, state: State, noise: Array, steps: int | None = None) -> tuple[Array, State]:
        """One step.

        Args:
            window: the newest speaker frames.
            state: of `start`, or of the last step.
            noise: float32 [M, noise_size].
            steps: one of `steps`; None takes the most.

        Returns:
            The segment, float32 [M, hop, 58], mean face subtracted, and the next state.
        """
        ...


_GENERATORS: Mapping[str, Callable[[GeneratorInfo, Mapping[str, Engine]], Generator]] = {
    "reactface": ReactFaceGenerator,
}


def make_generator(info: GeneratorInfo, engines: Mapping[str, Engine]) -> Generator:
    """The generator that a bundle describes, on its engines.

    Args:
        info: from the manifest.
        engines: by graph name.

    Raises:
        BundleError: this pflx knows no such generator.
    """
    if info.name not in _GENERATORS:
        known = ", ".join(_GENERATORS)
        raise BundleError(f"The bundle's generator is '{info.name}', this pflx runs {known}. Upgrade pflx.")
    return _GENERATORS[info.name](info, {role: engines[graph] for role, graph in info.graphs.items()})
