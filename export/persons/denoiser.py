"""The denoiser of a bundle that persons are made for: which one it is, and the weights of it that they edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pflx.engines import Bundle
from pflx.engines.files.tensor_file import read_tensors, write_tensors
from pflx.export.checkpoints.kinds import RENDER_NOTE
from pflx.export.errors import PersonalisationError

GENERIC = "generic.safetensors"
"""Of a bundle for persons: the tensors that they edit, as the checkpoint has them."""


@dataclass(frozen=True)
class Denoiser:
    """A generic denoiser.

    Attributes:
        sha256: of its checkpoint.
        weights: float32, those that persons edit, by their keys in PerFRDiff's v5.
    """

    sha256: str
    weights: Mapping[str, Tensor]


def write_generic(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Put the tensors that persons edit, float32, into a folder that becomes a bundle."""
    tensors = {key: value.detach().float().numpy() for key, value in weights.items()}
    write_tensors(folder / GENERIC, tensors, {})


def denoiser_of(bundle: Bundle) -> Denoiser:
    """The denoiser of a bundle.

    Raises:
        PersonalisationError: it is not PerFRDiffRender's, or the bundle is not for persons.
    """
    manifest = bundle.manifest
    source = next((entry for entry in manifest.provenance if entry.slot == "generator"), None)
    if manifest.generator.name != "perfrdiff" or source is None or RENDER_NOTE not in source.note:
        what = f"{source.source} of {manifest.generator.name}" if source else manifest.generator.name
        raise PersonalisationError(
            f"{bundle.path} has {what} for a generator, and persons are made for PerFRDiffRender's denoiser: the "
            "published hypernetwork edits layers that others lack. Pass a bundle exported from its checkpoint."
        )
    if GENERIC not in manifest.files:
        raise PersonalisationError(
            f"{bundle.path} was exported without --persons. Export it again: pflx export --persons --generator "
            f"{source.source} …"
        )
    tensors, _ = read_tensors(bundle.path / GENERIC, PersonalisationError, PersonalisationError)
    return Denoiser(source.sha256, {key: torch.tensor(value) for key, value in tensors.items()})
