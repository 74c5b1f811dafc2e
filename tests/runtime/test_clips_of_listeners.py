"""Clips that a listener gets: of sound alone, and of pixels that are not square."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.fakes import HOP, fake_listener, fake_manifest
from support.media.clips import PictureTrack, SoundTrack, scene, write_tracks
from support.places import MEDIA

from pflx.engines import GeneratorInfo, PflInfo
from pflx.engines.bundle.manifest import encode_manifest
from pflx.runtime import Listener, ListenerFrame, Recorded, open_speaker
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.speaker.extractor import Every, NeedError
from pflx.runtime.speaker.extractors import check_voice_alone
from pflx.runtime.speaker.faces import Face

SECONDS = 1.92


class _Looking:
    """A detector that remembers the shapes of what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def detect(self, frame_rgb: UInt8Array) -> list[Face]:
        self.seen.append(frame_rgb.shape)
        return [Face((10.0, 10.0, 20.0, 20.0), 1.0)]


def listener_of(name: str, *needs: str) -> Listener:
    info = GeneratorInfo(name=name, window=HOP, hop=HOP, needs=list(needs), graphs={})
    return fake_listener(manifest=fake_manifest(generator=info))


def coefficients(frames: Iterable[ListenerFrame]) -> Float32Array:
    return np.stack([frame.coefficients for frame in frames])


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same voice alone, and with black pictures."""
    chunks = open_speaker(MEDIA / "podium_speech_8s.mp4").limited(SECONDS).chunks()
    voice = np.concatenate([chunk.audio for chunk in chunks])[None]
    folder = tmp_path_factory.mktemp("clips")
    sound = SoundTrack(voice, codec="pcm_s16le")
    black = PictureTrack([np.zeros((64, 64, 3), np.uint8)] * round(SECONDS * 25), codec="ffv1", pix_fmt="bgr0")
    return write_tracks(folder / "voice.wav", sound), write_tracks(folder / "dark.mkv", black, sound)


def test_a_voice_alone_is_answered_as_one_in_the_dark_is(
    spoken: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    voice, dark = spoken
    listener = listener_of("backchannel", "audio", "coefficients")
    alone = coefficients(listener.react(voice, seed=3))
    assert len(alone) == 48
    assert [each.getMessage() for each in caplog.records] == [
        f"{voice} holds sound and no pictures: a speaker whom nobody sees."
    ]
    assert np.ptp(alone, axis=0).max() > 0
    np.testing.assert_array_equal(alone, coefficients(listener.react(dark, seed=3)))


def test_a_generator_that_reads_pictures_says_so_of_a_voice_alone(spoken: tuple[Path, Path]) -> None:
    voice, _ = spoken
    listener = fake_listener()
    said = f"reactface reads the speaker's pictures, and {voice} holds sound alone. Give a clip that shows the speaker."
    with pytest.raises(NeedError) as caught:
        next(listener.react(voice))
    assert str(caught.value) == said
    with pytest.raises(NeedError) as caught:
        listener.find_region(voice)
    assert str(caught.value) == said
    with pytest.raises(NeedError) as caught:
        listener.live(voice)
    assert str(caught.value) == said


def test_what_is_told_from_pictures_is_wanted_unless_it_was_recorded() -> None:
    needs, voice = ("coefficients", "mfcc"), Path("voice.wav")
    recorded = Recorded(np.zeros((48, 58), np.float32))
    check_voice_alone("perfrdiff", needs, {"coefficients": recorded}, (), voice)
    with pytest.raises(
        NeedError, match=r"perfrdiff reads the speaker's coefficients, and voice\.wav holds sound alone"
    ):
        check_voice_alone("perfrdiff", needs, {"coefficients": Every(recorded, 5)}, (), voice)


@pytest.mark.parametrize("square", [True, False])
def test_a_bundle_says_whether_pixels_were_square_in_training(tmp_path: Path, square: bool) -> None:
    facts = {"sample_aspect_ratio": Fraction(2)}
    clip = write_tracks(
        tmp_path / "wide.mp4", PictureTrack([scene(index, (48, 96)) for index in range(16)], facts=facts)
    )
    detector = _Looking()
    pfl = PflInfo(mode="release", window=32, padding=2, square_pixels=square)
    assert (b"square_pixels" in encode_manifest(fake_manifest(pfl=pfl))) is not square
    listener = fake_listener(manifest=fake_manifest(pfl=pfl), detector=detector)
    assert len(list(listener.react(clip))) == 16
    assert set(detector.seen) == {(96, 96 if square else 48, 3)}
