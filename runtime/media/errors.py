"""What goes wrong with files of pictures and sound."""

from __future__ import annotations

from pflx.engines import PflxError


class MediaError(PflxError, OSError):
    """A file that cannot be read as a video, or cannot be written."""


class MediaMemoryError(PflxError, MemoryError):
    """There is no memory for a clip's pictures or sound; the clip itself may be whole."""
