"""Reading public checkpoints without running anything that is in them."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pflx.export.errors import CheckpointError, UnknownComponentError, WrongComponentError
from pflx.export.models import load_model, unused_keys

# Where training code puts the weights, best first: PIRender's averaged copy beats the one being trained.
_NESTING = ("net_G_ema", "net_G", "model", "state_dict")
_WRAPPER = "module"  # the level that distributed training puts into every key

_SHOWN_KEYS = 3
_AGAIN = "copy or download it again"
_DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    zipfile.BadZipFile,
)

_STATISTICS = "statistics"  # of the latent space, beside the weights of an autoencoder
_WITH_STATISTICS = ("belfusion", "belfusion_vae")


@dataclass(frozen=True)
class _Kind:
    """How a network is known, and where its file goes.

    Attributes:
        key: that it has and others do not, unless they differ in its shape.
        noun: its name for people.
        slot: the option that takes it; empty for one that no bundle takes.
        shape: of `key`, where others have it too.
        fix: what to do with one that no bundle takes.
    """

    key: str
    noun: str
    slot: str = "--generator"
    shape: tuple[int, ...] | None = None
    fix: str = ""


_NOT_NEEDED = "it never reaches the reaction, leave it out"
_KINDS = {
    "pirender": _Kind("mapping_net.pre.weight", "a PIRender renderer (58 coefficients)", "--renderer"),
    "pirender73": _Kind("mapping_net.first.0.weight", "a PIRender renderer (73 coefficients)", "--renderer"),
    "posnet": _Kind("fc3.weight", "PosNet", "--posnet"),
    "reactface": _Kind("video_encoder.Conv3D.conv1.weight", "a ReactFace generator"),
    "perfrdiff": _Kind("to_3dmm_embed.weight", "PerFRDiff's denoiser"),
    "perfrdiff_emotion": _Kind("coeff_reg.0.weight", "PerFRDiff's embedder of coefficients", shape=(512, 58)),
    "transvae": _Kind("speaker_behaviour_encoder.video_encoder.Conv3D.conv1.weight", "a Trans-VAE generator"),
    "belfusion_mlp": _Kind("layers.0.linear_emb.weight", "BeLFusion's denoiser"),
    "belfusion_vae": _Kind("coeff_reg.0.weight", "BeLFusion's autoencoder", shape=(128, 25)),
    "perfrdiff_v1": _Kind(
        "to_emotion_embed.weight",
        "the original PerFRDiff's denoiser",
        "",
        fix="it yields emotion and no coefficients to render, pass a denoiser of 58 coefficients",
    ),
    "perfrdiff_prior": _Kind("null_s_latent_embed", "PerFRDiff's prior", "", fix=_NOT_NEEDED),
    "perfrdiff_latent": _Kind(
        "coeff_reg.0.weight", "PerFRDiff's embedder of emotion", "", shape=(512, 25), fix=_NOT_NEEDED
    ),
    "perfrdiff_person": _Kind("embed_layer.weight", "PerFRDiff's encoder of persons", "", fix=_NOT_NEEDED),
}


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file.

    Attributes:
        path: the file.
        sha256: of the whole file, in hexadecimal.
        state_dict: tensors on the CPU under the public keys, without nesting and prefixes.
        nesting: the entry that held the weights, such as "state_dict"; empty if they were at the top.
        notes: what was set aside or renamed on the way, for the record.
    """

    path: Path
    sha256: str
    state_dict: dict[str, Tensor]
    nesting: str
    notes: tuple[str, ...]


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Return the weights in a .pth, .pt, .bin or .safetensors file; never runs code from the file.

    Raises:
        CheckpointError: the file is missing, no checkpoint, damaged, or needs arbitrary pickle to be read.
    """
    path = Path(path)
    sha256 = _sha256(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    weights, nesting, notes = _unwrap(path, content)
    return Checkpoint(path, sha256, weights, nesting, notes)


def detect_component(state_dict: Mapping[str, object]) -> str:
    """Return which network a state dict belongs to, by its keys and, where those do not tell, their shapes.

    Returns:
        A name that `load_model` takes, or perfrdiff_prior, perfrdiff_latent or perfrdiff_person for the parts of
        PerFRDiff that its reaction does not depend on.

    Raises:
        UnknownComponentError: the keys belong to none of them.
    """
    for name, kind in _KINDS.items():
        shape = getattr(state_dict.get(kind.key), "shape", None)
        if kind.key in state_dict and (kind.shape is None or (shape is not None and tuple(shape) == kind.shape)):
            return name
    seen = ", ".join(list(state_dict)[:3]) or "none at all"
    known = ", ".join(name for name, kind in _KINDS.items() if kind.slot)
    raise UnknownComponentError(
        f"These are not the weights of {known}: the first of {len(state_dict)} keys are {seen}."
    )


def load_component(path: Path | str, expected: str, **config: int) -> tuple[nn.Module, Checkpoint]:
    """Return the network in a checkpoint that has to hold `expected`, and what was read.

    Args:
        path: the file.
        expected: a name that `load_model` takes.
        config: options of `load_model`.

    Raises:
        CheckpointError: see `read_checkpoint`.
        WrongComponentError: the file holds another network.
        StateDictError: its keys or shapes do not fit.
    """
    checkpoint = read_checkpoint(path)
    if (found := _detect(checkpoint)) != expected:
        raise _wrong_component(path, _KINDS[expected].slot, _KINDS[expected].noun, found)
    checkpoint = checkpoint_for(expected, checkpoint)
    return load_model(expected, checkpoint.state_dict, **config), checkpoint


def generator_part(checkpoint: Checkpoint) -> str:
    """Return which part of a generator a checkpoint holds, a name that `load_model` takes.

    Raises:
        UnknownComponentError: it holds nothing known.
        WrongComponentError: it holds no part of a generator, or one that no bundle needs.
    """
    found = _detect(checkpoint)
    if _KINDS[found].slot != "--generator":
        raise _wrong_component(checkpoint.path, "--generator", "what the generator of a bundle is made of", found)
    return found


def checkpoint_for(network: str, checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint without what the network cannot take, and with notes on what it does not use."""
    weights, notes = checkpoint.state_dict, list(checkpoint.notes)
    if network not in _WITH_STATISTICS:
        weights = {key: value for key, value in weights.items() if not key.startswith(f"{_STATISTICS}.")}
        notes += [f"{_STATISTICS} not used"] if len(weights) < len(checkpoint.state_dict) else []
    if unused := [key for key in weights if key in unused_keys(network)]:
        shown = ", ".join(unused[:_SHOWN_KEYS]) + (", ..." if len(unused) > _SHOWN_KEYS else "")
        notes.append(f"{len(unused)} keys that no step reads: {shown}")
    return replace(checkpoint, state_dict=weights, notes=tuple(notes))


