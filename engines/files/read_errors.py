"""What is raised about a file that cannot be read, in the same words whatever it should hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pflx.engines.graphs.protocol import PflxError


class UnfitError(ValueError):
    """What a file is instead of what it should be; the message fits behind its name."""


@contextmanager
def told_of(place: Path, error: type[PflxError], missing: type[PflxError] | None = None) -> Iterator[None]:
    """While a file is read in the block, its errors are told with its name.

    Args:
        place: of the file.
        error: what to raise.
        missing: the same for a file that is not there; None for `error`.

    Raises:
        error: the file is not there or cannot be read, or the block raised `UnfitError`.
    """
    try:
        yield
    except FileNotFoundError as failure:
        raise (missing or error)(f"{place} does not exist. Check the path.") from failure
    except UnfitError as found:
        raise error(f"{place} {found}.") from found
    except OSError as failure:
        why = "is a folder" if place.is_dir() else f"cannot be read ({failure.strerror or failure})"
        raise error(f"{place} {why}. Check the path.") from failure
