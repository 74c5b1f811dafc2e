"""What a user knows of the speaker beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field

from pflx.runtime.speaker.extractor import Extractors
from pflx.runtime.speaker.faces import FaceDetector
from pflx.runtime.speaker.pfl import Region


@dataclass(frozen=True)
class SpeakerSettings:
    """What is known of the speaker; given to a listener, it holds for all its sessions, and given to one, for that.

    Attributes:
        region: where the speaker's face is, fixed; None finds it: a file is searched before it is played, a stream in
            its first two seconds.
        extractors: what gives the speaker's `coefficients` or `emotion`, for a generator that reads them: an extractor,
            the path of a file of numbers or of an ONNX regressor, or `landmarks`. A generator that makes do with
            landmarks takes them by itself.
        detector: finds the speaker's face; None is `BlazeFace`.
    """

    region: Region | None = None
    extractors: Extractors = field(default_factory=dict)
    detector: FaceDetector | None = None


UNKNOWN = SpeakerSettings()
"""Nothing is known beforehand."""
