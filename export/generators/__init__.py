"""Generators on their way into a bundle. One file each."""

from __future__ import annotations

from collections.abc import Mapping

from pflx.export.generators import backchannel, belfusion, perfrdiff, reactface, transvae
from pflx.export.generators.protocol import ExportSettings, GeneratorFamily, GeneratorParts

__all__ = ["FAMILIES", "ExportSettings", "GeneratorFamily", "GeneratorParts"]

FAMILIES: Mapping[str, GeneratorFamily] = {
    family.name: family
    for family in (reactface.FAMILY, perfrdiff.FAMILY, transvae.FAMILY, belfusion.FAMILY, backchannel.FAMILY)
}
