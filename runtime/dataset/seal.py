"""What a row was made with, written into its file: by it, a row that is done is known again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import pflx
from pflx.engines import Array, Bundle
from pflx.engines.bundle.manifest import MANIFEST
from pflx.runtime.bundle_engines import AS_IT_IS, EngineSettings
from pflx.runtime.dataset.rows import Row
from pflx.runtime.frames.coefficients import WINDOW_RADIUS
from pflx.runtime.generators import GeneratorOptions
from pflx.runtime.persons import Whom, read_person
from pflx.runtime.stream.chain import PUBLISHED, ChainSettings

SEAL = "seal"
"""Of the array in a row's file."""

Seal = Mapping[str, Any]
"""Name to what can be written as JSON."""


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """How all rows of a data set are made.

    Attributes:
        samples: M parallel reactions to each speaker.
        seed: of rows that have none of their own.
        duration_s: of each clip, only so much; None takes all.
        video: whether pictures are rendered and written, too.
        lookahead: of pictures; see `Listener`.
        renderer: of pictures; see `Listener.open`.
        device: see `Listener.open`.
        engines: see `Listener.open`.
        options: see `Listener.open`.
        person: see `Listener.open`.
        chain: see `Listener.open`.
        extractors: what gives the speakers' `coefficients` or `emotion` where a row names no file of them; what
            `open_extractor` takes.
    """

    samples: int = 1
    seed: int = 0
    duration_s: float | None = None
    video: bool = False
    lookahead: int = WINDOW_RADIUS
    renderer: str | None = None
    device: str = "cpu"
    engines: EngineSettings = AS_IT_IS
    options: GeneratorOptions = field(default_factory=GeneratorOptions)
    person: Whom | None = None
    chain: ChainSettings = PUBLISHED
    extractors: Mapping[str, str] = field(default_factory=dict)


def settings_seal(bundle: Bundle, settings: DatasetSettings) -> Seal:
    """What all rows of a data set have in common."""
    engines = settings.engines
    return {
        "pflx": pflx.__version__,
        "bundle": sha256((bundle.path / MANIFEST).read_bytes()).hexdigest(),
        "samples": settings.samples,
        "seed": settings.seed,
        "duration_s": settings.duration_s,
        "engine": engines.library,
        "precision": engines.precision or bundle.manifest.precision,
        "device": settings.device.partition(":")[0],
        "options": {name: str(value) for name, value in sorted(settings.options.given.items())},
        "person": None if settings.person is None else str(read_person(settings.person)),
        **asdict(settings.chain.on(bundle.manifest)),
        "extractors": dict(sorted(settings.extractors.items())),
        "pictures": {"lookahead": settings.lookahead, "renderer": settings.renderer} if settings.video else None,
    }


def row_seal(common: Seal, row: Row, seed: int, portrait: Path | None) -> Seal:
    """The same of one row.

    Args:
        common: of `settings_seal`.
        row: what is reacted to.
        seed: of its reactions.
        portrait: what is shown; None where nothing is.
    """
    files = row.files() if portrait is None else {**row.files(), "portrait": portrait}
    return {**common, "row seed": seed, **{role: _facts(path) for role, path in files.items()}}


def difference(found: Seal, wanted: Seal) -> str | None:
    """What one seal has otherwise than another: the rest of a sentence that begins with the row; None if nothing."""
    for name in dict.fromkeys([*wanted, *found]):
        if found.get(name) != wanted.get(name):
            return f"was made with {name} {_told(found.get(name))}, not {_told(wanted.get(name))}"
    return None


def to_array(seal: Seal) -> Array:
    """A seal as it stands in a row's file: uint8, JSON."""
    return np.frombuffer(json.dumps(seal, sort_keys=True).encode("ascii"), np.uint8)


def from_array(array: Array) -> Seal:
    """The opposite of `to_array`.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(array.astype(np.uint8).tobytes().decode("ascii"))
    if not isinstance(found, dict):
        raise ValueError("no seal")
    return found


def read_seal(path: Path) -> Seal | None:
    """Of a row's file; None if there is no whole one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return from_array(arrays[SEAL])
    except Exception:  # what is damaged is of many kinds; all of them are made anew
        return None


def _facts(path: Path) -> Mapping[str, Any]:
    """By which a file is known again, cheaply."""
    return {"name": path.name, "bytes": path.stat().st_size if path.is_file() else None}


def _told(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"{text[:12]}…" if len(text) == 64 else text
