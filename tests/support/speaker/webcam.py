"""Pictures of a real speaker."""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt
from support.places import MEDIA

UInt8Array = npt.NDArray[np.uint8]


def webcam_frames(wanted: npt.NDArray[np.int64]) -> list[UInt8Array]:
    """The frames with these numbers, uint8 [H, W, 3] RGB each."""
    with av.open(str(MEDIA / "webcam_cap12_12s.mp4")) as container:
        frames = enumerate(container.decode(video=0))
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for i, frame in frames if i in wanted]
