"""Generators whose windows overlap and whose segments lie ahead of the speaker, in a stream and in a live session."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.fakes import frames_of, sound_of
from support.lagging import BELFUSION, BETWEEN, PERFRDIFF, REGION, TRANSVAE, Counting, Still, Windowed, content, lagging

from pflx.runtime import Listener, ListenerFrame, SpeakerSettings, Stream
from pflx.runtime.generators import reach
from pflx.runtime.generators.protocol import delay_frames

LENGTH = 40
VIDEO, SOUND = frames_of(LENGTH, size=(32, 32)), sound_of(LENGTH)
TIMINGS = pytest.mark.parametrize("timing", [PERFRDIFF, BELFUSION, TRANSVAE, BETWEEN])


def whole(listener: Listener, length: int = LENGTH, samples: int = 1) -> list[ListenerFrame]:
    with listener.stream(samples=samples, speaker=SpeakerSettings(region=REGION)) as stream:
        stream.push(video=VIDEO[:length], audio=SOUND[: 640 * length])
        stream.finish()
        return list(stream.pull())


@TIMINGS
@pytest.mark.parametrize("length", [1, 4, 5, 6, 10, 11, 25, LENGTH])
def test_every_segment_is_made_of_the_frames_before_its_reach(timing: tuple[int, ...], length: int) -> None:
    window, hop, _, _ = timing
    generator = Windowed(*timing)
    frames = whole(lagging(timing), length)
    assert [frame.ledger.frame for frame in frames] == list(range(length))
    for position, frame in enumerate(frames):
        first, last, step, row = frame.coefficients[:4].tolist()
        end = reach(generator, position // hop)
        assert (step, row) == divmod(position, hop)
        assert last == end
        assert first == max(0, end - window + 1)
        assert frame.emotion is not None
        assert frame.emotion[3] == row + 1


@TIMINGS
@given(
    cuts=st.lists(st.integers(0, LENGTH), max_size=12),
    length=st.integers(LENGTH - 12, LENGTH),
    pulls=st.integers(0, 40),
    samples=st.sampled_from([1, 2]),
)
@example(cuts=[], length=LENGTH, pulls=0, samples=1)
@example(cuts=[LENGTH], length=LENGTH, pulls=40, samples=1)
@settings(max_examples=25, deadline=None)
def test_how_input_is_cut_changes_no_frame(
    timing: tuple[int, ...], cuts: list[int], length: int, pulls: int, samples: int
) -> None:
    expected = [content(frame) for frame in whole(lagging(timing), length, samples)]
    frames: list[ListenerFrame] = []
    ends = sorted(min(cut, length) for cut in cuts)
    with lagging(timing).stream(samples=samples, speaker=SpeakerSettings(region=REGION)) as stream:
        for start, end in zip([0, *ends], [*ends, length], strict=True):
            stream.push(video=VIDEO[start:end], audio=SOUND[640 * start : 640 * end])
            frames += islice(stream.pull(), pulls)
        stream.finish()
        frames += stream.pull()
    assert [content(frame) for frame in frames] == expected


@TIMINGS
@given(lookahead=st.integers(0, 13))
@settings(max_examples=14, deadline=None)
def test_a_frame_is_there_within_the_algorithmic_delay_and_no_sooner_than_its_slot(
    timing: tuple[int, ...], lookahead: int
) -> None:
    listener = lagging(timing, lookahead)
    delay = delay_frames(listener.generator, lookahead)
    assert listener.algorithmic_delay_ms == delay * 40
    waits: list[int] = []
    with listener.stream(speaker=SpeakerSettings(region=REGION)) as stream:
        for pushed in range(LENGTH):
            stream.push(video=VIDEO[pushed : pushed + 1], audio=SOUND[640 * pushed : 640 * pushed + 640])
            waits += [pushed + 1 - frame.ledger.frame for frame in stream.pull()]
    steady = waits[listener.generator.opening :]
    assert min(waits) >= 1
    assert max(steady) == delay


def test_no_frame_is_shown_before_the_speaker_begins() -> None:
    with lagging(BELFUSION).stream(speaker=SpeakerSettings(region=REGION)) as stream:
        assert list(stream.pull()) == []
        stream.push(video=VIDEO[:1], audio=SOUND[:640])
        assert [frame.ledger.frame for frame in stream.pull()] == [0]


@pytest.mark.parametrize("timing", [PERFRDIFF, BELFUSION, BETWEEN])
def test_what_was_not_there_is_zero_and_what_was_not_found_is_held(timing: tuple[int, ...]) -> None:
    extractor = Counting(blind=(0, 1, 6))
    frames = whole(lagging(timing, extractor=extractor))
    ends = {frame.coefficients[1].item() for frame in frames}
    assert 7.0 not in ends
    assert sorted(extractor.asked) == list(range(max(extractor.asked) + 1))


@TIMINGS
@given(before=st.integers(0, 22), after=st.integers(0, 22))
@settings(max_examples=20, deadline=None)
def test_after_a_flush_the_motion_goes_on_with_the_next_input(timing: tuple[int, ...], before: int, after: int) -> None:
    with lagging(timing).stream(speaker=SpeakerSettings(region=REGION)) as stream:
        stream.push(video=VIDEO[:before], audio=SOUND[: 640 * before])
        shown = list(islice(stream.pull(), after))
        stream.flush()
        taken = stream._n_taken
        stream.push(video=VIDEO[before:LENGTH], audio=SOUND[640 * before : 640 * LENGTH])
        stream.finish()
        rest = list(stream.pull())
    assert [frame.ledger.frame for frame in rest] == list(range(before, LENGTH))
    first = max(taken, len(shown))
    steps = [divmod(first + index, timing[1]) for index in range(len(rest))]
    assert [(frame.coefficients[2], frame.coefficients[3]) for frame in rest] == steps


@TIMINGS
@given(cut=st.integers(0, LENGTH), pulled=st.integers(0, 40))
@settings(max_examples=15, deadline=None)
def test_a_snapshot_goes_on_where_it_was_taken(timing: tuple[int, ...], cut: int, pulled: int) -> None:
    expected = [content(frame) for frame in whole(lagging(timing), samples=2)]
    with lagging(timing).stream(samples=2, speaker=SpeakerSettings(region=REGION)) as stream:
        stream.push(video=VIDEO[:cut], audio=SOUND[: 640 * cut])
        frames = list(islice(stream.pull(), pulled))
        arrays = stream.snapshot()
    resumed: Stream = lagging(timing).resume(arrays)
    with resumed:
        resumed.push(video=VIDEO[cut:], audio=SOUND[640 * cut :])
        resumed.finish()
        frames += resumed.pull()
    assert [content(frame) for frame in frames] == expected


def test_a_segment_made_of_no_new_input_has_no_seam_for_posnet() -> None:
    listener = lagging(PERFRDIFF)
    whole(listener, 21)
    smoother = listener.chain.smoother
    assert isinstance(smoother, Still)
    assert smoother.joined == [0, 2, 3, 4]


def test_a_segment_made_of_no_new_input_has_the_stamps_of_the_one_before() -> None:
    with lagging(PERFRDIFF, lookahead=0).stream(speaker=SpeakerSettings(region=REGION)) as stream:
        stream.push(video=VIDEO[:5], audio=SOUND[: 640 * 5])
        first = list(stream.pull())
        stream.push(video=VIDEO[5:9], audio=SOUND[640 * 5 : 640 * 9])
        second = list(stream.pull())
    assert {frame.ledger.segment for frame in first} == {0}
    assert {frame.ledger.segment for frame in second} == {1}
    assert {frame.ledger.scheduled for frame in first + second} == {first[0].ledger.scheduled}
