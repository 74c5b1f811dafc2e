"""The stream on fake engines: whatever the portions, the same frames."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fakes import (
    HOP,
    MEAN_FACE,
    REGION,
    Faces,
    Recording,
    Reusing,
    fake_engines,
    fake_listener,
    frames_of,
    picture,
    portrait_of,
    sound_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pflx.engines import Array, FeedError
from pflx.runtime import FaceState, Listener, ListenerFrame, Stream, StreamError, seeded_noise

FRAMES = 27
VIDEO, SOUND = frames_of(FRAMES), sound_of(FRAMES)
WINK = Faces(lambda index: [(8.0, 5.0, 20.0, 20.0)] if index % 3 else [])

Action = tuple[str, int]
ACTIONS = st.lists(st.tuples(st.sampled_from(["video", "audio", "pull"]), st.integers(0, 9000)), max_size=25)


def listener(**options: Any) -> Listener:
    return fake_listener(**{"detector": WINK, "lookahead": 3} | options)


def content(frame: ListenerFrame) -> tuple[Any, ...]:
    """All of a frame but the time stamps."""
    arrays = (frame.image, frame.coefficients, frame.generated_pose)
    return (frame.sample, frame.time_s, frame.face, *(array.tobytes() for array in arrays))


def whole(source: Listener, video: Array = VIDEO, sound: Array = SOUND, **options: Any) -> list[ListenerFrame]:
    """All frames of one push, one finish and one pull."""
    with source.stream(**options) as stream:
        stream.push(video=video, audio=sound)
        stream.finish()
        return list(stream.pull())


class Session:
    """Feeds a stream piece by piece and keeps what comes out."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.frames: list[ListenerFrame] = []
        self._seen = self._heard = 0

    def act(self, what: str, amount: int) -> None:
        if what == "pull":
            self.frames += islice(self.stream.pull(), amount % 20)
        elif what == "video":
            count = amount % 12
            self.stream.push(video=VIDEO[self._seen : self._seen + count])
            self._seen += count
        else:
            self.stream.push(audio=SOUND[self._heard : self._heard + amount])
            self._heard += amount

    def end(self) -> list[tuple[Any, ...]]:
        self.stream.push(video=VIDEO[self._seen :], audio=SOUND[self._heard :])
        self.stream.finish()
        self.frames += self.stream.pull()
        return [content(frame) for frame in self.frames]


def through_a_file(snapshot: Mapping[str, Array]) -> dict[str, Array]:
    file = io.BytesIO()
    np.savez(file, **{name: np.asarray(value) for name, value in snapshot.items()})
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


EXPECTED = {samples: [content(frame) for frame in whole(listener(), samples=samples, seed=5)] for samples in (1, 3)}


