"""A person: what a generator's weights are for one listener, in a file of about 4 MB."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import pflx
from pflx.engines import Array, PflxError
from pflx.engines.files.tensor_file import read_tensors, write_tensors

FORMAT = "1"
"""Version of the file; another one is refused."""
MODES = ("shift", "offset", "weight")
"""How a hypernetwork's output D became weights W' of weights W: W + D, W (1 + D), D."""
STYLE_SIZE = 512
MOST_FRAMES = 999
"""That a person encoder reads, for its table of positions ends there."""

_STYLE = "style"
_MOST_TENSORS, _MOST_AXES, _LONGEST_TEXT = 64, 4, 200
_HASH = re.compile(r"[0-9a-f]{64}")
_AGAIN = "Make it again: pflx person make"


class PersonError(PflxError, ValueError):
    """A person, or a file of one, is not what it should be, or does not fit."""


class PersonMissingError(PersonError, FileNotFoundError):
    """There is no such file."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Person:
    """One listener's weights, and where they came from.

    Attributes:
        name: for people, of 1 to 200 letters that can be shown.
        style: float32 [512], of the person encoder.
        weights: float32, whole edited tensors by their names in the generator's checkpoint, to be used in the place of
            those; for PerFRDiff with the keys of its denoiser v5.
        denoiser: SHA-256, in hexadecimal, of the checkpoint whose weights were edited.
        encoder: SHA-256 of the person encoder's.
        hypernetwork: SHA-256 of the hypernetwork's.
        mode: "shift", "offset" or "weight"; see `MODES`.
        frames: of the clip that the person was seen in, 1 to 999 at 25 fps.
        source: what the clip was.
        pflx: version that made it.
        created: when, ISO 8601.

    Raises:
        PersonError: an attribute is none of these.
    """

    name: str
    style: Array
    weights: Mapping[str, Array]
    denoiser: str
    encoder: str
    hypernetwork: str
    mode: str
    frames: int
    source: str
    created: str
    pflx: str = pflx.__version__

    def __str__(self) -> str:
        """Write `Ada, SHA-256 0123…`: by that, what was made with it is known again."""
        return f"{self.name}, SHA-256 {self.sha256}"

    def __post_init__(self) -> None:
        """Refuse what is no person."""
        for fault in (self._wrong_text(), self._wrong_number()):
            if fault:
                raise PersonError(f"No person: {fault}. {_AGAIN}.")

    @cached_property
    def sha256(self) -> str:
        """Of the weights alone, in hexadecimal: what a reaction depends on. Persons with equal weights are the same."""
        return _digest(self.weights, {})

    def _wrong_text(self) -> str:
        for name in _TEXTS:
            value = getattr(self, name)
            if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_TEXT or not value.isprintable():
                return f"its {name} is {str(value)[:60]!r}, not 1 to {_LONGEST_TEXT} letters that can be shown"
        for name in ("denoiser", "encoder", "hypernetwork"):
            if not _HASH.fullmatch(getattr(self, name)):
                return f"its {name} is {getattr(self, name)[:70]!r}, not the SHA-256 of a checkpoint"
        return "" if self.mode in MODES else f"its mode is {self.mode[:60]!r}, not one of {', '.join(MODES)}"

    def _wrong_number(self) -> str:
        if not 1 <= self.frames <= MOST_FRAMES:
            return f"it was seen in {self.frames} frames, not in 1 to {MOST_FRAMES}"
        if self.style.shape != (STYLE_SIZE,):
            return f"its style is of shape {list(self.style.shape)}, not [{STYLE_SIZE}]"
        if not 1 <= len(self.weights) <= _MOST_TENSORS or _STYLE in self.weights:
            return f"it has {len(self.weights)} edited tensors, not 1 to {_MOST_TENSORS} besides its style"
        for name, value in {_STYLE: self.style, **self.weights}.items():
            shown = f"{name[:80]!r} is {value.dtype} {list(value.shape)}"
            if value.dtype != np.float32 or not 1 <= value.ndim <= _MOST_AXES or not value.size:
                return f"{shown}, not float32 numbers on 1 to {_MOST_AXES} axes"
            if not np.isfinite(value).all():
                return f"{name[:80]!r} has numbers that are not finite"
        return ""


_TEXTS = tuple(field.name for field in fields(Person) if field.name not in ("style", "weights", "frames"))


def write_person(person: Person, path: str | Path) -> None:
    """Write a person's file, whole or not at all.

    Args:
        person: to be written.
        path: `.person` by custom. The format is that of safetensors.

    Raises:
        OutputError: it cannot be written.
    """
    texts = {name: str(getattr(person, name)) for name in (*_TEXTS, "frames")} | {"format": FORMAT}
    tensors = {**person.weights, _STYLE: person.style}
    write_tensors(path, tensors, {**texts, "sha256": _digest(tensors, texts)})


Whom: TypeAlias = Person | str | Path
"""A person, or its file."""


def read_person(path: Whom) -> Person:
    """Read what `write_person` wrote; a person that was read already is given back.

    Raises:
        PersonError: the file is not there, is of another kind or version, or was changed or damaged since.
    """
    if isinstance(path, Person):
        return path
    tensors, texts = read_tensors(path, PersonError, PersonMissingError)
    version, seal = texts.get("format"), texts.pop("sha256", None)
    if version is None or seal is None or _STYLE not in tensors:
        raise PersonError(f"{path} holds tensors, and no person. {_AGAIN}.")
    if version != FORMAT:
        raise PersonError(f"{path} is of format {version[:20]!r}, this pflx reads {FORMAT}. {_AGAIN}.")
    if seal != _digest(tensors, texts):
        raise PersonError(f"{path} was changed or damaged since it was written. Copy it again, or make it again.")
    del texts["format"]
    style = tensors.pop(_STYLE)
    try:
        return _person(tensors, style, texts)
    except PersonError as error:
        raise PersonError(f"{path}: {error}") from error


def _person(weights: Mapping[str, Array], style: Array, texts: dict[str, str]) -> Person:
    frames = texts.pop("frames", "")
    if texts.keys() != set(_TEXTS) or not re.fullmatch(r"\d{1,4}", frames, re.ASCII):
        raise PersonError(f"No person: it says {', '.join(sorted(texts))[:200]}. {_AGAIN}.")
    given: dict[str, Any] = {**texts, "frames": int(frames)}
    return Person(style=style, weights=weights, **given)


def _digest(tensors: Mapping[str, Array], texts: Mapping[str, str]) -> str:
    """SHA-256 of names, shapes, bytes and texts."""
    digest = hashlib.sha256()
    for name, text in sorted(texts.items()):
        digest.update(f"{name!r} {text!r}\n".encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name!r} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value, "<f4").data)
    return digest.hexdigest()
