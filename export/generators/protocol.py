"""What the export asks of a generator: its graphs, what the manifest says of it, and its own published numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from torch import Tensor, nn

from pflx.engines import Array, GeneratorInfo
from pflx.export.errors import ComponentError
from pflx.export.recipes import Recipe
from pflx.runtime.generators import SpeakerWindow


class GeneratorParts(Protocol):
    """A generator on its way into a bundle. One class per generator, in a file of its own."""

    @property
    def name(self) -> str:
        """Its name in manifests; the runtime has a generator of the same name."""
        ...

    @property
    def window(self) -> int:
        """Speaker frames that one step reads."""
        ...

    @property
    def hop(self) -> int:
        """New coefficient frames that one step yields."""
        ...

    @property
    def sample_rate_hz(self) -> int:
        """Of the speaker's sound, or of the sound that its MFCC are made of."""
        ...

    @property
    def info(self) -> GeneratorInfo:
        """What the manifest says of it."""
        ...

    @property
    def recipes(self) -> Sequence[Recipe]:
        """Its graphs."""
        ...

    @property
    def generic(self) -> Mapping[str, Tensor]:
        """Weights in whose place a person's come, by their keys in a checkpoint; none of one that takes no persons."""
        ...

    def modules(self) -> Mapping[str, nn.Module]:
        """Graph → the module that is exported: eval mode, float32, takes and gives what the recipe says."""
        ...

    def published(self, windows: Sequence[SpeakerWindow], noise: Sequence[Array]) -> Tensor:
        """The reaction as the public code computes it, in PyTorch, in as plain a way as it does.

        Args:
            windows: what the runtime's generator reads in its steps 0, 1, ..., n-1.
            noise: float32 [1, noise size] for each of these steps, as the runtime's generator takes it.

        Returns:
            float32 [1, n·hop, 58], mean face subtracted, before PosNet.
        """
        ...


@dataclass(frozen=True)
class ExportSettings:
    """What a user may choose of a generator; None leaves it to the generator.

    Attributes:
        window: frames per step.
        mfcc_range: smallest and largest MFCC of the training data, which scale to 0 and 1.
        use_past_frames: whether the last reaction is read, too.
        history: frames that a generator with a growing history looks back on; 0 for all.
        persons: whether it takes persons: a graph more, as large as the denoiser.

    Raises:
        ComponentError: a value that no generator can work with.
    """

    window: int | None = None
    mfcc_range: tuple[float, float] | None = None
    use_past_frames: bool = False
    history: int | None = None
    persons: bool = False

    def __post_init__(self) -> None:
        if self.history is not None and self.history < 0:
            raise ComponentError(f"A history of {self.history} frames is none. Give 1 or more, or 0 for all frames.")
        if self.mfcc_range is None:
            return
        low, high = self.mfcc_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ComponentError(
                f"An MFCC range from {low:g} to {high:g} is empty. Give a smaller and a larger number."
            )

    @property
    def given(self) -> dict[str, Any]:
        """Those that differ from what the generator would take by itself."""
        values = {entry.name: (getattr(self, entry.name), entry.default) for entry in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}


def no_config(network: str, settings: ExportSettings) -> Mapping[str, int]:
    """No options for any network."""
    return {}


@dataclass(frozen=True)
class GeneratorFamily:
    """How one kind of generator is made of checkpoints.

    Attributes:
        name: of the generator, in manifests and on the command line.
        networks: names for `load_model` of what it cannot do without.
        make: its parts, from the networks by name (those of `networks`, and of `optional` where given).
        optional: names for `load_model` of what adds to it.
        files: network → what `detect_component` says of the files that hold it together, where it is not one file.
        settings: fields of `ExportSettings` that it takes; others are refused before `make`.
        config: options of `load_model` for a network, from the settings.
    """

    name: str
    networks: tuple[str, ...]
    make: Callable[[Mapping[str, nn.Module], ExportSettings], GeneratorParts]
    optional: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: frozenset[str] = field(default_factory=frozenset)
    config: Callable[[str, ExportSettings], Mapping[str, int]] = no_config

    def files_of(self, *networks: str) -> tuple[str, ...]:
        """What the files that hold these networks are known as."""
        return tuple(file for network in networks for file in self.files.get(network, (network,)))
