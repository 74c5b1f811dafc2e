"""The report in a bundle, which anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import refusal
from support.sample_bundle import fill_bundle

from pflx.engines import Bundle, BundleCorruptError, bundle_writer, write_manifest
from pflx.engines.bundle.export_report import ExportReport, Parity, read_export_report
from pflx.runtime.builtin import builtin_bundle

PARITY: dict[str, Any] = {
    "against": "it",
    "max_levels": 0,
    "equal_share": 1,
    "psnr_db": float("inf"),
    "coefficients_max_abs_error": 0,
}
NODE = {"node": "mul", "operator": "Mul", "largest": 12.5}


def bundle_with(folder: Path, report: str | None) -> Bundle:
    with bundle_writer(folder / "me.pflx") as place:
        manifest = fill_bundle(place)
        (place / "report.json").unlink()
        if report is not None:
            (place / "report.json").write_text(report)
        write_manifest(place, manifest)
    return Bundle.open(folder / "me.pflx")


def test_what_an_export_wrote_is_read() -> None:
    report = read_export_report(builtin_bundle())
    assert report.graphs.keys() == builtin_bundle().manifest.graphs.keys()
    assert report.end_to_end["fp32"].psnr_db > 60


def test_equal_frames_and_wide_nodes_are_read(tmp_path: Path) -> None:
    content = {"graphs": {"a": {"fp16": {"range": {"widest": [NODE]}}}, "b": {}}, "end_to_end": {"fp32": PARITY}}
    report = read_export_report(bundle_with(tmp_path, json.dumps(content | {"more": [1]})))
    assert report.end_to_end == {"fp32": Parity(**PARITY)}
    assert report.graphs["b"].widest is None
    widest = report.graphs["a"].widest
    assert widest is not None
    assert widest.largest == 12.5


def test_a_bundle_without_a_report_has_an_empty_one(tmp_path: Path) -> None:
    assert read_export_report(bundle_with(tmp_path, None)) == ExportReport()


@pytest.mark.parametrize(
    "report",
    [
        "",
        "{",
        "[]",
        "\xff",
        "[" * 100_000,
        '{"graphs": []}',
        '{"end_to_end": {"fp32": {}}}',
        '{"graphs": {"a": {"fp16": {"range": {"widest": [{"node": 1}]}}}}}',
    ],
)
def test_what_is_none_is_told_in_one_line(tmp_path: Path, report: str) -> None:
    bundle = bundle_with(tmp_path, report)
    with pytest.raises(BundleCorruptError, match=r"report\.json is malformed: .*Export the bundle again"):
        read_export_report(bundle)
    assert "report.json is malformed" in refusal("inspect", bundle.path)
