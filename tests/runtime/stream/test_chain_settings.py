"""What is left out of the chain, or exchanged: without PosNet, with a crop that floats, with a history after PosNet."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import HOP, MEAN_FACE, Recording, fake_engines, fake_manifest, frames_of
from support.sessions import ACTIONS, FRAMES, SOUND, VIDEO, Action, Session, content, listener, whole
from support.spoilt import all_finite, spoilt

from pflx.engines import FeedError, PflInfo
from pflx.runtime import ChainSettings, Listener, ListenerFrame, StreamError
from pflx.runtime.generators import speaker_side
from pflx.runtime.speaker.pfl import Box, centre_crop, crop, floating_region

SETTINGS: dict[str, dict[str, Any]] = {
    "without PosNet": {"posnet": False},
    "floating": {"crop": "floating"},
    "adjusted": {"generator_history": "adjusted"},
    "all": {"posnet": False, "crop": "floating", "generator_history": "adjusted"},
}


def nose_of(picture: npt.NDArray[np.uint8], box: Box) -> tuple[float, float] | None:
    """A nose that every picture has elsewhere, and some not at all."""
    if picture[1, 1, 0] % 5 == 0:
        return None
    return 20 + picture[1, 1, 1] / 32, 18 + picture[1, 1, 2] / 32


class Mesh:
    """In the place of `FaceMesh`."""

    nose_in = staticmethod(nose_of)


def changed(name: str, **options: Any) -> Listener:
    with patch.object(speaker_side, "FaceMesh", Mesh):
        return listener(**SETTINGS[name], **options)


EXPECTED = {
    (name, samples): [content(frame) for frame in whole(changed(name), samples=samples, seed=5)]
    for name in SETTINGS
    for samples in (1, 3)
}


@pytest.mark.parametrize("name", SETTINGS)
@given(actions=ACTIONS, at=st.integers(0, 25), samples=st.sampled_from([1, 3]))
@settings(max_examples=25, deadline=None)
def test_any_cut_of_the_input_and_a_snapshot_anywhere_give_the_same_frames(
    name: str, actions: list[Action], at: int, samples: int
) -> None:
    session = Session(changed(name).stream(samples=samples, seed=5))
    for index, action in enumerate([*actions, ("pull", 0)]):
        if index == at:
            snapshot = session.stream.snapshot()
            session.stream.close()
            session.stream = changed(name).resume(snapshot, seed=5)
        session.act(*action)
    assert session.end() == EXPECTED[name, samples]


@pytest.mark.parametrize("name", SETTINGS)
def test_frames_do_not_depend_on_what_comes_after_their_segment(name: str) -> None:
    other = np.concatenate([VIDEO[: 2 * HOP], frames_of(FRAMES - 2 * HOP, seed=9)])
    before, after = (whole(changed(name, lookahead=0), video, seed=5) for video in (VIDEO, other))
    same = [content(one) == content(two) for one, two in zip(before, after, strict=True)]
    assert same[: 2 * HOP] == [True] * 2 * HOP
    assert not any(same[2 * HOP :])


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_changes_the_reaction(name: str) -> None:
    as_published = [frame.coefficients for frame in whole(listener(), seed=5)]
    now = [frame.coefficients for frame in whole(changed(name), seed=5)]
    assert any((one != two).any() for one, two in zip(as_published, now, strict=True))


def test_the_settings_as_published_change_nothing() -> None:
    frames = whole(listener(posnet=True, crop="release", generator_history="generated"), seed=5)
    assert [content(frame) for frame in frames] == [content(frame) for frame in whole(listener(), seed=5)]


def test_without_posnet_segments_are_shown_as_they_were_generated() -> None:
    engines = fake_engines()
    engines["reactface_listener"] = generator = Recording(engines["reactface_listener"])
    engines["posnet"] = posnet = Recording(engines["posnet"])
    frames = whole(listener(engines=engines, posnet=False), samples=2, seed=5)
    generated = np.concatenate([result["reaction"] for result in generator.results], axis=1)[:, :FRAMES] + MEAN_FACE
    shown = np.stack([frame.coefficients for frame in frames]).reshape(FRAMES, 2, 58).swapaxes(0, 1)
    np.testing.assert_array_equal(shown, generated)
    for frame in frames:
        np.testing.assert_array_equal(frame.generated_pose, frame.coefficients[52:])
    assert not posnet.feeds


@pytest.mark.parametrize("history", ["generated", "adjusted"])
def test_the_generator_sees_its_past_before_posnet_or_after(history: str) -> None:
    engines = fake_engines()
    engines["reactface_listener"] = generator = Recording(engines["reactface_listener"])
    engines["posnet"] = posnet = Recording(engines["posnet"])
    whole(listener(engines=engines, generator_history=history), samples=2, seed=5)
    generated = [result["reaction"] for result in generator.results]
    shown = [generated[0], *(result["smoothed"] for result in posnet.results)]
    seen = [feeds["past_reaction"] for feeds in generator.feeds[1:]]
    np.testing.assert_array_equal(seen, (shown if history == "adjusted" else generated)[:-1])
    assert not generator.feeds[0]["past_reaction"].any()
    assert (shown[1] != generated[1]).any()


def test_the_generator_sees_squares_around_the_nose_which_stays_where_it_was_while_it_is_not_seen() -> None:
    engines = fake_engines()
    engines["reactface_speaker"] = speaker = Recording(engines["reactface_speaker"])
    seen_by = changed("floating", engines=engines)
    region = seen_by._speakers.pfl.window  # the face is smaller, the frame is larger
    whole(seen_by, VIDEO[: 3 * HOP])
    pictures = np.concatenate([feeds["video"][0] for feeds in speaker.feeds])
    nose: tuple[float, float] | None = None
    noses = []
    for index, frame in enumerate(VIDEO[: 3 * HOP]):
        nose = (nose_of(frame, ()) if index % 3 else None) or nose  # `WINK` sees no face in every third frame
        noses.append(nose)
    assert noses[0] is None
    assert len({*noses}) > HOP
    for picture, frame, where in zip(pictures, VIDEO, noses, strict=False):
        if where is not None:
            square = crop(frame[None], floating_region(where, region))[0]
            np.testing.assert_array_equal(picture, centre_crop(square, 224))


def test_what_bad_numbers_of_posnet_leave_is_not_remembered() -> None:
    engines = fake_engines(posnet=spoilt("posnet", "smoothed", {1}, (slice(None), slice(0, 2)), np.nan))
    engines["reactface_listener"] = generator = Recording(engines["reactface_listener"])
    frames = whole(listener(engines=engines, generator_history="adjusted"), samples=2, seed=5)
    assert all_finite(frames)
    assert all(np.isfinite(feeds["past_reaction"]).all() for feeds in generator.feeds)
    assert len({frame.coefficients.tobytes() for frame in frames[-2 * HOP :]}) > HOP  # it moves again


def midway(source: Listener) -> Any:
    with source.stream(seed=5) as stream:
        stream.push(video=VIDEO[:12], audio=SOUND[: 12 * 640])
        assert len(list[ListenerFrame](stream.pull())) == HOP - 3
        return stream.snapshot()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("without PosNet", "posnet=True, the stream of one with posnet=False"),
        ("floating", "crop='release', the stream of one with crop='floating'"),
        ("adjusted", "generator_history='generated', the stream of one with generator_history='adjusted'"),
    ],
)
def test_a_snapshot_of_another_chain_is_refused_with_what_would_take_it(name: str, said: str) -> None:
    with changed(name).stream(seed=5) as stream, pytest.raises(StreamError) as caught:
        stream.restore(midway(listener()))
    one = said.partition(",")[0]
    assert str(caught.value) == (
        f"The snapshot is of a chain with {said}. Open its listener with ChainSettings({one})."
    )
    listener().resume(midway(listener()))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"crop": "nose"}, "crop is 'nose'; give pfl, release, paper, floating."),
        ({"generator_history": "raw"}, "generator_history is 'raw'; give generated, adjusted."),
    ],
)
def test_what_cannot_be_meant_is_refused(chosen: dict[str, Any], said: str) -> None:
    with pytest.raises(FeedError) as caught:
        ChainSettings(**chosen)
    assert str(caught.value) == said


def test_what_a_listener_was_made_with_names_the_bundles_own_crop() -> None:
    paper = fake_manifest(pfl=PflInfo(mode="paper", window=32, padding=2))
    published = {"posnet": True, "generator_history": "generated"}
    assert listener().made_with == {**published, "crop": "release"}
    assert listener(manifest=paper).made_with == {**published, "crop": "paper"}
    assert listener(manifest=paper, crop="release").made_with == {**published, "crop": "release"}
    release = [content(frame) for frame in whole(listener(), seed=5)]
    assert [content(frame) for frame in whole(listener(manifest=paper, crop="release"), seed=5)] == release
    assert [content(frame) for frame in whole(listener(manifest=paper), seed=5)] != release
