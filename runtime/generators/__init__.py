"""Generators: what turns past speaker behaviour into segments of listener coefficients. One file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pflx.engines import BundleError, Engine, FeedError, GeneratorInfo, Manifest
from pflx.runtime.generators.backchannel import BackchannelGenerator
from pflx.runtime.generators.belfusion import BeLFusionGenerator
from pflx.runtime.generators.perfrdiff import PerFRDiffGenerator
from pflx.runtime.generators.personal import Persons
from pflx.runtime.generators.protocol import Generator, GeneratorOptions, Reaction, SpeakerWindow, State, reach
from pflx.runtime.generators.reactface import ReactFaceGenerator
from pflx.runtime.generators.transvae import TransVAEGenerator
from pflx.runtime.persons import Whom

__all__ = [
    "Generator",
    "GeneratorOptions",
    "Persons",
    "Reaction",
    "SpeakerWindow",
    "State",
    "default_sources",
    "generator_of",
    "joins_by_itself",
    "make_generator",
    "reach",
]


class _Kind(NamedTuple):
    make: Callable[[GeneratorInfo, Mapping[str, Engine], GeneratorOptions], Generator]
    options: frozenset[str]
    is_joined: bool
    sources: Mapping[str, str] = {}


_GENERATORS: Mapping[str, _Kind] = {
    "reactface": _Kind(ReactFaceGenerator, ReactFaceGenerator.options, ReactFaceGenerator.is_joined),
    "perfrdiff": _Kind(PerFRDiffGenerator, PerFRDiffGenerator.options, PerFRDiffGenerator.is_joined),
    "transvae": _Kind(TransVAEGenerator, TransVAEGenerator.options, TransVAEGenerator.is_joined),
    "belfusion": _Kind(BeLFusionGenerator, BeLFusionGenerator.options, BeLFusionGenerator.is_joined),
    "backchannel": _Kind(
        BackchannelGenerator,
        BackchannelGenerator.options,
        BackchannelGenerator.is_joined,
        {"coefficients": f"landmarks/{BackchannelGenerator.LOOK}"},
    ),
}


def default_sources(name: str) -> Mapping[str, str]:
    """What gives a generator what it reads of the speaker's face, where nothing else is named.

    Args:
        name: of the generator.

    Returns:
        Need to what `open_extractor` takes. Most generators have none: what they were trained on has no substitute.
    """
    return _GENERATORS[name].sources if name in _GENERATORS else {}


def joins_by_itself(name: str) -> bool:
    """Whether each segment of a generator goes on where the last one ended, so that it asks for no PosNet."""
    return name in _GENERATORS and _GENERATORS[name].is_joined


def make_generator(
    info: GeneratorInfo, engines: Mapping[str, Engine], options: GeneratorOptions | None = None
) -> Generator:
    """The generator that a bundle describes, on its engines.

    Args:
        info: from the manifest.
        engines: by graph name.
        options: what the user chose.

    Raises:
        BundleError: this pflx knows no such generator, or the bundle lacks something that it reads.
        FeedError: an option that this generator does not take, or a value that it cannot work with.
    """
    if info.name not in _GENERATORS:
        raise BundleError(
            f"The bundle's generator is '{info.name}', this pflx runs {', '.join(_GENERATORS)}. Upgrade pflx."
        )
    options = options or GeneratorOptions()
    for name, value in options.given.items():
        if name not in _GENERATORS[info.name].options:
            takers = ", ".join(other for other, kind in _GENERATORS.items() if name in kind.options)
            raise FeedError(f"{name} is {value}, and {info.name} takes no {name}; only {takers} does. Leave it out.")
    by_role = {role: engines[graph] for role, graph in info.graphs.items()}
    try:
        return _GENERATORS[info.name].make(info, by_role, options)
    except LookupError as error:  # a graph's role, a tensor of it, an axis of that, or a setting
        raise BundleError(
            f"The bundle's generator is '{info.name}', and what that reads is not all there: {error}. Export it again."
        ) from error


def generator_of(
    manifest: Manifest,
    engines: Mapping[str, Engine],
    options: GeneratorOptions | None = None,
    person: Whom | None = None,
) -> Generator:
    """The generator of a bundle, with the weights of the person that was chosen.

    Args:
        manifest: of the bundle.
        engines: by graph name.
        options: what the user chose.
        person: one, or a person's file; None for nobody.

    Raises:
        BundleError, FeedError: see `make_generator`.
        PersonError: the bundle does not take the person.
    """
    return Persons(manifest, make_generator(manifest.generator, engines, options)).generator(person)