def _detect(checkpoint: Checkpoint) -> str:
    try:
        return detect_component(checkpoint.state_dict)
    except UnknownComponentError as error:
        raise UnknownComponentError(f"{checkpoint.path}: {error}") from None


def _wrong_component(path: Path | str, slot: str, wanted: str, found: str) -> WrongComponentError:
    got = _KINDS[found]
    fix = got.fix or "pass one with the other number of coefficients"
    if got.slot not in ("", slot):
        fix = f"pass it to {got.slot}"
    return WrongComponentError(f"{slot} {path} holds {got.noun}, not {wanted}: {fix}.")


def _sha256(path: Path) -> str:
    if not path.exists():
        raise CheckpointError(path, "does not exist")
    if path.is_dir():
        raise CheckpointError(path, "is a directory; pass the checkpoint file in it")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})") from error
    if path.stat().st_size == 0:
        raise CheckpointError(path, f"is empty; {_AGAIN}")
    return digest


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(path, f"is damaged, or no safetensors file ({_first_line(error)}); {_AGAIN}") from error


def _read_torch(path: Path) -> object:
    # A zip archive has its directory at the end: a truncated one does not count as one here.
    is_zip = zipfile.is_zipfile(path)
    try:
        if is_zip:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on pickle protocols, before it is refused
            with torch.serialization.safe_globals(_arrays()):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if is_zip or _starts_like_pickle(path):
            raise CheckpointError(path, _needs_pickle(error)) from error
        raise CheckpointError(path, f"is no PyTorch checkpoint; {_AGAIN}") from error
    except _DAMAGE as error:
        raise CheckpointError(path, f"is damaged, or no PyTorch checkpoint; {_AGAIN}") from error


def _arrays() -> list[Any]:
    """What numpy arrays are pickled with, under their names in numpy 1 and 2: data, and no code."""
    rebuild = np.zeros(0).__reduce__()[0]
    places = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
    kinds = [type(np.dtype(code)) for code in ("f4", "f8", "i8")]
    return [*((rebuild, place) for place in places), np.ndarray, np.dtype, *kinds]


def _check_archive(path: Path) -> None:
    """Compare the checksums that torch.load does not look at; without them a flipped bit becomes a weight."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise CheckpointError(path, f"is damaged (wrong checksum in {damaged}); {_AGAIN}")


def _starts_like_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


def _needs_pickle(error: pickle.UnpicklingError) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    what = f"pickled objects of {named[1]}" if named else "a pickle"
    return (
        f"holds {what}, which could run any code, so it was not loaded; where you trust it, "
        "save the weights alone with torch.save(model.state_dict(), path) and pass that file"
    )


def _unwrap(path: Path, content: object) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    nesting: list[str] = []
    notes: list[str] = []
    statistics: dict[str, Tensor] = {}
    while isinstance(content, Mapping):
        statistics |= _statistics(content)
        inner = next((key for key in _NESTING if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        others = [str(key) for key in content if key != inner and (key != _STATISTICS or not statistics)]
        notes += [f"not read beside {inner}: {', '.join(others)}"] if others else []
        nesting.append(inner)
        content = content[inner]
    if not isinstance(content, Mapping):
        raise CheckpointError(path, f"holds a {type(content).__name__}, not a state dict of named tensors")
    weights = _clean(path, content, notes)
    return weights | statistics, ".".join(nesting), tuple(notes)


def _statistics(content: Mapping[object, object]) -> dict[str, Tensor]:
    """Return what an autoencoder's checkpoint tells of its latent space, as `statistics.min` and so on."""
    found = content.get(_STATISTICS)
    if not isinstance(found, Mapping):
        return {}
    return {
        f"{_STATISTICS}.{name}": torch.as_tensor(value)
        for name, value in found.items()
        if isinstance(value, Tensor | np.ndarray)
    }


def _clean(path: Path, content: Mapping[object, object], notes: list[str]) -> dict[str, Tensor]:
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(path, "holds no named tensors")
    others = [str(key) for key in content if key not in tensors and key != _STATISTICS]
    notes += [f"no tensors: {', '.join(others)}"] if others else []
    weights = {".".join(part for part in key.split(".") if part != _WRAPPER): value for key, value in tensors.items()}
    if len(weights) < len(tensors):
        raise CheckpointError(path, f"holds keys that differ only by '{_WRAPPER}.'; remove one of each pair")
    if weights.keys() != tensors.keys():
        notes.append(f"'{_WRAPPER}.' removed from keys")
    return weights


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
