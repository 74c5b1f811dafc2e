"""Checkpoints to networks: which one a file holds, and what is said where it is another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from pflx.export.checkpoints.files import Tell, map_again, read_file, silent
from pflx.export.checkpoints.nests import STATISTICS, find_weights
from pflx.export.checkpoints.signatures import SIGNATURES, Signature
from pflx.export.checkpoints.tensors import check_tensors
from pflx.export.errors import StateDictError, UnknownComponentError, WrongComponentError
from pflx.export.models import PerFRDiffRender, load_model, unused_keys

RENDER_NOTE = "PerFRDiffRender's denoiser: to_3dmm_feat split into to_3dmm_expr and to_3dmm_pos"
"""What the record of a bundle says of a denoiser with one head."""
_REACT_2026 = "personal_condition_mode"
"""What lies beside the weights in files of REACT 2026, whose hypernetworks may have the keys of PerFRDiff's, but make
layers in an order of their own."""
_SHOWN_KEYS = 3
_WITH_STATISTICS = ("belfusion", "belfusion_vae")
_GENERATOR = tuple(name for name, signature in SIGNATURES.items() if signature.slot == "--generator")


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file.

    Attributes:
        path: the file.
        sha256: of the whole file, in hexadecimal; of several shards, of their hashes in order.
        state_dict: tensors on the CPU under the public keys, without nesting and prefixes.
        nesting: the entry that held the weights, such as "state_dict"; empty if they were at the top.
        notes: what was chosen, set aside or renamed on the way, for the record.
        places: every entry of the file that holds named tensors, in words.
        entries: what the file has at its top.
    """

    path: Path
    sha256: str
    state_dict: dict[str, Tensor]
    nesting: str
    notes: tuple[str, ...]
    places: tuple[str, ...] = ()
    entries: frozenset[str] = frozenset()


def read_checkpoint(
    path: Path | str, wanted: Collection[str] = (), tell: Tell = silent, *, in_parts: bool = False
) -> Checkpoint:
    """Return the weights in a file of PyTorch or safetensors, whatever its name; never runs code from the file.

    They are looked for below other entries and behind prefixes, by the keys that the known networks have. Where there
    are several copies, an average of weights (EMA) is taken, and the notes say so. A shard or an index of shards stands
    for all of them.

    Args:
        path: the file.
        wanted: networks to prefer in a file with several, by the names that `load_model` takes.
        tell: told how much of the file was looked at.
        in_parts: for a file larger than memory: its tensors are mapped, and none is read yet; one that cannot be mapped
            is refused.

    Raises:
        CheckpointError: the file is missing, no checkpoint, damaged, needs arbitrary pickle to be read, or holds
            tensors that are no weights.
    """
    path = Path(path)
    content = read_file(path, tell, in_parts=in_parts)
    found = find_weights(path, content.value, wanted)
    check_tensors(path, found.weights, found.expected)
    notes, entries = (*content.notes, *found.notes), frozenset(map(str, cast(Mapping[object, object], content.value)))
    return Checkpoint(path, content.sha256, found.weights, found.nesting, notes, found.places, entries)


def detect_component(state_dict: Mapping[str, object]) -> str:
    """Return which network a state dict belongs to, by its keys and, where those do not tell, their shapes.

    Returns:
        A name that `load_model` takes; perfrdiff_prior or perfrdiff_latent for the parts of PerFRDiff that its reaction
        does not depend on; perfrdiff_modifier for its hypernetwork, react2026_modifier for that of REACT 2026.

    Raises:
        UnknownComponentError: the keys belong to none of them.
    """
    for name, kind in SIGNATURES.items():
        shape = getattr(state_dict.get(kind.key), "shape", None)
        if kind.key in state_dict and (kind.shape is None or (shape is not None and tuple(shape) == kind.shape)):
            return name
    seen = ", ".join(list(state_dict)[:3]) or "none at all"
    known = ", ".join(name for name, kind in SIGNATURES.items() if kind.slot)
    raise UnknownComponentError(
        f"These are not the weights of {known}: the first of {len(state_dict)} keys are {seen}."
    )


def load_component(path: Path | str, expected: str, tell: Tell = silent, **config: int) -> tuple[nn.Module, Checkpoint]:
    """Return the network in a checkpoint that has to hold `expected`, and what was read.

    Args:
        path: the file.
        expected: a name that `load_model` takes.
        tell: told how much of the file was looked at.
        config: options of `load_model`.

    Raises:
        CheckpointError: see `read_checkpoint`.
        WrongComponentError: the file holds another network.
        StateDictError: its keys or shapes do not fit.
    """
    checkpoint = read_checkpoint(path, [expected], tell)
    if (found := _detect(checkpoint)) != expected:
        raise _wrong_component(path, SIGNATURES[expected], found)
    checkpoint = checkpoint_for(expected, checkpoint)
    return load_network(expected, checkpoint.state_dict, [checkpoint.path], **config), checkpoint


