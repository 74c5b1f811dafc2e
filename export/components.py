"""The networks of a bundle, from checkpoints or made up, checked against each other before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from pflx.engines import MeanFace, Provenance
from pflx.engines.bundle.mean_face import read_mean_face
from pflx.export.checkpoints import (
    Checkpoint,
    checkpoint_for,
    generator_part,
    load_component,
    load_network,
    read_generator,
)
from pflx.export.errors import ComponentError
from pflx.export.generators import FAMILIES, ExportSettings, GeneratorFamily, GeneratorParts
from pflx.export.generators.backchannel import BackchannelParts
from pflx.export.models import PIRender, PosNet, load_model, untrained
from pflx.export.renderers import PIRenderParts, RendererParts, WarpParts
from pflx.runtime.builtin import DEFAULT_POSNET
from pflx.runtime.persons import read_person

_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Components:
    """Everything of a bundle that carries weights.

    Attributes:
        generator: what makes coefficients.
        posnet: PosNet; its slide is the generator's hop.
        renderer: what draws frames of 58 coefficients.
        mean_face_info: 58 numbers, and where they came from.
        provenance: one entry per network.
        untrained: the seed of made-up weights, None for trained ones.
    """

    generator: GeneratorParts
    posnet: PosNet
    renderer: RendererParts
    mean_face_info: MeanFace
    provenance: Sequence[Provenance] = field(default_factory=list)
    untrained: int | None = None

    def __post_init__(self) -> None:
        hop = self.generator.hop
        if self.posnet.slide != hop:
            raise ComponentError(
                f"PosNet was trained for a slide of {self.posnet.slide} frames, the hop of {self.generator.name} is "
                f"{hop}. Train or fit a PosNet with a slide of {hop} and pass it to --posnet."
            )

    @property
    def mean_face(self) -> Tensor:
        """The mean face, float32 [58]."""
        return torch.tensor(self.mean_face_info.values, dtype=torch.float32)


def load_components(
    *,
    generator: Sequence[Path] = (),
    posnet: Path | None = None,
    renderer: Path | None = None,
    mean_face: str | None = None,
    settings: ExportSettings | None = None,
    person: Path | None = None,
) -> Components:
    """Read trained networks; what is not given comes with pflx.

    Args:
        generator: checkpoints of one generator, each with one of its networks; none takes the backchannel listener.
        posnet: checkpoint of PosNet; None takes the default for the generator's hop.
        renderer: checkpoint of PIRender, the 58-coefficient variant; None takes the warp renderer.
        mean_face: path of the `mean_face.npy` the networks were trained with, "zero", or "upright". None takes
            "upright" where there is neither a trained generator nor a trained renderer.
        settings: what the user chose of the generator.
        person: whose weights the generator is to have, for a bundle of that person alone; see `read_person`.

    Raises:
        CheckpointError, StateDictError, WrongComponentError: a file is not what its slot takes.
        ComponentError: the networks make no generator, a setting does not fit it, the person was made for another one,
            the slide of PosNet differs from the hop, or there is no default for it.
        PersonError: the person's file is damaged, or none.
        MeanFaceError: the mean face is missing or malformed.
    """
    weightless = not generator and renderer is None
    face = read_mean_face(mean_face or ("upright" if weightless else None))
    parts, provenance = _generator(generator, settings or ExportSettings(), person)
    smoother, smoother_read = _smoother(posnet, parts.hop)
    painter, painter_read = _renderer(renderer)
    return Components(
        generator=parts,
        posnet=smoother,
        renderer=painter,
        mean_face_info=face,
        provenance=[*provenance, smoother_read, painter_read],
    )


def _generator(
    paths: Sequence[Path], settings: ExportSettings, person: Path | None
) -> tuple[GeneratorParts, list[Provenance]]:
    if paths:
        return load_generator(paths, settings, person)
    if person:
        raise ComponentError(f"{person} is of PerFRDiffRender's denoiser. Give its checkpoint with --generator, too.")
    family = FAMILIES[BackchannelParts.name]
    _check_settings(family, settings)
    return family.make({}, settings), [_own("generator")]


def _smoother(path: Path | None, slide: int) -> tuple[PosNet, Provenance]:
    network, read = load_component(path or default_posnet(slide), "posnet")
    return cast(PosNet, network), _provenance("posnet", read, "" if path else DEFAULT_POSNET)


def _renderer(path: Path | None) -> tuple[RendererParts, Provenance]:
    if path is None:
        return WarpParts(), _own("renderer")
    network, read = load_component(path, "pirender")
    return PIRenderParts(cast(PIRender, network)), _provenance("renderer", read)


def default_posnet(hop: int) -> Path:
    """The weights of PosNet that come with pflx, for users who have none.

    Raises:
        ComponentError: there are none for segments of `hop` frames.
    """
    path = _DATA / f"posnet_{hop}.safetensors"
    if not path.is_file():
        raise ComponentError(
            f"pflx has no default PosNet for segments of {hop} frames. Pass --posnet, or fit one: "
            f"pflx calibrate posnet MOTION --slide {hop} -o posnet.safetensors"
        )
    return path


def _own(slot: str) -> Provenance:
    return Provenance(slot=slot, source="pflx", sha256="", keys=0, note="no weights")


def load_generator(
    paths: Sequence[Path], settings: ExportSettings, person: Path | None = None
) -> tuple[GeneratorParts, list[Provenance]]:
    """The generator whose networks are in `paths`, with a person's weights if one is given, and where they came from.

    Raises:
        CheckpointError, StateDictError, UnknownComponentError, WrongComponentError: a file holds no network of one.
        ComponentError: the networks are not those of one generator, a setting does not fit it, or the person was made
            for another one.
        PersonError: the person's file is damaged, or none.
    """
    files: dict[str, Checkpoint] = {}
    for path in paths:
        checkpoint = read_generator(path)
        part = generator_part(checkpoint)
        if part in files:
            raise ComponentError(f"{files[part].path} and {path} both hold {part}. Leave one of the two out.")
        files[part] = checkpoint
    if person and settings.persons:
        raise ComponentError(f"A bundle takes persons, or it is {person}'s alone. Leave out --persons, or --person.")
    own_weights = None if person is None else _fold(person, files)
    family = _family_of(files)
    _check_settings(family, settings)
    networks, read = {}, []
    for network in (*family.networks, *family.optional):
        weights: dict[str, Tensor] = {}
        sources = []
        for part in (part for part in family.files_of(network) if part in files):
            checkpoint = checkpoint_for(network, files[part])
            weights |= checkpoint.state_dict
            sources.append(checkpoint.path)
            read.append(_provenance(_slot(family, part), checkpoint))
        if weights:
            networks[network] = load_network(network, weights, sources, **family.config(network, settings))
    return family.make(networks, settings), read if own_weights is None else [*read, own_weights]


def _fold(path: Path, files: dict[str, Checkpoint]) -> Provenance:
    """Put a person's weights in the place of the generic ones, and tell where they came from."""
    person, digest = read_person(path), hashlib.sha256(path.read_bytes()).hexdigest()
    part = next((part for part, checkpoint in files.items() if checkpoint.sha256 == person.denoiser), None)
    if part is None:
        raise ComponentError(
            f"{path} was made for the denoiser with SHA-256 {person.denoiser[:12]}…, and "
            f"{' and '.join(str(checkpoint.path) for checkpoint in files.values())} is another one. Make the person "
            "for this one: pflx person make."
        )
    weights = files[part].state_dict
    for key, value in person.weights.items():
        if key not in weights or tuple(weights[key].shape) != value.shape:
            raise ComponentError(f"{path} edits {key} {list(value.shape)}, which {files[part].path} does not have.")
    own = {key: torch.tensor(value) for key, value in person.weights.items()}
    files[part] = replace(files[part], state_dict=weights | own)
    made = f"{person.name}: {person.mode} by hypernetwork {person.hypernetwork[:12]} and encoder {person.encoder[:12]}"
    note = f"{made}, of {person.frames} frames of {person.source}"
    return Provenance(slot="person", source=path.name, sha256=digest, keys=len(own), note=note)


