"""The speaker's side of a listener's sessions: who looks at the pictures, how they are cropped, what gives numbers."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from pflx.engines import FeedError, Manifest
from pflx.runtime.generators import Generator, default_sources
from pflx.runtime.generators.speaker_window import SpeakerWindows
from pflx.runtime.media.clip import SpeakerFile
from pflx.runtime.speaker.extractor import Extractor
from pflx.runtime.speaker.extractors import check_clip, open_extractors, require_needs
from pflx.runtime.speaker.face_track import SpeakerView
from pflx.runtime.speaker.faces import BlazeFace, FaceDetector
from pflx.runtime.speaker.landmarks import FaceMesh
from pflx.runtime.speaker.one_at_a_time import Lock, safe_detector, safe_extractor
from pflx.runtime.speaker.recorded import Recorded
from pflx.runtime.speaker.settings import SpeakerSettings


class SpeakerSide:
    """Makes the windows of a listener's sessions.

    Args:
        manifest: of the bundle.
        known: of every speaker.
        crop: `release`, `paper` or `floating`.

    Attributes:
        detector: of sessions that have none of their own.
        pfl: the bundle's crop, with that mode.
    """

    def __init__(self, manifest: Manifest, known: SpeakerSettings, crop: str) -> None:
        self._manifest, self._known = manifest, known
        self.detector = known.detector or BlazeFace()
        self.pfl = replace(manifest.pfl, mode=crop)
        sources = {**default_sources(manifest.generator.name), **known.extractors}
        self._extractors = open_extractors(sources, manifest.mean_face.values)

    def windows(self, generator: Generator) -> SpeakerWindows:
        """The windows that sessions share which bring nothing of their own."""
        return self._windows(generator, self.detector, self._extractors)

    def of_session(
        self,
        generator: Generator,
        shared: SpeakerWindows,
        speaker: SpeakerSettings,
        clip: SpeakerFile | None,
        *,
        alone: bool,
        lock: Lock | None = None,
    ) -> tuple[SpeakerWindows, bool]:
        """The windows of one session, in which the generator gets all that it needs, and whether it looks alone.

        Args:
            generator: that reads them.
            shared: the windows of all sessions.
            speaker: what is known of this one.
            clip: of the speaker, if it is known.
            alone: have it look at the speaker with a detector of its own where no other was given; where anything else
                looks, which may not be made for two sessions at once, it does not.
            lock: for what does not bear several threads, where sessions look at the same time; None where they do not.

        Raises:
            NeedError: the generator reads something of the speaker that nothing gives.
            FeedError: there is nothing to crop as it was chosen.
        """
        given = {**self._extractors, **open_extractors(speaker.extractors, self._manifest.mean_face.values)}
        name, needs = self._manifest.generator.name, generator.needs
        require_needs(name, needs, given)
        if clip is not None:
            check_clip(name, needs, given, default_sources(name), clip, is_live=alone)
        looks = any(need in needs and not isinstance(each, Recorded) for need, each in given.items())
        self._check_crop(needs, looks=looks)
        if lock is not None:
            safe = {need: safe_extractor(each, lock) for need, each in given.items()}
            return self._windows(generator, safe_detector(speaker.detector or self.detector, lock), safe), False
        if alone and not looks and speaker.detector is None and self._known.detector is None:
            return self._windows(generator, BlazeFace(), given), True
        if speaker.detector is not None:
            return self._windows(generator, speaker.detector, given), False
        return shared.with_extractors(given), False

    def _windows(
        self, generator: Generator, detector: FaceDetector, extractors: Mapping[str, Extractor]
    ) -> SpeakerWindows:
        nose = FaceMesh().nose_in if self.pfl.mode == "floating" else None
        view = SpeakerView(detector, self.pfl, crops="video" in generator.needs, nose=nose)
        return SpeakerWindows(generator, view, extractors, self._manifest.sample_rate_hz)

    def _check_crop(self, needs: tuple[str, ...], *, looks: bool) -> None:
        """Refuse a crop other than the bundle's where it would change nothing; extractors see whole pictures."""
        mode = self.pfl.mode
        if mode == self._manifest.pfl.mode or "video" in needs or (looks and mode == "floating"):
            return
        why = (
            "is told from whole pictures, which floating alone moves"
            if looks
            else "is told without looking at pictures"
        )
        raise FeedError(
            f"crop is '{mode}', and what {self._manifest.generator.name} reads of the speaker {why}. Leave it out."
        )
