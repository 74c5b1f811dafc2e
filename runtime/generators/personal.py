"""A bundle's generator with the weights of persons: whose fit, and one generator for each of them."""

from __future__ import annotations

from weakref import WeakValueDictionary

from pflx.engines import Manifest
from pflx.runtime.generators.protocol import Generator, Personal
from pflx.runtime.persons import PersonError, Whom, read_person

_SLOT = "generator"
"""Of the provenance that tells which checkpoint a generator's weights came from."""


class Persons:
    """Makes the generator of a person out of that of a bundle; sessions of one person share it.

    Args:
        manifest: of the bundle.
        generator: of the bundle, without a person.
    """

    def __init__(self, manifest: Manifest, generator: Generator) -> None:
        self._manifest, self._generator = manifest, generator
        self._made: WeakValueDictionary[str, Generator] = WeakValueDictionary()

    def check(self, person: Whom) -> None:
        """Check that a person, or the person of a file, is one of this bundle.

        Raises:
            PersonError: the bundle takes no persons, this one was made for another denoiser, or its file is none.
        """
        person = read_person(person)
        name = self._manifest.generator.name
        if not isinstance(self._generator, Personal):
            raise PersonError(f"{person.name} is a person, and {name} takes none; perfrdiff does. Leave it out.")
        if not self._generator.edited:
            raise PersonError(
                f"{person.name} is a person, and the bundle was exported without a graph for persons. Export it again: "
                "pflx export --persons"
            )
        made_of = next((entry.sha256 for entry in self._manifest.provenance if entry.slot == _SLOT), "")
        if person.denoiser != made_of:
            raise PersonError(
                f"{person.name} was made for the denoiser of SHA-256 {person.denoiser[:12]}…, the bundle's is "
                f"{f'{made_of[:12]}…' if made_of else 'made up'}. Make the person again for this one: pflx person make"
            )
        wanted = {tensor: spec.shape for tensor, spec in self._generator.edited.items()}
        found = {tensor: value.shape for tensor, value in person.weights.items()}
        for tensor in sorted(wanted.keys() | found.keys()):
            if wanted.get(tensor) != found.get(tensor):
                raise PersonError(
                    f"{person.name} has {tensor[:80]!r} as {_told(found.get(tensor))}, the bundle edits it as "
                    f"{_told(wanted.get(tensor))}. Make the person again: pflx person make"
                )

    def generator(self, person: Whom | None) -> Generator:
        """The bundle's generator with the weights of a person, or of the person of a file; its own for None.

        Raises:
            PersonError: see `check`.
            DeviceMemoryError: there is no room for the weights.
        """
        if person is None:
            return self._generator
        person = read_person(person)
        self.check(person)
        assert isinstance(self._generator, Personal)
        made = self._made.get(person.sha256)
        if made is None:
            made = self._made[person.sha256] = self._generator.as_person(person.weights, person.sha256)
        return made


def person_of(generator: Generator) -> str:
    """SHA-256 of the person that a generator is, in hexadecimal; empty for nobody."""
    return generator.person if isinstance(generator, Personal) else ""


def _told(shape: tuple[int | str, ...] | None) -> str:
    return "nothing" if shape is None else str([*shape])