def _family_of(files: Mapping[str, Checkpoint]) -> GeneratorFamily:
    """The one family that takes all these parts of generators."""
    owners = {part: f for f in FAMILIES.values() for part in f.files_of(*f.networks, *f.optional) if part in files}
    families = {family.name: family for family in owners.values()}
    if len(families) > 1:
        parts = ", ".join(f"{files[part].path} is of {family.name}" for part, family in owners.items())
        raise ComponentError(f"One bundle holds one generator, these are of {len(families)}: {parts}.")
    (family,) = families.values()
    needed = family.files_of(*family.networks)
    if missing := [part for part in needed if part not in files]:
        raise ComponentError(
            f"{family.name} needs {' and '.join(missing)} beside {' and '.join(files)}. "
            "Pass its checkpoint with another --generator."
        )
    return family


def _slot(family: GeneratorFamily, part: str) -> str:
    return "generator" if part == family.name else f"generator {part}"


def _check_settings(family: GeneratorFamily, settings: ExportSettings) -> None:
    for name in settings.given:
        if name not in family.settings:
            takers = [other.name for other in FAMILIES.values() if name in other.settings]
            option = f"--{name.replace('_', '-')}"
            raise ComponentError(f"{option} is for {' and '.join(takers)}, not for {family.name}. Leave it out.")


