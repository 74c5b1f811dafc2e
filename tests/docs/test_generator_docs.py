"""The table of docs/generators.md holds the figures that were measured."""

from __future__ import annotations

import json

from support.places import ROOT


def test_the_table_of_generators_is_the_one_that_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "generators_cpu.json").read_text())["generators"]
    lines = (ROOT / "docs" / "generators.md").read_text().splitlines()
    cells_of = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "ms |" in line]
    rows = {name: cells for name, *cells in cells_of}
    assert set(rows) == {found["generator"] for found in measured}
    assert set(rows) == {"reactface", "perfrdiff", "transvae", "belfusion"}
    for found in measured:
        cells = rows[found["generator"]]
        assert cells[0] == f"{found['window']} / {found['hop']} / {found['lead']}"
        assert cells[1] == ", ".join(found["needs"])
        assert cells[4:6] == [f"{found['segment']['median_ms']:.0f} ms", f"{found['ms_per_second_of_video']:.0f} ms"]
        assert cells[6] == f"{found['parity']['coefficients_max_abs_error']:.1e}"
