"""Places to write to, refused before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from pflx.engines import OutputError


def check_output(path: Path | None, suffix: str) -> None:
    """Refuse a place that nothing can be written to; None is no output.

    Args:
        path: of a file that may be there already.
        suffix: what its name must end in, large or small.

    Raises:
        OutputError: another suffix, no such folder, a folder of that name, or no permission.
    """
    if path is None:
        return
    if path.suffix.lower() != suffix:
        raise OutputError(f"{path} does not end in {suffix}. Try {path.with_suffix(suffix)}.")
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder {path.parent}. Make it, or choose another place.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Choose another name.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"The folder {path.parent} cannot be written to. Choose another place.")