def _provenance(slot: str, checkpoint: Checkpoint, note: str = "") -> Provenance:
    return Provenance(
        slot=slot,
        source=checkpoint.path.name,
        sha256=checkpoint.sha256,
        keys=len(checkpoint.state_dict),
        note="; ".join(filter(None, (note, checkpoint.nesting, *checkpoint.notes))),
    )


def untrained_components(
    seed: int, *, kind: str = "reactface", mean_face: str | None = None, settings: ExportSettings | None = None
) -> Components:
    """Networks with seeded weights, to try things out: they run and mean nothing.

    PosNet gets the slide that fits the generator, which has all its optional networks.

    Raises:
        ComponentError: no such generator, or a setting that does not fit it.
    """
    face = read_mean_face(mean_face or "zero")
    parts, provenance = untrained_generator(kind, seed, settings or ExportSettings())
    posnet, posnet_read = _made_up("posnet", "posnet", seed, made={"slide": parts.hop})
    renderer, renderer_read = _made_up("renderer", "pirender", seed)
    return Components(
        generator=parts,
        posnet=cast(PosNet, posnet),
        renderer=PIRenderParts(cast(PIRender, renderer)),
        mean_face_info=face,
        provenance=[*provenance, posnet_read, renderer_read],
        untrained=seed,
    )


def untrained_generator(kind: str, seed: int, settings: ExportSettings) -> tuple[GeneratorParts, list[Provenance]]:
    """A generator with seeded weights, and how it was made.

    Raises:
        ComponentError: no such generator, or a setting that does not fit it.
    """
    if kind not in FAMILIES:
        raise ComponentError(f"There is no generator '{kind}'. Choose one of {', '.join(FAMILIES)}.")
    family = FAMILIES[kind]
    _check_settings(family, settings)
    networks, made = {}, []
    for name in (*family.networks, *family.optional):
        networks[name], entry = _made_up(_slot(family, name), name, seed, loaded=family.config(name, settings))
        made.append(entry)
    return family.make(networks, settings), made or [_own("generator")]


def _made_up(
    slot: str, name: str, seed: int, *, made: Mapping[str, int] | None = None, loaded: Mapping[str, int] | None = None
) -> tuple[nn.Module, Provenance]:
    state_dict = untrained(name, seed, **(made or {}))
    entry = Provenance(slot=slot, source="untrained", sha256="", keys=len(state_dict), note=f"seed {seed}")
    return load_model(name, state_dict, **(loaded or {})), entry
