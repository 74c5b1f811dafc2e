"""Where in a checkpoint the weights of a network are, found by the keys that it must have.

Training code puts them below other entries (`state_dict`, `model`, `ema`) and behind prefixes (`module.`, `model.`).
What these are called says nothing; that all keys of a network are there does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pflx.export.checkpoints.signatures import SIGNATURES, expected_keys
from pflx.export.errors import CheckpointError

WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"))
"""Levels that distributed training and compilation put anywhere into a key; no network has any of that name."""
STATISTICS = "statistics"
"""Of the latent space, beside the weights of an autoencoder."""

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|-")
_AVERAGED = re.compile(r"(?:^|[_.])(?:ema|swa|shadow|averaged?|avg)(?:[_.]|$)")
_ENOUGH = 0.5
"""Share of a network's keys that a prefix must be common to, to count as one."""
_MOST_PLACES, _DEEPEST = 100_000, 16
_SHOWN = 3


@dataclass(frozen=True)
class Found:
    """Weights in a checkpoint.

    Attributes:
        weights: key to tensor, without prefixes.
        nesting: the entries that hold them, joined by dots; empty where they are at the top.
        notes: what was chosen, set aside or renamed.
        places: every entry that holds named tensors, in words.
        expected: keys that the network must have; empty where it is none that is known.
    """

    weights: dict[str, Tensor]
    nesting: str
    notes: tuple[str, ...]
    places: tuple[str, ...]
    expected: frozenset[str]


@dataclass(frozen=True)
class _Place:
    """An entry that holds named tensors.

    Attributes:
        path: the entries above it, and its own.
        levels: what lies on the way, the whole checkpoint first, itself last.
        tensors: key without wrappers to tensor.
        spelled: the same to the key as it is in the file.
        twice: a key that is there in two spellings, and the wrapper they differ by; None if there is none.
    """

    path: tuple[str, ...]
    levels: tuple[Mapping[object, object], ...]
    tensors: dict[str, Tensor]
    spelled: dict[str, str]
    twice: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def __str__(self) -> str:
        keys = list(self.tensors)
        shown = ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
        return f"{self.name or 'at the top'}: {len(keys)} tensors ({shown})"


@dataclass(frozen=True)
class _Candidate:
    """Weights of a known network.

    Attributes:
        network: its name.
        place: where they are.
        prefix: of their keys; empty, or it ends with a dot.
        share: of the network's keys, that are there.
    """

    network: str
    place: _Place
    prefix: str
    share: float

    @property
    def name(self) -> str:
        where = ".".join(filter(None, (self.place.name, self.prefix.rstrip("."))))
        return where or "the top"

    @property
    def is_average(self) -> bool:
        return _is_average(self.name)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Those behind the prefix, and behind the wrappers before it, if the network is behind some."""
        size, spelled = len(self.prefix), self.place.spelled
        signature = SIGNATURES[self.network].key
        wrapped = spelled[f"{self.prefix}{signature}"]
        begin = wrapped.removesuffix(signature) if wrapped.endswith(signature) else ""
        return {
            key[size:]: value
            for key, value in self.place.tensors.items()
            if key.startswith(self.prefix) and spelled[key].startswith(begin)
        }


def _is_average(name: str) -> bool:
    return _AVERAGED.search(_CAMEL.sub("_", name).lower()) is not None


def find_weights(path: Path, content: object, wanted: Collection[str]) -> Found:
    """Find the weights of a network in what a file held.

    Args:
        path: for messages.
        content: what it held.
        wanted: networks to prefer where there are several, by the names of `SIGNATURES`.

    Raises:
        CheckpointError: there are no named tensors, or an entry contains itself.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(path, f"holds a {type(content).__name__}, not a state dict of named tensors")
    places = list(_places(path, content))
    if not places:
        unnamed = "".join(f"; {each}" for each in _unnamed_averages(content))
        raise CheckpointError(
            path, f"holds no named tensors; it holds {_listed(map(str, content)) or 'nothing'}{unnamed}"
        )
    candidates = [candidate for place in places for candidate in _candidates(place)]
    described = tuple(map(str, places))
    if not candidates:
        place = max(places, key=lambda one: len(one.tensors))
        return Found(_distinct(path, place, ""), place.name, tuple(_notes(place)), described, frozenset())
    preferred = {name for name, known in SIGNATURES.items() if name in wanted or known.variant_of in wanted}
    best = max(candidates, key=lambda one: (one.network in preferred, one.share, one.is_average))
    rivals = [one for one in candidates if one.network == best.network and one.share >= _ENOUGH and one is not best]
    _distinct(path, best.place, best.prefix)
    weights, notes = best.weights, list(_notes(best.place))
    if rivals:
        kind = "an average of weights, " if best.is_average else ""
        notes.insert(0, f"took {best.name}, {kind}and not {_listed(one.name for one in rivals)}")
    if not best.is_average:
        notes += _unnamed_averages(content)
    if best.prefix:
        notes.append(f"'{best.prefix}' removed from keys")
    if others := len(best.place.tensors) - len(weights):
        notes.append(f"{others} keys without that not read")
    statistics = _statistics(best.place.levels)
    return Found(weights | statistics, best.place.name, tuple(notes), described, expected_keys(best.network))


