"""The stream when a pace has work left out, and when input has gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import HOP, MEAN_FACE, REGION, Failing, Function, Recording, fake_engines, picture, portrait_of
from support.grouped import grouped
from support.sessions import FRAMES, SOUND, VIDEO, content, listener, whole

from pflx.engines import Array, EngineError, FeedError
from pflx.runtime import Listener, ListenerFrame, SpeakerSettings, Stream
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.frames.pace import Unhurried
from pflx.runtime.generators import Reaction, SpeakerWindow, State
from pflx.runtime.stream.inbox import Arrival

FULL, FEWER, HALF, WARPED, HOLD = Rung


class Scripted(Unhurried):
    """A pace that does what it is told, frame by frame; FULL where it is told nothing."""

    def __init__(self, rungs: Callable[[int], Rung] | Mapping[int, Rung], steps: int | None = None) -> None:
        self.asked: list[tuple[int, int]] = []
        self.steps_asked: list[tuple[int, tuple[int, ...]]] = []
        self.costs: list[tuple[int | None, int]] = []
        self.pictures = 0
        self._rungs = rungs if callable(rungs) else lambda frame: rungs.get(frame, FULL)
        self._steps = steps

    def rung(self, frame: int, *, ahead: int) -> Rung:
        self.asked.append((frame, ahead))
        return self._rungs(frame)

    def steps(self, frame: int, available: tuple[int, ...]) -> int | None:
        self.steps_asked.append((frame, available))
        return self._steps

    def generated(self, steps: int | None, duration_ns: int) -> None:
        self.costs.append((steps, duration_ns))

    def rendered(self, duration_ns: int) -> None:
        self.pictures += 1


def paced(source: Listener, pace: Scripted, **options: Any) -> list[ListenerFrame]:
    """All frames of one push, one finish and one pull."""
    with source.stream(**grouped(options, "speaker")) as stream:
        stream.push(video=VIDEO, audio=SOUND)
        stream.finish()
        return list(stream.pull(pace))


def rungs_of(frames: list[ListenerFrame]) -> list[tuple[int, Rung, int | None]]:
    return [(frame.ledger.frame, frame.degraded, frame.ledger.picture) for frame in frames]


def recorded(**functions: Function) -> tuple[dict[str, Any], Recording, Recording]:
    """Engines, of which generator and renderer are recorded."""
    engines: dict[str, Any] = fake_engines(**functions)
    engines["reactface_listener"] = generator = Recording(engines["reactface_listener"])
    engines["pirender_frame"] = renderer = Recording(engines["pirender_frame"])
    return engines, generator, renderer


# Rungs


def test_at_half_rate_the_picture_of_two_frames_mean_stands_for_both() -> None:
    engines, _, renderer = recorded()
    frames = paced(listener(engines=engines, lookahead=3), Scripted({4: HALF}), seed=5)
    full = whole(listener(lookahead=3), seed=5)
    first, second = frames[4], frames[5]
    assert len(frames) == FRAMES
    assert len(renderer.feeds) == FRAMES - 1
    assert first.image is second.image
    mean = (full[4].coefficients + full[5].coefficients) / 2
    for frame in (first, second):
        np.testing.assert_allclose(frame.coefficients, mean, atol=1e-6)
    window = renderer.feeds[4]["coefficients"][0]
    np.testing.assert_array_equal(window[13] + MEAN_FACE, first.coefficients)
    np.testing.assert_array_equal(first.image, picture(window, renderer.feeds[4]["source"][0]))
    assert rungs_of(frames)[3:7] == [(3, FULL, 3), (4, HALF, 4), (5, HALF, 4), (6, FULL, 6)]
    assert [frame.time_s for frame in frames] == [k / 25 for k in range(FRAMES)]
    assert first.ledger.render_start == second.ledger.render_start
    np.testing.assert_array_equal(second.generated_pose, full[5].generated_pose)
    others = [k for k in range(FRAMES) if k not in (4, 5)]
    assert [content(frames[k]) for k in others] == [content(full[k]) for k in others]


@pytest.mark.parametrize("samples", [1, 3])
def test_a_pair_may_reach_over_the_end_of_what_is_due(samples: int) -> None:
    stream = listener(lookahead=0).stream(samples=samples, seed=5)
    stream.push(video=VIDEO[:8], audio=SOUND[: 640 * 8])
    pace = Scripted({7: HALF})
    first = list(stream.pull(pace))
    assert [frame.ledger.frame for frame in first[-samples:]] == [7] * samples
    stream.push(video=VIDEO[8:16], audio=SOUND[640 * 8 : 640 * 16])
    second = list(stream.pull(pace))
    assert rungs_of(second)[:samples] == [(8, HALF, 7)] * samples
    assert [frame.sample for frame in second[:samples]] == list(range(samples))
    assert all(a.image is b.image for a, b in zip(first[-samples:], second, strict=False))
    assert rungs_of(second)[samples] == (9, FULL, 9)
    assert 8 not in [frame for frame, _ in pace.asked]


@pytest.mark.parametrize("lookahead", [0, 7, 13])
def test_a_frame_knows_the_newest_input_that_its_picture_depends_on(lookahead: int) -> None:
    stream = listener(lookahead=lookahead).stream()
    for k in range(32):
        stream.push(video=VIDEO[k % 24 : k % 24 + 1], audio=SOUND[:640], arrival=Arrival(k, k / 25, 1000 + k, 2000 + k))
    frames = list(stream.pull(Scripted({2: HALF, 10: HALF})))
    assert len(frames) == 32 - lookahead
    for frame in frames:
        assert frame.ledger.picture is not None
        closed = -(-(frame.ledger.picture + lookahead + 1) // HOP) * HOP
        reach = (frame.ledger.picture + 13 + (frame.degraded is HALF)) // HOP * HOP + HOP
        assert frame.ledger.newest == 1000 + min(closed, reach) - 1


def test_a_frame_on_hold_does_not_come_out_and_costs_nothing() -> None:
    engines, generator, renderer = recorded()
    pace = Scripted({5: HOLD, 6: HOLD, 26: HOLD})
    frames = paced(listener(engines=engines), pace, samples=2, seed=5)
    full = whole(listener(), samples=2, seed=5)
    assert [content(frame) for frame in frames] == [
        content(frame) for frame in full if frame.ledger.frame not in (5, 6, 26)
    ]
    assert len(renderer.feeds) == len(frames) == pace.pictures == 2 * (FRAMES - 3)
    assert len(generator.feeds) == 4
    assert [steps for steps, _ in pace.costs] == [None] * 4


@given(
    choices=st.lists(st.sampled_from([FULL, HALF, HOLD]), min_size=FRAMES, max_size=FRAMES), samples=st.integers(1, 3)
)
@settings(max_examples=40, deadline=None)
def test_any_choice_of_rungs_keeps_frames_in_order_and_what_is_full_unchanged(
    choices: list[Rung], samples: int
) -> None:
    pace = Scripted(lambda frame: choices[frame])
    frames = paced(listener(lookahead=3), pace, samples=samples, seed=5)
    full = {(f.ledger.frame, f.sample): content(f) for f in whole(listener(lookahead=3), samples=samples, seed=5)}
    places = [(frame.ledger.frame, frame.sample) for frame in frames]
    assert places == sorted(places)
    assert len(places) == len(set(places))
    expected: list[Rung] = []
    while len(expected) < FRAMES:
        chosen = choices[len(expected)]
        expected += [chosen, chosen] if chosen is HALF else [chosen]
    shown = {frame.ledger.frame: frame.degraded for frame in frames}
    assert shown == {k: rung for k, rung in enumerate(expected[:FRAMES]) if rung is not HOLD}
    for frame in frames:
        if frame.degraded is FULL:
            assert content(frame) == full[frame.ledger.frame, frame.sample]


def test_a_pace_is_asked_with_the_frames_number_and_what_can_be_made_besides() -> None:
    pace = Scripted({})
    stream = listener(lookahead=3).stream()
    stream.push(video=VIDEO[:16], audio=SOUND)
    list(stream.pull(pace))
    assert pace.asked == [(k, 4 - k) for k in range(5)] + [(5 + k, 7 - k) for k in range(8)]
    assert pace.steps_asked == [(0, ()), (8, ())]


# Denoising steps


class Denoising:
    """The fake generator, as one that denoises in 50, 25 or 10 steps."""

    steps = (50, 25, 10)

    def __init__(self, generator: Any) -> None:
        self.window, self.hop, self.noise_size = generator.window, generator.hop, generator.noise_size
        self.is_joined = generator.is_joined
        self.lead, self.opening, self.needs = generator.lead, generator.opening, generator.needs
        self.start = generator.start
        self.taken: list[int | None] = []
        self._generator = generator

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        self.taken.append(steps)
        reaction, state = self._generator.step(speaker, state, noise)
        return Reaction(reaction.coefficients * np.float32(1 + (steps or 50) / 100)), state


@pytest.mark.parametrize(("steps", "rung"), [(None, FULL), (50, FULL), (25, FEWER), (10, FEWER)])
def test_fewer_steps_reach_the_generator_and_the_frames(steps: int | None, rung: Rung) -> None:
    source = listener()
    generator = Denoising(source._chain.generator)
    source._chain = replace(source._chain, generator=generator)
    pace = Scripted({9: HALF}, steps=steps)
    frames = paced(source, pace)
    assert generator.taken == [steps] * 4
    assert pace.steps_asked == [(k * HOP, (50, 25, 10)) for k in range(4)]
    assert [cost[0] for cost in pace.costs] == [steps] * 4
    assert {frame.degraded for k, frame in enumerate(frames) if k not in (9, 10)} == {rung}
    assert frames[9].degraded is frames[10].degraded is HALF


# In the middle of a pair


def first_of_pair(
    stream: Stream, samples: int, *, video: Array = VIDEO
) -> tuple[Iterator[ListenerFrame], list[ListenerFrame]]:
    """A stream that stands between the two frames of the pair (4, 5)."""
    stream.push(video=video, audio=SOUND)
    frames = stream.pull(Scripted({4: HALF}))
    return frames, list(islice(frames, 5 * samples))


@pytest.mark.parametrize("taken", [9, 10, 11, 12])
def test_a_snapshot_in_the_middle_of_a_pair_goes_on_with_every_frame_once(taken: int) -> None:
    stream = listener().stream(samples=2, seed=5)
    stream.push(video=VIDEO, audio=SOUND)
    before = list(islice(stream.pull(Scripted({4: HALF})), taken))
    again = listener().resume(stream.snapshot(), seed=5)
    again.finish()
    frames = before + list(again.pull())
    assert [(frame.ledger.frame, frame.sample) for frame in frames] == [(k, m) for k in range(FRAMES) for m in range(2)]
    full = [content(frame) for frame in whole(listener(), samples=2, seed=5)]
    assert [content(frame) for frame in frames[taken:]] == full[taken:]


def test_a_stream_that_takes_up_a_snapshot_forgets_its_own_pair() -> None:
    stream = listener().stream(seed=5)
    fresh = stream.snapshot()
    first_of_pair(stream, 1)
    stream.restore(fresh)
    stream.push(video=VIDEO, audio=SOUND)
    stream.finish()
    assert [content(frame) for frame in stream.pull()] == [content(frame) for frame in whole(listener(), seed=5)]


@pytest.mark.parametrize("at", [9, 10])
def test_after_the_renderer_failed_in_the_middle_of_a_pair_the_next_pull_tries_again(at: int) -> None:
    engines: dict[str, Any] = fake_engines()
    engines["pirender_frame"] = Failing(engines["pirender_frame"], at=at)
    stream = listener(engines=engines).stream(samples=2, seed=5)
    stream.push(video=VIDEO, audio=SOUND)
    stream.finish()
    frames: list[ListenerFrame] = []
    with pytest.raises(EngineError, match="once"):
        frames.extend(stream.pull(Scripted({4: HALF})))
    assert len(frames) == at - 1
    frames += stream.pull(Scripted({4: HALF}))
    expected = paced(listener(), Scripted({4: HALF}), samples=2, seed=5)
    assert [content(frame) for frame in frames] == [content(frame) for frame in expected]
    assert rungs_of(frames) == rungs_of(expected)


def test_a_pair_that_failed_is_no_pair_when_the_next_try_is_in_full() -> None:
    engines: dict[str, Any] = fake_engines()
    engines["pirender_frame"] = Failing(engines["pirender_frame"], at=5)
    stream = listener(engines=engines).stream(seed=5)
    stream.push(video=VIDEO, audio=SOUND)
    stream.finish()
    frames: list[ListenerFrame] = []
    with pytest.raises(EngineError, match="once"):
        frames.extend(stream.pull(Scripted({4: HALF})))
    frames += stream.pull()
    assert [content(frame) for frame in frames] == [content(frame) for frame in whole(listener(), seed=5)]
    assert {frame.degraded for frame in frames} == {FULL}


def test_flushing_in_the_middle_of_a_pair_leaves_no_old_picture() -> None:
    stream = listener(lookahead=0).stream(seed=5)
    stream.push(video=VIDEO[:8], audio=SOUND[: 640 * 8])
    old = list(stream.pull(Scripted({7: HALF})))
    stream.flush()
    stream.push(video=VIDEO[8:16], audio=SOUND[640 * 8 : 640 * 16])
    new = list(stream.pull())
    assert rungs_of(new)[0] == (8, FULL, 8)
    assert not any(frame.image is old[-1].image for frame in new)


# Portraits


def test_another_portrait_for_one_sample_leaves_the_others_alone() -> None:
    stream = listener().stream(samples=3, seed=5)
    stream.push(video=VIDEO, audio=SOUND)
    stream.finish()
    frames = stream.pull()
    shown = list(islice(frames, 3 * 6))
    stream.set_portrait(portrait_of(9), 1)
    shown += frames
    old = whole(listener(), samples=3, seed=5)
    new = whole(listener(portrait=portrait_of(9)), samples=3, seed=5)
    assert [content(frame) for frame in shown] == [
        content((new if k >= 18 and k % 3 == 1 else old)[k]) for k in range(3 * FRAMES)
    ]


def test_another_portrait_for_all_and_one_that_does_not_exist() -> None:
    stream = listener().stream(samples=2, seed=5)
    with pytest.raises(FeedError, match="sample is 2; this stream has 0 to 1"):
        stream.set_portrait(portrait_of(9), 2)
    with pytest.raises(FeedError, match="sample is -1"):
        stream.set_portrait(portrait_of(9), -1)
    stream.set_portrait(portrait_of(9))
    stream.push(video=VIDEO, audio=SOUND)
    stream.finish()
    expected = whole(listener(portrait=portrait_of(9)), samples=2, seed=5)
    assert [content(frame) for frame in stream.pull()] == [content(frame) for frame in expected]


def test_another_portrait_is_shown_from_the_second_frame_of_a_pair_on() -> None:
    stream = listener().stream(seed=5)
    frames, old = first_of_pair(stream, 1)
    stream.set_portrait(portrait_of(9))
    new = next(frames)
    assert new.ledger.frame == 5
    assert not np.array_equal(new.image, old[-1].image)
    assert content(new) == content(whole(listener(portrait=portrait_of(9)), seed=5)[5])


# Input with gaps


def test_frames_keep_the_numbers_and_times_of_input_with_gaps() -> None:
    stream = listener(lookahead=3).stream(speaker=SpeakerSettings(region=REGION), seed=5)
    numbers = [*range(3, 12), *range(20, 24), *range(40, 43), *range(50, 60)]
    for index, number in enumerate(numbers):
        at = Arrival(number, 7 + number / 25, 1000 * number, 1000 * number + 7, av_offset_ns=number)
        stream.push(video=VIDEO[index : index + 1], audio=SOUND[640 * index : 640 * index + 640], arrival=at)
    stream.finish()
    frames = list(stream.pull())
    assert [frame.ledger.frame for frame in frames] == numbers
    assert [frame.time_s for frame in frames] == pytest.approx([7 + number / 25 for number in numbers])
    stamped = [numbers[min(k // HOP * HOP + HOP - 1, len(numbers) - 1)] for k in range(len(numbers))]
    assert [frame.ledger.scheduled for frame in frames] == [1000 * number for number in stamped]
    assert [frame.ledger.read for frame in frames] == [1000 * number + 7 for number in stamped]
    assert [frame.ledger.av_offset_ns for frame in frames] == stamped
    plain = whole(listener(lookahead=3), VIDEO[: len(numbers)], SOUND, region=REGION, seed=5)
    assert [content(frame)[3:] for frame in frames] == [content(frame)[3:] for frame in plain]


def test_numbers_only_grow() -> None:
    stream = listener().stream()
    stream.push(video=VIDEO[:3], audio=SOUND[: 640 * 3], arrival=Arrival(10, 0.4, 0, 0))
    assert stream.next_frame == 13
    with pytest.raises(FeedError, match="Frame 12 comes after frame 12; numbers only grow"):
        stream.push(video=VIDEO[:1], arrival=Arrival(12, 0.5, 0, 0))
    stream.push(video=VIDEO[3:8], audio=SOUND[: 640 * 5])
    assert [frame.ledger.frame for frame in stream.pull()] == list(range(10, 15))


def test_a_picture_does_not_stand_for_a_frame_after_a_gap() -> None:
    stream = listener(lookahead=0).stream()
    for index, number in enumerate([*range(8), *range(20, 28)]):
        at = Arrival(number, number / 25, 0, 0)
        stream.push(video=VIDEO[index : index + 1], audio=SOUND[:640], arrival=at)
    frames = list(stream.pull(Scripted({7: HALF})))
    assert rungs_of(frames)[7:10] == [(7, HALF, 7), (20, FULL, 20), (21, FULL, 21)]


def test_a_pace_is_asked_by_number_where_input_has_gaps() -> None:
    pace = Scripted({})
    stream = listener(lookahead=0).stream()
    for k in range(8):
        stream.push(video=VIDEO[k : k + 1], audio=SOUND[:640], arrival=Arrival(3 * k, 3 * k / 25, 0, 0))
    list(stream.pull(pace))
    assert [frame for frame, _ in pace.asked] == [3 * k for k in range(8)]


def test_after_a_flush_the_motion_goes_on_and_nothing_old_comes() -> None:
    engines, generator, _ = recorded()
    stream = listener(engines=engines, lookahead=3).stream(seed=5)
    stream.push(video=VIDEO[:13], audio=SOUND[: 640 * 13])
    assert len(list(islice(stream.pull(), 3))) == 3
    stream.flush()
    assert not list(stream.pull())
    stream.push(video=VIDEO[13:24], audio=SOUND[640 * 13 : 640 * 24])
    stream.finish()
    assert [frame.ledger.frame for frame in stream.pull()] == list(range(13, 24))
    np.testing.assert_array_equal(generator.feeds[1]["past_reaction"], generator.results[0]["reaction"])
