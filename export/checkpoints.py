"""Reading public checkpoints without running anything that is in them."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pflx.export.errors import CheckpointError, UnknownComponentError, WrongComponentError
from pflx.export.models import load_model

# Where training code puts the weights, best first: PIRender's averaged copy beats the one being trained.
_NESTING = ("net_G_ema", "net_G", "model", "state_dict")
_WRAPPER = "module"  # the level that distributed training puts into every key

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

# A key that one component has and no other, the name for people, and the option that takes it.
_COMPONENTS = {
    "pirender": ("mapping_net.pre.weight", "a PIRender renderer (58 coefficients)", "--renderer"),
    "pirender73": ("mapping_net.first.0.weight", "a PIRender renderer (73 coefficients)", "--renderer"),
    "posnet": ("fc3.weight", "PosNet", "--posnet"),
    "reactface": ("video_encoder.Conv3D.conv1.weight", "a ReactFace generator", "--generator"),
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
    """Return pirender, pirender73, posnet or reactface, by the keys of a state dict.

    Raises:
        UnknownComponentError: the keys belong to none of them.
    """
    for name, (key, _, _) in _COMPONENTS.items():
        if key in state_dict:
            return name
    seen = ", ".join(list(state_dict)[:3]) or "none at all"
    known = ", ".join(_COMPONENTS)
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
    try:
        found = detect_component(checkpoint.state_dict)
    except UnknownComponentError as error:
        raise UnknownComponentError(f"{path}: {error}") from None
    if found != expected:
        raise _wrong_component(path, expected, found)
    return load_model(expected, checkpoint.state_dict, **config), checkpoint


def _wrong_component(path: Path | str, expected: str, found: str) -> WrongComponentError:
    _, wanted, slot = _COMPONENTS[expected]
    _, got, option = _COMPONENTS[found]
    fix = f"pass it to {option}" if option != slot else "pass one with the other number of coefficients"
    return WrongComponentError(f"{slot} {path} holds {got}, not {wanted}: {fix}.")


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
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if is_zip or _starts_like_pickle(path):
            raise CheckpointError(path, _needs_pickle(error)) from error
        raise CheckpointError(path, f"is no PyTorch checkpoint; {_AGAIN}") from error
    except _DAMAGE as error:
        raise CheckpointError(path, f"is damaged, or no PyTorch checkpoint; {_AGAIN}") from error


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
    while isinstance(content, Mapping):
        inner = next((key for key in _NESTING if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        others = [str(key) for key in content if key != inner]
        notes += [f"not read beside {inner}: {', '.join(others)}"] if others else []
        nesting.append(inner)
        content = content[inner]
    if not isinstance(content, Mapping):
        raise CheckpointError(path, f"holds a {type(content).__name__}, not a state dict of named tensors")
    weights = _clean(path, content, notes)
    return weights, ".".join(nesting), tuple(notes)


def _clean(path: Path, content: Mapping[object, object], notes: list[str]) -> dict[str, Tensor]:
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(path, "holds no named tensors")
    others = [str(key) for key in content if key not in tensors]
    notes += [f"no tensors: {', '.join(others)}"] if others else []
    weights = {".".join(part for part in key.split(".") if part != _WRAPPER): value for key, value in tensors.items()}
    if len(weights) < len(tensors):
        raise CheckpointError(path, f"holds keys that differ only by '{_WRAPPER}.'; remove one of each pair")
    if weights.keys() != tensors.keys():
        notes.append(f"'{_WRAPPER}.' removed from keys")
    return weights


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
