"""Generators with real graphs and made-up weights, without the renderer, whose export takes a minute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from pflx.export import ExportSettings, load_model, untrained
from pflx.export.components import untrained_generator
from pflx.export.exporter import Reactions, export_generator
from pflx.export.generators import GeneratorParts
from pflx.export.graphs import GraphFolder
from pflx.export.models import PosNet

_FOLDER = TemporaryDirectory()


@dataclass(frozen=True)
class ExportedGenerator:
    """A generator, its graphs and those of PosNet in FP32 and FP16, and what all make of one speaker."""

    parts: GeneratorParts
    graphs: GraphFolder
    reactions: Reactions


@cache
def exported_generator(kind: str, settings: ExportSettings | None = None) -> ExportedGenerator:
    """What `pflx export --untrained 0 --kind KIND --precision fp16` writes of it, made once in a run of the tests."""
    folder = Path(_FOLDER.name) / f"{kind}{hash(settings)}"
    folder.mkdir()
    parts, _ = untrained_generator(kind, 0, settings or ExportSettings())
    graphs = GraphFolder(folder, ("fp32", "fp16"), lambda _: None)
    return ExportedGenerator(parts, graphs, export_generator(graphs, parts, untrained_posnet(parts.hop)))


def untrained_posnet(slide: int) -> PosNet:
    posnet = load_model("posnet", untrained("posnet", 0, slide=slide))
    assert isinstance(posnet, PosNet)
    return posnet
