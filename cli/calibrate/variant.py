"""Where a calibrated variant goes: into its bundle, or into another one."""

from __future__ import annotations

import os
from pathlib import Path

from pflx.cli.support.paths import check_apart


def target_of(bundle: Path, feeds: Path, output: Path | None, *, overwrite: bool, **reports: Path | None) -> Path:
    """The bundle that gets the variant, refused before any work if it cannot be written.

    Args:
        bundle: that is read.
        feeds: likewise.
        output: another bundle to write; None for the same.
        overwrite: replace another bundle.
        reports: what is written besides, by option.

    Raises:
        OutputError, OutputExistsError: it would replace something that is read, or a bundle that is there.
    """
    from pflx.engines.bundle.writer import check_target

    target = output or bundle
    into_another = os.path.realpath(target) != os.path.realpath(bundle)
    check_apart(
        reads={"BUNDLE": bundle, "--feeds": feeds},
        writes={"--output": target if into_another else None, **{f"--{name}": path for name, path in reports.items()}},
    )
    check_target(target.absolute(), overwrite or output is None)
    return target
