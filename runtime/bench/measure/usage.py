"""How often a segment runs each graph, and at which sizes: by running the generator's own code on stubs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pflx.engines import Array, Engine, Manifest, TensorSpec
from pflx.runtime.bench.measure.stub import stub_engines
from pflx.runtime.bundle_engines import call_sizes
from pflx.runtime.frames.timing import FPS
from pflx.runtime.generators import Generator, GeneratorOptions, SpeakerWindow, generator_of
from pflx.runtime.generators.speaker_window import blank_window
from pflx.runtime.persons import Whom

_FEWEST_STEPS = 4  # the first ones are not like the later ones
_LONGEST_S = 10  # of speaker frames, for a history that never stops growing


@dataclass(frozen=True)
class Use:
    """What a segment asks of a graph.

    Attributes:
        per_segment: calls; 0 for what only runs at the start of a session.
        sizes: of the named dimensions of its inputs.
    """

    per_segment: int
    sizes: Mapping[str, int]


def graph_uses(
    manifest: Manifest, samples: int, options: GeneratorOptions | None = None, person: Whom | None = None
) -> dict[str, Use]:
    """The use of every graph of a bundle, once a session is under way.

    A generator is run until two steps in a row ask for the same, or for 10 s of the speaker.

    Args:
        manifest: of the bundle.
        samples: reactions at once.
        options: what is chosen of the generator.
        person: whose weights it has.

    Raises:
        FeedError, PersonError: an option that the generator does not take; a person that it does not.
    """
    counting = {name: _Counting(engine) for name, engine in stub_engines(manifest).items()}
    generator = generator_of(manifest, counting, options, person)
    uses = _steady_uses(generator, counting, samples, blank_window(generator, manifest.sample_rate_hz))
    sizes = {**call_sizes(manifest), "samples": samples}
    joins = 0 if generator.is_joined else 1
    others = {manifest.smoother.graphs["smooth"]: joins, manifest.renderer.graphs["frame"]: generator.hop * samples}
    return {
        name: uses[name] if name in manifest.generator.graphs.values() else Use(others.get(name, 0), sizes)
        for name in manifest.graphs
    }


def _steady_uses(
    generator: Generator, engines: Mapping[str, _Counting], samples: int, window: SpeakerWindow
) -> dict[str, Use]:
    state, noise = generator.start(samples), np.zeros((samples, generator.noise_size), np.float32)
    uses: dict[str, Use] = {}
    for step in range(max(_FEWEST_STEPS, _LONGEST_S * FPS // generator.hop)):
        for engine in engines.values():
            engine.calls = 0
        _, state = generator.step(window, state, noise)
        before, uses = uses, {name: Use(engine.calls, dict(engine.sizes)) for name, engine in engines.items()}
        if step >= _FEWEST_STEPS and uses == before:
            break
    return uses


@dataclass
class _Counting:
    """Another engine, whose calls and sizes are noted."""

    engine: Engine
    calls: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self.engine.inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self.engine.outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.calls += 1
        for name, spec in self.inputs.items():
            pairs = zip(spec.shape, feeds[name].shape, strict=True)
            self.sizes |= {axis: size for axis, size in pairs if isinstance(axis, str)}
        return self.engine.run(feeds)

    def close(self) -> None:
        self.engine.close()
