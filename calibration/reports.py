"""What every report of calibration needs: a file, and the packages that judge and draw."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pflx.engines.files.writer import write_whole

INSTALL = "pip install 'pflx[cpu,calibrate]'"


def save_report(path: Path, report: msgspec.Struct) -> None:
    """Write a report as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(path, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