def load_network(name: str, weights: Mapping[str, Tensor], files: Sequence[Path], **config: int) -> nn.Module:
    """Return the network of these weights.

    Args:
        name: a name that `load_model` takes.
        weights: without prefixes.
        files: that they are from, for messages.
        config: options of `load_model`.

    Raises:
        StateDictError: keys or shapes do not fit.
    """
    try:
        return load_model(name, weights, **config)
    except StateDictError as error:
        raise error.of_files(files) from None


def read_generator(path: Path | str) -> Checkpoint:
    """Return the weights in a file that has to hold a part of a generator; see `read_checkpoint`.

    PerFRDiffRender's denoiser is returned under the keys of PerFRDiff's, which it is up to its head.

    Raises:
        StateDictError: PerFRDiffRender's keys or shapes do not fit.
    """
    checkpoint = read_checkpoint(path, _GENERATOR)
    if SIGNATURES["perfrdiff_render"].key not in checkpoint.state_dict:
        return checkpoint
    checkpoint = checkpoint_for("perfrdiff_render", checkpoint)
    network = cast(PerFRDiffRender, load_network("perfrdiff_render", checkpoint.state_dict, [checkpoint.path]))
    return replace(checkpoint, state_dict=network.v5_weights(), notes=(*checkpoint.notes, RENDER_NOTE))


def generator_part(checkpoint: Checkpoint) -> str:
    """Return which part of a generator a checkpoint holds, a name that `load_model` takes.

    Raises:
        UnknownComponentError: it holds nothing known.
        WrongComponentError: it holds no part of a generator, or one that no bundle needs.
    """
    found = _detect(checkpoint)
    if SIGNATURES[found].slot != "--generator":
        raise _wrong_component(checkpoint.path, Signature("", "what the generator of a bundle is made of"), found)
    return found


def checkpoint_for(network: str, checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint without what the network cannot take, and with notes on what it does not use."""
    weights, notes = checkpoint.state_dict, list(checkpoint.notes)
    if network not in _WITH_STATISTICS:
        weights = {key: value for key, value in weights.items() if not key.startswith(f"{STATISTICS}.")}
        notes += [f"{STATISTICS} not used"] if len(weights) < len(checkpoint.state_dict) else []
    if unused := [key for key in weights if key in unused_keys(network)]:
        shown = ", ".join(unused[:_SHOWN_KEYS]) + (", ..." if len(unused) > _SHOWN_KEYS else "")
        notes.append(f"{len(unused)} keys that no step reads: {shown}")
    return replace(checkpoint, state_dict=weights, notes=tuple(notes))


class RowReader:
    """The tensors of a checkpoint that does not fit into memory, read by rows.

    Each reading maps the file, copies its rows and lets go of the map: of what was read, nothing stays in memory.

    Args:
        checkpoint: read in parts.
        network: whose weights it holds, by its name among `SIGNATURES`.

    Attributes:
        shapes: of its tensors.
    """

    def __init__(self, checkpoint: Checkpoint, network: str) -> None:
        self.shapes = {key: tuple(value.shape) for key, value in checkpoint.state_dict.items()}
        self._path, self._network = checkpoint.path, network

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        """float32, rows `start` to `stop` of a tensor.

        Raises:
            CheckpointError: the file is not what it was.
        """
        weights = find_weights(self._path, map_again(self._path), [self._network]).weights
        return weights[key][start:stop].to(torch.float32, copy=True)


def read_in_parts(path: Path | str, expected: str, tell: Tell = silent) -> tuple[RowReader, Checkpoint]:
    """Return a reader of a checkpoint that has to hold `expected`, and what is known of it.

    Args:
        path: the file.
        expected: a name of `SIGNATURES`.
        tell: told how much of the file was looked at.

    Raises:
        CheckpointError: see `read_checkpoint`; or the file cannot be mapped.
        WrongComponentError: the file holds another network.
    """
    checkpoint = read_checkpoint(path, [expected], tell, in_parts=True)
    if (found := _detect(checkpoint)) != expected:
        raise _wrong_component(path, SIGNATURES[expected], found)
    return RowReader(checkpoint, expected), checkpoint


def _detect(checkpoint: Checkpoint) -> str:
    try:
        found = detect_component(checkpoint.state_dict)
        is_react = found == "perfrdiff_modifier" and _REACT_2026 in checkpoint.entries
        return "react2026_modifier" if is_react else found
    except UnknownComponentError as error:
        raise UnknownComponentError(
            f"{checkpoint.path}: {error} It holds {'; '.join(checkpoint.places[:_SHOWN_KEYS])}. Where the weights are "
            "there under other names, load them in the code that trained them, and pass what "
            "torch.save(network.state_dict(), 'weights.pth') writes."
        ) from None


def _wrong_component(path: Path | str, wanted: Signature, found: str) -> WrongComponentError:
    got = SIGNATURES[found]
    fix = got.fix or "pass one with the other number of coefficients"
    if got.slot not in ("", wanted.slot):
        fix = f"pass it to {got.slot}{'' if got.verb == wanted.verb else f' of pflx {got.verb}'}"
    return WrongComponentError(f"{wanted.slot} {path} holds {got.noun}, not {wanted.noun}: {fix}.")
