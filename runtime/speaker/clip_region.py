"""The region of a clip: the first of the two passes over a file."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pflx.engines import PflInfo
from pflx.runtime.media.clip import SpeakerFile
from pflx.runtime.speaker.face_track import find_face, session_region
from pflx.runtime.speaker.faces import FaceDetector
from pflx.runtime.speaker.pfl import Box, Region

log = logging.getLogger(__name__)


def clip_region(
    clip: SpeakerFile, detector: FaceDetector, pfl: PflInfo, progress: Callable[[int], None] | None = None
) -> Region:
    """The fixed region of a whole clip, from the boxes of its face in all frames.

    Args:
        clip: of the speaker, with pictures.
        detector: finds the face.
        pfl: mode, window and padding of the bundle.
        progress: called with the number of frames searched so far.
    """
    boxes: list[Box] = []
    done = 0
    for chunk in clip.chunks():
        for picture in chunk.video:
            box = find_face(detector, picture, boxes[-1] if boxes else None)
            boxes += [] if box is None else [box]
            done += 1
            if progress:
                progress(done)
    region = session_region(boxes, (clip.width, clip.height), pfl)
    if not boxes:
        log.warning("No face in %s: using the middle of the frame, %s.", clip.path, region)
    return region