def _places(path: Path, content: Mapping[object, object]) -> Iterator[_Place]:
    """Every entry with named tensors, the outer ones first."""
    waiting: list[tuple[tuple[str, ...], tuple[Mapping[object, object], ...]]] = [((), (content,))]
    seen = {id(content)}
    for entry, levels in waiting:
        level = levels[-1]
        if (place := _place(entry, levels)) is not None:
            yield place
        for key, value in level.items():
            if not isinstance(value, Mapping) or len(levels) > _DEEPEST:
                continue
            if any(value is above for above in levels):
                raise CheckpointError(path, f"holds a dictionary that contains itself, as '{key}'; save it without")
            if id(value) not in seen and len(waiting) < _MOST_PLACES:
                seen.add(id(value))
                waiting.append(((*entry, str(key)), (*levels, value)))


def _unnamed_averages(content: Mapping[object, object], above: tuple[str, ...] = ()) -> Iterator[str]:
    """Averages of weights that are lists, as some training code keeps them: which number is whose, they do not say."""
    for key, value in content.items():
        name = ".".join((*above, str(key)))
        if isinstance(value, Mapping) and len(above) < _DEEPEST:
            yield from _unnamed_averages(value, (*above, str(key)))
        elif _is_average(name) and isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
            yield (
                f"{name} is an average of weights without their names, and was not taken; to have it, copy it into the "
                "network and save that: torch.save(model.state_dict(), path)"
            )


def _place(entry: tuple[str, ...], levels: tuple[Mapping[object, object], ...]) -> _Place | None:
    if entry and entry[-1] == STATISTICS:
        return None
    tensors: dict[str, Tensor] = {}
    spelled: dict[str, str] = {}
    twice = None
    for key, value in levels[-1].items():
        if isinstance(key, str) and (tensor := _tensor(value)) is not None:
            clean = ".".join(part for part in key.split(".") if part not in WRAPPERS)
            if clean in tensors:
                both = f"{key}.{spelled[clean]}".split(".")
                twice = clean, next(part for part in both if part in WRAPPERS)
            tensors[clean], spelled[clean] = tensor, key
    return _Place(entry, levels, tensors, spelled, twice) if tensors else None


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.ndim:
        return torch.from_numpy(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
    return value if isinstance(value, Tensor) else None


def _candidates(place: _Place) -> Iterator[_Candidate]:
    for network, signature in SIGNATURES.items():
        for key, value in place.tensors.items():
            if key != signature.key and not key.endswith(f".{signature.key}"):
                continue
            if signature.shape is not None and tuple(value.shape) != signature.shape:
                continue
            prefix = key.removesuffix(signature.key)
            expected = expected_keys(network)
            share = sum(f"{prefix}{name}" in place.tensors for name in expected) / max(1, len(expected))
            if not prefix or share >= _ENOUGH:
                yield _Candidate(network, place, prefix, share)


def _distinct(path: Path, place: _Place, prefix: str) -> dict[str, Tensor]:
    """The tensors of a place, where none that are wanted is there in two spellings."""
    if place.twice and place.twice[0].startswith(prefix):
        raise CheckpointError(path, f"holds keys that differ only by '{place.twice[1]}.'; remove one of each pair")
    return place.tensors


def _notes(place: _Place) -> Iterator[str]:
    statistics = _statistics(place.levels)
    for inner, level in zip(place.path, place.levels, strict=False):
        others = [str(key) for key in level if key != inner and (key != STATISTICS or not statistics)]
        if others:
            yield f"not read beside {inner}: {_listed(iter(others))}"
    keys = [key for key, value in place.levels[-1].items() if isinstance(key, str) and _tensor(value) is not None]
    others = [str(key) for key in place.levels[-1] if key not in keys and key != STATISTICS]
    if others:
        yield f"no tensors: {_listed(iter(others))}"
    for wrapper in sorted(WRAPPERS):
        if any(wrapper in key.split(".") for key in keys):
            yield f"'{wrapper}.' removed from keys"


def _statistics(levels: tuple[Mapping[object, object], ...]) -> dict[str, Tensor]:
    """Return what an autoencoder's checkpoint tells of its latent space, as `statistics.min` and so on."""
    statistics: dict[str, Tensor] = {}
    for level in levels:
        found = level.get(STATISTICS)
        if isinstance(found, Mapping):
            values = {f"{STATISTICS}.{name}": _tensor(value) for name, value in found.items()}
            statistics |= {name: value for name, value in values.items() if value is not None}
    return statistics


def _listed(names: Iterator[str]) -> str:
    every = list(names)
    more = f" and {len(every) - 2 * _SHOWN} more" if len(every) > 2 * _SHOWN else ""
    return ", ".join(every[: 2 * _SHOWN]) + more
