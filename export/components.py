"""The three networks of a bundle, from checkpoints or made up, checked against each other before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pflx.engines import MeanFace, PflxError, Provenance
from pflx.export.checkpoints import Checkpoint, load_component
from pflx.export.models import PIRender, PosNet, ReactFace, load_model, untrained
from pflx.export.recipes import COEFFICIENTS


class ComponentError(PflxError, ValueError):
    """Networks or settings that cannot work together."""


@dataclass(frozen=True)
class Components:
    """Everything of a bundle that carries weights.

    Attributes:
        generator: ReactFace.
        posnet: PosNet; its slide is the generator's window.
        renderer: PIRender for 58 coefficients.
        mean_face: float32 [58].
        mean_face_source: where it came from: "sha256:…" of the file, or "zero".
        provenance: one entry per network.
        untrained: the seed of made-up weights, None for trained ones.
    """

    generator: ReactFace
    posnet: PosNet
    renderer: PIRender
    mean_face: Tensor
    mean_face_source: str
    provenance: Sequence[Provenance] = field(default_factory=list)
    untrained: int | None = None

    def __post_init__(self) -> None:
        if self.posnet.slide != self.window:
            raise ComponentError(
                f"PosNet was trained for a slide of {self.posnet.slide} frames, the generator's hop is {self.window}. "
                f"Train or fit a PosNet with a slide of {self.window} and pass it to --posnet."
            )

    @property
    def window(self) -> int:
        """Frames that the generator reads and yields per step."""
        return self.generator.window

    @property
    def mean_face_info(self) -> MeanFace:
        """The mean face as the manifest holds it."""
        return MeanFace(source=self.mean_face_source, values=self.mean_face.tolist())


def load_components(
    *, generator: Path, posnet: Path, renderer: Path, mean_face: str | None, window: int = 8
) -> Components:
    """Read trained networks.

    Args:
        generator: checkpoint of ReactFace.
        posnet: checkpoint of PosNet.
        renderer: checkpoint of PIRender, the 58-coefficient variant.
        mean_face: path of the `mean_face.npy` the generator was trained with, or "zero".
        window: frames per step of the generator, a multiple of 8.

    Raises:
        CheckpointError, StateDictError, WrongComponentError: a file is not what its slot takes.
        ComponentError: the mean face is missing or malformed, or the slide of PosNet differs from the hop.
    """
    face, source = read_mean_face(mean_face)
    listener, listener_file = load_component(generator, "reactface", window=window)
    smoother, smoother_file = load_component(posnet, "posnet")
    painter, painter_file = load_component(renderer, "pirender")
    files = {"generator": listener_file, "posnet": smoother_file, "renderer": painter_file}
    return Components(
        generator=cast(ReactFace, listener),
        posnet=cast(PosNet, smoother),
        renderer=cast(PIRender, painter),
        mean_face=face,
        mean_face_source=source,
        provenance=[_provenance(slot, checkpoint) for slot, checkpoint in files.items()],
    )


def _provenance(slot: str, checkpoint: Checkpoint) -> Provenance:
    return Provenance(
        slot=slot,
        source=checkpoint.path.name,
        sha256=checkpoint.sha256,
        keys=len(checkpoint.state_dict),
        note="; ".join((checkpoint.nesting, *checkpoint.notes)),
    )


def untrained_components(seed: int, *, mean_face: str | None = None, window: int = 8) -> Components:
    """Networks with seeded weights, to try things out: they run and mean nothing.

    PosNet gets the slide that fits the generator.
    """
    face, source = read_mean_face(mean_face or "zero")
    networks: dict[str, nn.Module] = {}
    provenance = []
    for slot, name, made, loaded in (
        ("generator", "reactface", {}, {"window": window}),
        ("posnet", "posnet", {"slide": window}, {}),
        ("renderer", "pirender", {}, {}),
    ):
        state_dict = untrained(name, seed, **made)
        networks[slot] = load_model(name, state_dict, **loaded)
        provenance.append(
            Provenance(slot=slot, source="untrained", sha256="", keys=len(state_dict), note=f"seed {seed}")
        )
    return Components(
        generator=cast(ReactFace, networks["generator"]),
        posnet=cast(PosNet, networks["posnet"]),
        renderer=cast(PIRender, networks["renderer"]),
        mean_face=face,
        mean_face_source=source,
        provenance=provenance,
        untrained=seed,
    )


def read_mean_face(given: str | None) -> tuple[Tensor, str]:
    """The mean face, float32 [58], and where it came from.

    Args:
        given: path of a `.npy` with 58 numbers in any shape, "zero", or None.

    Raises:
        ComponentError: none given, no such file, or not 58 finite numbers.
    """
    if given is None:
        raise ComponentError(
            "No mean face: trained generators yield coefficients relative to it, and a wrong one bends the face. "
            "Pass --mean-face mean_face.npy of the training data, or --mean-face zero to go without."
        )
    if given == "zero":
        return torch.zeros(COEFFICIENTS), "zero"
    path = Path(given)
    try:
        with path.open("rb") as stream:
            values = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ComponentError(f"Mean face {path} cannot be read: {error}. Pass a .npy file with 58 numbers.") from error
    if values.size != COEFFICIENTS or values.dtype.kind not in "fiu":
        raise ComponentError(
            f"Mean face {path} is {values.dtype} {list(values.shape)}, not 58 numbers. "
            "Pass the .npy of the training data."
        )
    if not np.isfinite(values).all():
        raise ComponentError(f"Mean face {path} holds NaN or infinite values. Pass the .npy of the training data.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return torch.from_numpy(values.reshape(-1).astype(np.float32)), f"sha256:{digest}"
