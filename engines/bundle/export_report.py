"""What an export found out about its graphs, as `report.json` in a bundle tells people."""

from __future__ import annotations

import json

import msgspec

from pflx.engines.bundle.bundle import Bundle
from pflx.engines.bundle.manifest import BundleCorruptError

EXPORT_REPORT = "report.json"


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the report, of which more may be written than is read here."""


class Parity(_Part, frozen=True, kw_only=True):
    """Frames of the whole chain beside those of the networks as published.

    Attributes:
        against: what they are compared with, in words.
        max_levels: largest difference of a pixel, of 255.
        equal_share: of all pixels.
        psnr_db: infinite for equal frames.
        coefficients_max_abs_error: in the coefficients' units.
    """

    against: str
    max_levels: float
    equal_share: float
    psnr_db: float
    coefficients_max_abs_error: float


class WidestNode(_Part, frozen=True, kw_only=True):
    """How far the numbers of a node go in FP16."""

    node: str
    operator: str
    largest: float


class _Range(_Part, frozen=True, kw_only=True):
    widest: tuple[WidestNode, ...] = ()


class _InFp16(_Part, frozen=True, kw_only=True):
    range: _Range | None = None


class GraphReport(_Part, frozen=True, kw_only=True):
    """One graph.

    Attributes:
        fp16: absent where it was not exported in FP16.
    """

    fp16: _InFp16 | None = None

    @property
    def widest(self) -> WidestNode | None:
        """The node whose numbers go furthest in FP16, where that was looked at."""
        found = self.fp16.range.widest if self.fp16 and self.fp16.range else ()
        return found[0] if found else None


class ExportReport(_Part, frozen=True, kw_only=True):
    """The whole report.

    Attributes:
        graphs: by name.
        end_to_end: by precision.
    """

    graphs: dict[str, GraphReport] = {}
    end_to_end: dict[str, Parity] = {}


def read_export_report(bundle: Bundle) -> ExportReport:
    """The report of a bundle; an empty one where it has none.

    Raises:
        BundleCorruptError: it is malformed.
    """
    path = bundle.path / EXPORT_REPORT
    if not path.is_file():
        return ExportReport()
    try:
        return msgspec.convert(json.loads(path.read_bytes()), ExportReport)  # msgspec's own JSON has no Infinity
    except (ValueError, RecursionError) as error:
        raise BundleCorruptError(f"{path} is malformed: {error}. Export the bundle again.") from error
