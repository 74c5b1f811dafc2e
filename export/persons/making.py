"""A clip of a listener → a person: its style, and the weights that a denoiser has for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from pflx.engines import Array, Bundle
from pflx.export.checkpoints import load_component, read_in_parts
from pflx.export.errors import PersonalisationError
from pflx.export.models import PersonEncoder
from pflx.export.persons.denoiser import denoiser_of
from pflx.export.persons.gate import check_person
from pflx.export.persons.hypernetwork import Hypernetwork, Mode, edited
from pflx.export.persons.listening import Listening
from pflx.runtime.frames.arrays import Float32Array
from pflx.runtime.persons import Person

Tell = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and how far it goes."""


def style_of(encoder: PersonEncoder, coefficients: Float32Array) -> Tensor:
    """A listener's style, float32 [512] of unit length, from coefficients float32 [T, 58], mean face subtracted."""
    with torch.inference_mode():
        _, style = encoder(torch.from_numpy(coefficients)[None])
    return cast(Tensor, style[0])


def edited_weights(
    hypernetwork: Hypernetwork,
    style: Tensor,
    weights: Mapping[str, Tensor],
    mode: Mode,
    tell: Callable[[int, int], None] = lambda _, __: None,
) -> dict[str, Array]:
    """A denoiser's edited tensors as they are for a person, float32, by their keys.

    Args:
        hypernetwork: trained with this denoiser.
        style: float32 [512].
        weights: the denoiser's generic ones; computed with in their dtype, but in float32 at least.
        mode: how an edit becomes a weight, which no file tells.
        tell: told numbers made, and in all.

    Raises:
        PersonalisationError: the denoiser lacks one of them, or it is of another shape; or numbers are not finite.
    """
    made: dict[str, Array] = {}
    with torch.inference_mode():
        for key, edit in hypernetwork.edits(style, tell):
            if (weight := weights.get(key)) is None or weight.shape != edit.shape:
                got = "lacks it" if weight is None else f"has it as {list(weight.shape)}"
                raise PersonalisationError(f"The hypernetwork edits {key} {list(edit.shape)}, the denoiser {got}.")
            whole = edited(weight, edit, mode).float()
            if not whole.isfinite().all():
                raise PersonalisationError(
                    f"{key} has numbers that are not finite once it is edited. The hypernetwork's file, its mode or "
                    "the coefficients are not what they should be."
                )
            made[key] = np.ascontiguousarray(whole.numpy())
    return made


@dataclass(frozen=True)
class PersonNetworks:
    """Files that make persons for one denoiser.

    Attributes:
        encoder: checkpoint of the person encoder.
        hypernetwork: checkpoint of the hypernetwork, of any size.
        mode: how it was trained to edit weights; its file does not tell.
    """

    encoder: Path
    hypernetwork: Path
    mode: Mode = "shift"


def make_person(
    bundle: Bundle,
    listening: Listening,
    networks: PersonNetworks,
    *,
    name: str,
    tell: Tell = lambda _, __, ___: None,
) -> Person:
    """A listener's weights for the denoiser of a bundle.

    The hypernetwork is read in blocks, once: whatever its size, some hundred megabytes of it are in memory.

    Args:
        bundle: exported for persons.
        listening: how they listen.
        networks: that were trained with the bundle's denoiser.
        name: of the person, for people.
        tell: told every step.

    Raises:
        PersonalisationError: the networks are none of which a person can be made for this bundle.
        CheckpointError, StateDictError, WrongComponentError: a file is not what it should be.
        ParityError: the bundle's graphs do not agree on this person; see `check_person`.
        PersonError: the name cannot be shown.
    """
    denoiser = denoiser_of(bundle)
    encoder, encoder_read = load_component(networks.encoder, "perfrdiff_person", tell)
    weights, read = read_in_parts(networks.hypernetwork, "perfrdiff_modifier", tell)
    hypernetwork = Hypernetwork(weights, str(networks.hypernetwork))
    if hypernetwork.layout != "render":
        raise PersonalisationError(
            f"{networks.hypernetwork} edits the original PerFRDiff's denoiser, which yields emotion and no "
            "coefficients to render, and so is in no bundle. Pass PerFRDiffRender's hypernetwork."
        )
    style = style_of(cast(PersonEncoder, encoder), listening.coefficients)
    if not style.isfinite().all():
        raise PersonalisationError(
            f"The style of {listening.source} is not finite. Check its coefficients, the largest of which is "
            f"{np.abs(listening.coefficients).max():.3g}, and the numbers of {networks.encoder}."
        )
    edits = edited_weights(
        hypernetwork,
        style,
        denoiser.weights,
        networks.mode,
        lambda done, total: tell("editing weights (numbers in millions)", done // 10**6, -(-total // 10**6)),
    )
    tell("holding the person against the denoiser", 0, 1)
    check_person(bundle, {key: value.numpy() for key, value in denoiser.weights.items()}, edits)
    return Person(
        name=name,
        style=style.numpy(),
        weights=edits,
        denoiser=denoiser.sha256,
        encoder=encoder_read.sha256,
        hypernetwork=read.sha256,
        mode=networks.mode,
        frames=len(listening.coefficients),
        source=listening.source,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
