"""The region of a clip: the first of the two passes over a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from pflx.engines import PflInfo
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.speaker.face_track import find_face, session_region
from pflx.runtime.speaker.faces import FaceDetector
from pflx.runtime.speaker.pfl import Box, Region

log = logging.getLogger(__name__)


def clip_region(
    name: object,
    pictures: Iterable[UInt8Array],
    size: tuple[int, int],
    *,
    detector: FaceDetector,
    pfl: PflInfo,
    progress: Callable[[int], None] | None = None,
) -> Region:
    """The fixed region of a whole clip, from the boxes of its face in all frames.

    Args:
        name: of the clip, for a warning.
        pictures: uint8 [H, W, 3] RGB each.
        size: their width and height.
        detector: finds the face.
        pfl: mode, window and padding of the bundle.
        progress: called with the number of frames searched so far.
    """
    boxes: list[Box] = []
    for done, picture in enumerate(pictures, 1):
        box = find_face(detector, picture, boxes[-1] if boxes else None)
        boxes += [] if box is None else [box]
        if progress:
            progress(done)
    region = session_region(boxes, size, pfl)
    if not boxes:
        log.warning("No face in %s: using the middle of the frame, %s.", name, region)
    return region