@given(actions=ACTIONS, samples=st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_any_cut_of_the_input_and_any_pull_gives_the_same_frames(actions: list[Action], samples: int) -> None:
    session = Session(listener().stream(samples=samples, seed=5))
    for action in actions:
        session.act(*action)
    assert session.end() == EXPECTED[samples]


@given(actions=ACTIONS, at=st.integers(0, 25), samples=st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_a_snapshot_at_any_point_goes_on_identically_on_another_listener(
    actions: list[Action], at: int, samples: int
) -> None:
    session = Session(listener().stream(samples=samples, seed=5))
    for index, action in enumerate([*actions, ("pull", 0)]):
        if index in (at, len(actions)):
            snapshot = through_a_file(session.stream.snapshot())
            session.stream.close()
            session.stream = listener().resume(snapshot, seed=5)
        session.act(*action)
    assert session.end() == EXPECTED[samples]


RESUME = """
import sys
import numpy as np
from test_runtime_stream import VIDEO, SOUND, listener

given, results = dict(np.load(sys.argv[1], allow_pickle=False)), {}
for name in sorted({key.split("/")[0] for key in given}):
    snapshot = {key.split("/")[1]: value for key, value in given.items() if key.startswith(name + "/")}
    pushed = int(snapshot.pop("pushed"))
    stream = listener().resume(snapshot, seed=5)
    stream.push(video=VIDEO[pushed:], audio=SOUND[640 * pushed:])
    stream.finish()
    frames = list(stream.pull())
    for field in ("image", "coefficients", "generated_pose", "time_s", "sample", "face"):
        results[name + "/" + field] = np.array([getattr(frame, field) for frame in frames])
np.savez(sys.argv[2], **results)
"""


def run_python(code: str, *arguments: str | Path) -> None:
    tests = str(Path(__file__).parent)
    paths = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=os.environ | {"PYTHONPATH": paths}, check=True
    )


def test_a_new_process_goes_on_identically_from_any_point(tmp_path: Path) -> None:
    """Before anything, with input waiting, in the middle of a pull, between segments, after the end."""
    given: dict[str, Array] = {}
    taken: dict[str, int] = {}
    for name, pushed, pulled in (("new", 0, 0), ("waiting", 13, 0), ("midway", 20, 5), ("due", 24, 99), ("all", 27, 7)):
        stream = listener().stream(samples=2, seed=5, start_s=3.5)
        stream.push(video=VIDEO[:pushed], audio=SOUND[: 640 * pushed])
        taken[name] = len(list(islice(stream.pull(), pulled)))
        given |= {f"{name}/{key}": value for key, value in stream.snapshot().items()}
        given[f"{name}/pushed"] = np.array(pushed)
    np.savez(tmp_path / "snapshots.npz", **given)
    run_python(RESUME, tmp_path / "snapshots.npz", tmp_path / "frames.npz")
    expected = whole(listener(), samples=2, seed=5, start_s=3.5)
    with np.load(tmp_path / "frames.npz", allow_pickle=False) as results:
        for name, skipped in taken.items():
            for field in ("image", "coefficients", "generated_pose", "time_s", "sample", "face"):
                rest = np.array([getattr(frame, field) for frame in expected[skipped:]])
                np.testing.assert_array_equal(results[f"{name}/{field}"], rest)


def test_a_snapshot_is_plain_arrays_that_the_stream_no_longer_touches() -> None:
    stream = listener().stream(samples=2)
    stream.push(video=VIDEO[:20], audio=SOUND)
    next(stream.pull())
    snapshot = stream.snapshot()
    before = {name: value.copy() for name, value in snapshot.items()}
    assert all(type(value) is np.ndarray and value.dtype.kind in "iufb" for value in snapshot.values())
    stream.push(video=VIDEO[20:])
    list(stream.pull())
    for name, value in snapshot.items():
        np.testing.assert_array_equal(value, before[name])


def test_what_is_no_snapshot_is_refused() -> None:
    stream = listener().stream(samples=2)
    snapshot = stream.snapshot()
    for broken in ({}, {"samples": np.array([2])}, snapshot | {"counts": np.array([1])}, {"samples": np.array([])}):
        with pytest.raises(StreamError, match="no snapshot"):
            listener().resume(broken)
    with pytest.raises(StreamError, match="2 samples, the stream 1"):
        listener().stream(samples=1).restore(snapshot)


def test_a_refused_snapshot_leaves_the_stream_as_it_was() -> None:
    stream = listener().stream(seed=5)
    stream.push(video=VIDEO, audio=SOUND)
    frames = list(islice(stream.pull(), 9))
    later = listener().stream(seed=1)
    later.push(video=VIDEO, audio=SOUND)
    list(later.pull())
    snapshot = later.snapshot()
    del snapshot["inbox.audio"]
    with pytest.raises(StreamError):
        stream.restore(snapshot)
    stream.finish()
    assert [content(frame) for frame in [*frames, *stream.pull()]] == EXPECTED[1]


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

        alone = whole(listener(portrait=pictures[sample % portraits]), noise=its_noise)
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
    assert all(x.received < x.generated < x.smoothed < x.rendered for x in ledgers)
    assert [ledger.received for ledger in ledgers] == [first_push] * 8 + [first_push + 1] * 8


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
        ("doubles", {"audio": sound.astype(np.float64)}, r"float32 \[N\], 16 kHz mono in \[-1, 1\], got float64"),
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


def test_fewer_than_one_sample_is_refused() -> None:
    with pytest.raises(FeedError, match="samples is 0"):
        listener().stream(samples=0)


def test_a_snapshot_of_another_generator_is_refused() -> None:
    snapshot = listener().stream().snapshot()
    for changed in (
        {"generator.past_motion": np.zeros((1, 64), np.float32)},
        {"generator.past_reaction": np.zeros((1, 16, 58), np.float32)},
    ):
        with pytest.raises(StreamError, match="another generator"):
            listener().resume(snapshot | changed)
