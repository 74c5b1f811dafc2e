"""The stream on fake engines: whatever the portions, the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import (
    HOP,
    MEAN_FACE,
    REGION,
    Faces,
    Failing,
    Recording,
    Reusing,
    fake_engines,
    frames_of,
    picture,
    portrait_of,
    sound_of,
)
from support.sessions import ACTIONS, EXPECTED, FRAMES, SOUND, VIDEO, Action, Session, content, listener, whole

from pflx.engines import EngineError, FeedError
from pflx.runtime import FaceState, ListenerFrame, StreamError, seeded_noise


@given(actions=ACTIONS, samples=st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_any_cut_of_the_input_and_any_pull_gives_the_same_frames(actions: list[Action], samples: int) -> None:
    session = Session(listener().stream(samples=samples, seed=5))
    for action in actions:
        session.act(*action)
    assert session.end() == EXPECTED[samples]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = ([content(f) for f in whole(listener(), seed=seed)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_noise_depends_on_seed_segment_and_sample_alone() -> None:
    noise = seeded_noise(3)
    assert noise(4, 1, 128).dtype == np.float32
    np.testing.assert_array_equal(noise(4, 1, 128), seeded_noise(3)(4, 1, 128))
    others = [seeded_noise(4)(4, 1, 128), noise(5, 1, 128), noise(4, 2, 128), noise(1, 4, 128)]
    assert not any(np.array_equal(noise(4, 1, 128), other) for other in others)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(FeedError, match="seed is -1"):
        listener().stream(seed=-1)


@pytest.mark.parametrize("portraits", [1, 2])
def test_many_samples_are_many_single_runs_with_the_same_noise(portraits: int) -> None:
    pictures = [portrait_of(seed) for seed in range(portraits)]
    together = whole(listener(portrait=pictures), samples=3, seed=5)
    noise = seeded_noise(5)
    for sample in range(3):

        def its_noise(segment: int, _: int, size: int, sample: int = sample) -> npt.NDArray[np.float32]:
            return noise(segment, sample, size)

        alone = whole(listener(portrait=pictures[sample % portraits]), seed=its_noise)
        mine = [content(frame)[1:] for frame in together if frame.sample == sample]
        assert mine == [content(frame)[1:] for frame in alone]


def test_samples_come_frame_by_frame() -> None:
    frames = whole(listener(), samples=3)
    assert [frame.sample for frame in frames] == [0, 1, 2] * FRAMES
    assert [frame.time_s for frame in frames[::3]] == [k / 25 for k in range(FRAMES)]


def test_posnet_touches_only_the_six_pose_numbers_and_spares_the_first_segment() -> None:
    engines = fake_engines()
    engines["reactface_listener"] = generator = Recording(engines["reactface_listener"])
    frames = whole(listener(engines=engines), samples=2, seed=5)
    generated = np.concatenate([result["reaction"] for result in generator.results], axis=1)[:, :FRAMES]
    shown = np.stack([frame.coefficients for frame in frames]).reshape(FRAMES, 2, 58).swapaxes(0, 1)
    poses = np.stack([frame.generated_pose for frame in frames]).reshape(FRAMES, 2, 6).swapaxes(0, 1)
    np.testing.assert_array_equal(shown[..., :52], (generated + MEAN_FACE)[..., :52])
    np.testing.assert_array_equal(poses, (generated + MEAN_FACE)[..., 52:])
    np.testing.assert_array_equal(shown[:, :HOP], (generated + MEAN_FACE)[:, :HOP])
    assert (shown[:, HOP, 52:] != poses[:, HOP]).all()


def test_posnet_goes_on_from_the_pose_it_gave_last() -> None:
    engines = fake_engines()
    engines["posnet"] = posnet = Recording(engines["posnet"])
    frames = whole(listener(engines=engines))
    poses = np.stack([frame.coefficients - MEAN_FACE for frame in frames])[:, 52:]
    assert len(posnet.feeds) == 3
    for number, feeds in enumerate(posnet.feeds, 1):
        np.testing.assert_allclose(feeds["last_pose"][0], poses[number * HOP - 1], atol=1e-6)


@pytest.mark.parametrize("reused", sorted(fake_engines()))
def test_engines_may_reuse_what_they_return(reused: str) -> None:
    engines = fake_engines()
    engines[reused] = Reusing(engines[reused])
    pictures = [portrait_of(0), portrait_of(1)]
    frames = whole(listener(engines=engines, portrait=pictures), samples=2, seed=5)
    expected = whole(listener(portrait=pictures), samples=2, seed=5)
    assert [content(frame) for frame in frames] == [content(frame) for frame in expected]


@pytest.mark.parametrize("lookahead", range(14))
def test_each_frame_sees_the_segments_it_waited_for_with_the_edges_repeated(lookahead: int) -> None:
    engines = fake_engines()
    engines["reactface_listener"] = generator = Recording(engines["reactface_listener"])
    engines["posnet"] = posnet = Recording(engines["posnet"])
    engines["pirender_frame"] = renderer = Recording(engines["pirender_frame"])
    frames = whole(listener(engines=engines, lookahead=lookahead))
    segments = [generator.results[0]["reaction"], *(result["smoothed"] for result in posnet.results)]
    track = np.concatenate(segments, axis=1)[0]
    for k, (frame, feeds) in enumerate(zip(frames, renderer.feeds, strict=True)):
        closed = min(-(-(k + lookahead + 1) // HOP) * HOP, len(track))
        rows = np.clip(np.arange(k - 13, k + 14), 0, closed - 1)
        window = feeds["coefficients"][0][np.clip(np.arange(feeds["frames"][0] - 13, feeds["frames"][0] + 14), 0, 26)]
        np.testing.assert_array_equal(window, track[rows])
        np.testing.assert_array_equal(frame.image, picture(window, feeds["source"][0]))
        np.testing.assert_array_equal(frame.coefficients, track[k] + MEAN_FACE)


@pytest.mark.parametrize("lookahead", [0, 5, 13])
def test_as_many_frames_come_out_as_went_in(lookahead: int) -> None:
    source = listener(lookahead=lookahead)
    for length in range(1, 41):
        frames = whole(source, frames_of(length), sound_of(length))
        assert [frame.time_s for frame in frames] == [k / 25 for k in range(length)]


@pytest.mark.parametrize("lookahead", [0, 1, 7, 8, 13])
def test_a_frame_comes_as_soon_as_the_segment_it_waits_for_closes(lookahead: int) -> None:
    source = listener(lookahead=lookahead)
    stream = source.stream()
    waited: list[int] = []
    for pushed in range(1, 49):
        stream.push(video=frames_of(1), audio=sound_of(1))
        for _ in stream.pull():
            waited.append(pushed - len(waited))
    assert len(waited) == 48 - lookahead
    assert max(waited) * 1000 / 25 == source.algorithmic_delay_ms == (HOP + lookahead) * 40


def test_nothing_comes_before_both_picture_and_sound_are_there() -> None:
    stream = listener(lookahead=0).stream()
    stream.push(video=VIDEO[:HOP])
    stream.push(audio=SOUND[: 640 * HOP - 1])
    assert not list(stream.pull())
    stream.push(audio=SOUND[640 * HOP - 1 : 640 * HOP])
    assert len(list(stream.pull())) == HOP


def test_without_sound_the_pictures_alone_are_waited_for() -> None:
    silence = np.zeros_like(SOUND)
    stream = listener().stream(seed=5, audio=False)
    frames: list[ListenerFrame] = []
    for start in range(0, FRAMES, 5):
        stream.push(video=VIDEO[start : start + 5])
        frames += stream.pull()
        stream = listener().resume(stream.snapshot(), seed=5)
    stream.finish()
    frames += stream.pull()
    assert [content(frame) for frame in frames] == [
        content(frame) for frame in whole(listener(), sound=silence, seed=5)
    ]
    with pytest.raises(FeedError, match="audio=False"):
        listener().stream(audio=False).push(audio=SOUND)


@pytest.mark.parametrize("heard", [0, 640 * 10 + 7, 640 * (FRAMES + 9)])
def test_sound_is_filled_with_silence_or_cut_at_the_end(heard: int) -> None:
    long = np.concatenate([SOUND, SOUND])
    padded = np.concatenate([long[:heard], np.zeros(640 * FRAMES, np.float32)])[: 640 * FRAMES]
    frames = whole(listener(), sound=long[:heard])
    assert [content(frame) for frame in frames] == [content(frame) for frame in whole(listener(), sound=padded)]


def test_the_last_window_repeats_the_last_picture() -> None:
    engines = fake_engines()
    engines["reactface_speaker"] = speaker = Recording(engines["reactface_speaker"])
    whole(listener(engines=engines), region=REGION)
    pictures = speaker.feeds[-1]["video"][0]
    assert len(speaker.feeds) == 4
    assert (pictures[FRAMES % HOP - 1 :] == pictures[FRAMES % HOP - 1]).all()
    assert (pictures[FRAMES % HOP - 1] != pictures[FRAMES % HOP - 2]).any()


def test_times_start_where_the_caller_says() -> None:
    frames = whole(listener(), start_s=12.5)
    assert [frame.time_s for frame in frames] == [12.5 + k / 25 for k in range(FRAMES)]


def test_the_stages_of_a_frame_are_stamped_in_order() -> None:
    ticks = iter(range(10_000))
    stream = listener(clock=lambda: next(ticks), lookahead=0).stream()
    stream.push(video=VIDEO[:8], audio=SOUND)
    first_push = 0
    stream.push(video=VIDEO[8:20])
    ledgers = [frame.ledger for frame in stream.pull()]
    for x in ledgers:
        stages = [x.read, x.closed, x.generator_start, x.generator_end, x.posnet_end]
        stages += [x.render_start, x.render_end, x.on_host]
        assert stages == sorted(stage for stage in stages if stage is not None)
        assert len({*stages[1:]}) == 7
    assert [ledger.closed for ledger in ledgers] == [first_push] * 8 + [first_push + 1] * 8
    assert [(ledger.frame, ledger.segment, ledger.picture) for ledger in ledgers] == [(k, k // 8, k) for k in range(16)]
    assert {ledger.deadline for ledger in ledgers} == {ledger.emitted for ledger in ledgers} == {None}


def test_the_face_state_is_in_the_frames() -> None:
    seen = Faces(lambda index: [(8.0, 5.0, 20.0, 20.0)] if 8 <= index < 16 else [])
    states = [frame.face for frame in whole(listener(detector=seen))[::HOP]]
    assert states == [FaceState.LOST, FaceState.LOCKED, FaceState.COASTING, FaceState.COASTING]


def test_finishing_twice_is_finishing_once_and_nothing_may_follow() -> None:
    stream = listener().stream(seed=5)
    stream.push(video=VIDEO, audio=SOUND)
    stream.finish()
    stream.finish()
    with pytest.raises(StreamError, match="was finished; open another one"):
        stream.push(video=VIDEO)
    assert [content(frame) for frame in stream.pull()] == EXPECTED[1]
    assert not list(stream.pull())


@pytest.mark.parametrize("pushes", [{}, {"video": frames_of(0)}, {"audio": SOUND}])
def test_a_stream_without_pictures_yields_nothing(pushes: dict[str, Any]) -> None:
    stream = listener().stream()
    stream.push(**pushes)
    stream.finish()
    assert not list(stream.pull())


def test_a_closed_stream_yields_nothing_and_takes_nothing() -> None:
    for finished in (False, True):
        stream = listener().stream()
        stream.push(video=VIDEO[:24], audio=SOUND)
        if finished:
            stream.finish()
        frames = stream.pull()
        list(islice(frames, 22))
        stream.close()
        stream.close()
        assert not list(stream.pull())
        assert not list(frames)
        with pytest.raises(StreamError, match="open another one"):
            stream.push(video=VIDEO)


def broken_inputs() -> Iterator[Any]:
    video, sound = VIDEO, SOUND
    nan = np.array([0.0, np.nan], np.float32)
    for name, feeds, said in (
        (
            "float pictures",
            {"video": video.astype(np.float32)},
            r"uint8 \[T, H, W, 3\] RGB, got float32 \[27, 40, 48, 3\]",
        ),
        ("one picture", {"video": video[0]}, r"got uint8 \[40, 48, 3\]"),
        ("four channels", {"video": np.zeros((2, 8, 8, 4), np.uint8)}, r"got uint8 \[2, 8, 8, 4\]"),
        ("no pixels", {"video": np.zeros((2, 0, 8, 3), np.uint8)}, r"got uint8 \[2, 0, 8, 3\]"),
        ("a list of pictures", {"video": [[[[0, 0, 0]]]]}, "got list"),
        ("another size", {"video": frames_of(2, size=(50, 40))}, "were 48x40, now 50x40. Resize them"),
        ("doubles", {"audio": sound.astype(np.float64)}, r"float32 \[N\], mono in \[-1, 1\], got float64"),
        ("stereo", {"audio": sound.reshape(-1, 2)}, r"got float32 \[\d+, 2\]"),
        ("a list of samples", {"audio": [0.0]}, "got list"),
        ("NaN", {"audio": nan}, "NaN or infinite"),
        ("infinity", {"audio": np.full(9, np.inf, np.float32)}, "NaN or infinite"),
        ("good pictures, bad sound", {"video": video[:4], "audio": nan}, "NaN or infinite"),
    ):
        yield pytest.param(feeds, said, id=name)


@pytest.mark.parametrize(("feeds", "said"), list(broken_inputs()))
def test_wrong_input_is_named_and_leaves_the_stream_as_it_was(feeds: dict[str, Any], said: str) -> None:
    stream = listener().stream(seed=5)
    stream.push(video=VIDEO[:10], audio=SOUND)
    with pytest.raises(FeedError, match=said) as caught:
        stream.push(**feeds)
    assert "\n" not in str(caught.value)
    stream.push(video=VIDEO[10:])
    stream.finish()
    assert [content(frame) for frame in stream.pull()] == EXPECTED[1]


def test_a_first_push_that_is_refused_does_not_fix_the_frame_size() -> None:
    stream = listener().stream(seed=5)
    with pytest.raises(FeedError):
        stream.push(video=frames_of(2, size=(50, 40)), audio=np.array([np.nan], np.float32))
    stream.push(video=VIDEO, audio=SOUND)


def test_what_was_pushed_may_be_overwritten_by_the_caller() -> None:
    stream = listener().stream(seed=5)
    video, sound = VIDEO.copy(), SOUND.copy()
    stream.push(video=video, audio=sound)
    video[:], sound[:] = 0, 0
    stream.finish()
    assert [content(frame) for frame in stream.pull()] == EXPECTED[1]


@pytest.mark.parametrize("graph", ["reactface_speaker", "reactface_listener", "posnet", "pirender_frame"])
def test_after_an_engine_failed_the_next_pull_tries_again(graph: str) -> None:
    engines = fake_engines()
    engines[graph] = failing = Failing(engines[graph], at=2)
    stream = listener(engines=engines).stream(seed=5)
    stream.push(video=VIDEO, audio=SOUND)
    stream.finish()
    frames: list[ListenerFrame] = []
    with pytest.raises(EngineError, match="once"):
        frames.extend(stream.pull())  # one by one: those before the failure stay
    frames += stream.pull()
    assert failing.calls > 2
    assert [content(frame) for frame in frames] == EXPECTED[1]


def test_fewer_than_one_sample_is_refused() -> None:
    with pytest.raises(FeedError, match="samples is 0"):
        listener().stream(samples=0)
