"""A listener on a GPU made of Python: the same frames as on the CPU, and the order in which a hop is worked off.

The fake GPU does nothing before somebody waits for it, and refuses work on the same memory in no order, so that every
frame that is right here has come about by the right events.
"""

from __future__ import annotations

import gc
import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import HOP, fake_engines, fake_listener, frames_of, portrait_of, sound_of
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import gpu_engines, gpu_listener
from support.grouped import grouped
from support.sessions import content
from support.spoilt import all_finite, spoilt

from pflx.engines.gpu.device import Device
from pflx.engines.graphs.protocol import DeviceLostError, EngineError
from pflx.runtime import Listener, ListenerFrame, Rung, Stream
from pflx.runtime.frames.foresight import Foresight
from pflx.runtime.frames.pace import BATCHES, UNHURRIED, Unhurried, largest_batches
from pflx.runtime.speaker.face_track import FaceTrack
from pflx.runtime.stream.chain import seeded_noise
from pflx.runtime.stream.stream import Look

N = 44
VIDEO, SOUND = frames_of(N), sound_of(N)


def cuda_of(device: Device) -> FakeCuda:
    assert isinstance(device.cuda, FakeCuda)
    return device.cuda


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device(FakeCuda())
    yield made
    made.close()


def push(stream: Stream, first: int, last: int) -> None:
    stream.push(video=VIDEO[first:last], audio=SOUND[640 * first : 640 * last])


def reaction(listener: Listener, step: int = N, **options: Any) -> list[ListenerFrame]:
    frames: list[ListenerFrame] = []
    with listener.stream(seed=5, **grouped(options, "speaker")) as stream:
        for first in range(0, N, step):
            push(stream, first, first + step)
            frames += stream.pull()
        stream.finish()
        return frames + list(stream.pull())


def test_turns_and_cues_give_the_frames_of_the_cpu() -> None:
    def told(listener: Listener) -> list[Any]:
        with listener.stream(seed=5, samples=2) as stream:
            stream.set_turn("speaking", frame=10)
            stream.set_turn("listening", frame=27)
            stream.cue("nod", frame=20)
            push(stream, 0, N)
            stream.finish()
            return [(content(frame), frame.events) for frame in stream.pull()]

    assert told(gpu_listener(lookahead=3)) == told(fake_listener(lookahead=3))


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("lookahead", [0, 3, 13])
def test_the_frames_are_those_of_the_cpu_bit_for_bit(
    device: Device, lookahead: int, samples: int, capture: bool
) -> None:
    expected = list(map(content, reaction(fake_listener(lookahead=lookahead), samples=samples)))
    listener = gpu_listener(device, lookahead=lookahead, capture=capture)
    assert listener.device == "cuda:0"
    for step in (N, 8, 5):
        assert list(map(content, reaction(listener, step, samples=samples))) == expected


@pytest.mark.parametrize("chain", [{"posnet": False}, {"generator_history": "adjusted"}])
def test_the_same_without_posnet_and_with_a_past_after_it(device: Device, chain: dict[str, Any]) -> None:
    expected = list(map(content, reaction(fake_listener(lookahead=3, **chain), samples=2)))
    listener = gpu_listener(device, lookahead=3, **chain)
    for step in (N, 5):
        assert list(map(content, reaction(listener, step, samples=2))) == expected
    assert expected != list(map(content, reaction(fake_listener(lookahead=3), samples=2)))


def test_the_same_with_foresight(device: Device) -> None:
    weights = np.random.default_rng(3).normal(0, 0.5, (58, 13, 4)).astype(np.float32)
    options: dict[str, Any] = {"lookahead": 3, "foresight": Foresight(weights, HOP)}
    expected = list(map(content, reaction(fake_listener(**options), samples=2)))
    listener = gpu_listener(device, **options)
    for step in (N, 5):
        assert list(map(content, reaction(listener, step, samples=2))) == expected
    assert expected != list(map(content, reaction(fake_listener(lookahead=3), samples=2)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 12)), max_size=12), st.sampled_from([0, 3, 13]))
def test_any_chunking_and_any_way_of_pulling_gives_them(cuts: list[tuple[int, int]], lookahead: int) -> None:
    expected = list(map(content, reaction(fake_listener(lookahead=lookahead))))
    frames: list[ListenerFrame] = []
    with gpu_listener(lookahead=lookahead) as listener, listener.stream(seed=5) as stream:
        first = 0
        for size, taken in cuts:
            push(stream, first, min(N, first + size))
            first = min(N, first + size)
            frames += itertools.islice(stream.pull(), taken)
        push(stream, first, N)
        stream.finish()
        frames += stream.pull()
    assert list(map(content, frames)) == expected


def hop_events(device: Device, listener: Listener, *, hops: int = 1) -> list[str]:
    """What is put on streams, and where the host waits, while a stream that is warm takes in some segments at once."""
    cuda = cuda_of(device)
    reaction(listener, HOP)
    listener.chain.renderer.warm_up(listener.chain.portraits[0])
    with listener.stream(seed=5) as stream:
        for first in range(0, 24, HOP):
            push(stream, first, first + HOP)
            list(stream.pull())
        cuda.events.clear()
        push(stream, 24, 24 + hops * HOP)
        for _ in stream.pull():
            cuda.events.append(("frame", 0))
        return [name for name, _ in cuda.events]


def test_between_the_input_of_a_hop_and_its_last_picture_being_begun_the_host_never_waits(device: Device) -> None:
    events = hop_events(device, gpu_listener(device))
    begun = max(index for index, name in enumerate(events) if name == "pirender_frame")
    assert "reactface_speaker" in events[:begun]
    assert "host waits" not in events[:begun]
    assert events.count("pirender_frame") == 1  # eight pictures in one call
    assert events.count("frame") == HOP


def test_a_picture_is_on_its_way_to_the_host_before_the_next_batch_is_rendered(device: Device) -> None:
    events = hop_events(device, gpu_listener(device), hops=2)
    first, second = (index for index, name in enumerate(events) if name == "pirender_frame")
    assert "copy" in events[first:second]


def test_the_next_segment_is_generated_while_the_pictures_of_the_last_one_are_rendered(device: Device) -> None:
    events = hop_events(device, gpu_listener(device), hops=2)
    generated = [index for index, name in enumerate(events) if name == "reactface_speaker"]
    rendered = [index for index, name in enumerate(events) if name == "pirender_frame"]
    first_frame = events.index("frame")
    assert generated[0] < rendered[0] < generated[1] < first_frame < rendered[1]


def test_a_stream_that_is_warm_allocates_nothing_and_captures_nothing(device: Device) -> None:
    listener, cuda = gpu_listener(device), cuda_of(device)
    for _ in range(4):
        reaction(listener, HOP)
    before = {name: cuda.calls[name] for name in ("malloc", "malloc_host", "create_event", "begin_capture")}
    for _ in range(5):
        reaction(listener, HOP)
    assert {name: cuda.calls[name] for name in before} == before


def test_only_pictures_and_numbers_of_a_segment_leave_the_gpu_and_pictures_as_bytes(device: Device) -> None:
    cuda, listener = cuda_of(device), gpu_listener(device)
    sizes: list[int] = []
    copy = cuda.copy

    def watched(target: int, source: int, size: int, stream: int) -> None:
        if any(address <= target < address + block.nbytes for address, block in cuda.live_host.items()):
            sizes.append(size)
        copy(target, source, size, stream)

    cuda.copy = watched  # type: ignore[method-assign]
    frames = reaction(listener, HOP)
    picture = frames[0].image.nbytes
    assert sizes.count(picture) == N
    assert max(size for size in sizes if size != picture) <= HOP * 58 * 4


@pytest.mark.parametrize("step", [1, 5, 8, N])
def test_looking_at_the_speaker_apart_from_the_engines_gives_the_same_frames(device: Device, step: int) -> None:
    """What a live session does whose detector is its own."""
    expected = list(map(content, reaction(fake_listener(lookahead=3), samples=2)))
    for listener in (fake_listener(lookahead=3), gpu_listener(device, lookahead=3)):
        chain = replace(listener.chain, looks_alone=True)
        stream = Stream(chain, samples=2, noise=seeded_noise(5), track=FaceTrack())
        made: list[ListenerFrame] = []
        looks = 0
        for first in range(0, N, step):
            push(stream, first, min(N, first + step))
            if first + step >= N:
                stream.finish()
            for item in stream.work():
                if isinstance(item, ListenerFrame):
                    made.append(item)
                else:
                    looks += isinstance(item, Look)
                    item.wait()
        assert list(map(content, made)) == expected
        assert looks >= N // HOP
        stream.close()


def test_the_numbers_of_a_segment_are_looked_at_before_its_pictures_are_waited_for(device: Device) -> None:
    listener, cuda = gpu_listener(device, lookahead=0), cuda_of(device)
    with listener.stream(seed=5) as stream:
        push(stream, 0, HOP)
        shapes = []
        for item in stream.work():
            if not isinstance(item, ListenerFrame | Look):
                shapes.append(item.wait().shape)
        assert shapes == [(1, HOP, 58), *[(64, 64, 3)] * HOP]
    assert cuda.calls["wait_host"]


# What a stream can do besides


def test_a_snapshot_taken_in_the_middle_goes_on_on_the_cpu_and_on_another_gpu(device: Device) -> None:
    expected = list(map(content, reaction(fake_listener(lookahead=3), samples=2)))
    for taken in (0, 5, 17, 24):
        with gpu_listener(device, lookahead=3).stream(seed=5, samples=2) as stream:
            push(stream, 0, 30)
            frames = list(itertools.islice(stream.pull(), taken))
            snapshot = stream.snapshot()
        assert all(isinstance(value, np.ndarray) for value in snapshot.values())
        for other in (fake_listener(lookahead=3), gpu_listener(lookahead=3)):
            with other.resume(snapshot, seed=5) as stream:
                push(stream, 30, N)
                stream.finish()
                assert list(map(content, [*frames, *stream.pull()])) == expected


def test_another_portrait_is_shown_from_the_next_frame_on(device: Device) -> None:
    shown = {}
    for name, listener in (("cpu", fake_listener()), ("gpu", gpu_listener(device, lookahead=0))):
        with listener.stream(seed=5) as stream:
            push(stream, 0, 24)
            frames = list(itertools.islice(stream.pull(), 11))
            stream.set_portrait(portrait_of(7))
            frames += stream.pull()
            shown[name] = list(map(content, frames))
    assert shown["gpu"] == shown["cpu"]


def test_flush_drops_what_is_under_way(device: Device) -> None:
    left = {}
    for name, listener in (("cpu", fake_listener()), ("gpu", gpu_listener(device, lookahead=0))):
        with listener.stream(seed=5) as stream:
            push(stream, 0, 24)
            frames = list(itertools.islice(stream.pull(), 3))
            stream.flush()
            push(stream, 24, N)
            stream.finish()
            left[name] = [frame.ledger.frame for frame in [*frames, *stream.pull()]]
    assert left["cpu"][:3] == left["gpu"][:3] == [0, 1, 2]
    assert left["gpu"][-1] == N - 1
    assert len(set(left["gpu"])) == len(left["gpu"])


class Choosing(Unhurried):
    """Takes the rungs that it is told, frame by frame."""

    def __init__(self, rungs: Mapping[int, Rung]) -> None:
        self._rungs = rungs

    def rung(self, frame: int, *, ahead: int) -> Rung:
        return self._rungs.get(frame, Rung.FULL)


@pytest.mark.parametrize(
    "rungs",
    [
        {3: Rung.HALF_RATE, 10: Rung.HOLD, 11: Rung.HOLD},
        {0: Rung.HOLD, 7: Rung.HALF_RATE, 20: Rung.HALF_RATE, 22: Rung.HALF_RATE},
        dict.fromkeys(range(0, N, 2), Rung.HALF_RATE),
        dict.fromkeys(range(5, 30), Rung.HOLD),
    ],
)
def test_every_rung_of_the_ladder_gives_what_it_gives_on_the_cpu(device: Device, rungs: dict[int, Rung]) -> None:
    made = {}
    for name, listener in (("cpu", fake_listener(lookahead=3)), ("gpu", gpu_listener(device, lookahead=3))):
        with listener.stream(seed=5, samples=2) as stream:
            push(stream, 0, N)
            stream.finish()
            made[name] = [(*content(frame), frame.degraded) for frame in stream.pull(Choosing(rungs))]
    assert made["gpu"] == made["cpu"]


@pytest.mark.parametrize("taken", [1, 3, 5])
def test_what_is_recalled_in_the_middle_of_a_frame_is_begun_again_for_the_rest_of_it(
    device: Device, taken: int
) -> None:
    """What was chosen for later frames, which were under way already, is not what this frame gets."""
    with gpu_listener(device, lookahead=0).stream(seed=5, samples=2) as stream:
        push(stream, 0, 24)
        pace = Choosing({4: Rung.HOLD, 9: Rung.HOLD, 12: Rung.HALF_RATE})
        frames = list(itertools.islice(stream.pull(pace), taken))
        stream.set_portrait(portrait_of(7))
        frames += stream.pull(pace)
    expected = [(at, sample) for at in range(24) if at not in (4, 9) for sample in (0, 1)]
    assert [(frame.ledger.frame, frame.sample) for frame in frames] == expected


@pytest.mark.parametrize(
    ("graph", "name", "rows"),
    [
        ("reactface_listener", "reaction", (slice(None), slice(2, 5))),
        ("reactface_listener", "motion", (0,)),
        ("posnet", "smoothed", (slice(None), slice(0, 2))),
        ("posnet", "pose", (slice(None),)),
    ],
)
def test_numbers_that_are_not_finite_are_held_as_on_the_cpu(
    device: Device, graph: str, name: str, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The pictures that were begun with them are begun again."""
    found = {}
    for where in ("cpu", "gpu"):
        function = spoilt(graph, name, {3}, rows, np.nan)
        if where == "cpu":
            listener = fake_listener(fake_engines(**{graph: function}))
        else:
            listener = gpu_listener(
                device, engines=gpu_engines(device, capture=False, **{graph: function}), lookahead=0
            )
        with caplog.at_level(logging.WARNING), listener.stream(seed=5, samples=2) as stream:
            push(stream, 0, N)
            stream.finish()
            frames = list(stream.pull())
            found[where] = (list(map(content, frames)), stream.repaired)
        assert all_finite(frames)
    assert found["gpu"] == found["cpu"]


# How it fails and ends


def test_a_gpu_that_is_lost_in_a_hop_is_told_and_a_snapshot_goes_on_elsewhere(device: Device) -> None:
    cuda = cuda_of(device)
    frames: list[ListenerFrame] = []
    expected = list(map(content, reaction(fake_listener())))
    listener = gpu_listener(device, lookahead=0)
    with listener.stream(seed=5) as stream:
        push(stream, 0, 24)
        frames += stream.pull()
        snapshot = stream.snapshot()
        push(stream, 24, 32)
        cuda.fail["wait_host"] = DeviceLostError("cuda:0: cudaEventSynchronize failed with cudaErrorLaunchFailure")
        with pytest.raises(DeviceLostError, match="cudaErrorLaunchFailure"):
            list(stream.pull())
    cuda.fail["synchronize"] = DeviceLostError("still lost")
    listener.close()  # tells nothing new
    with fake_listener().resume(snapshot, seed=5) as stream:
        push(stream, 24, N)
        stream.finish()
        assert list(map(content, [*frames, *stream.pull()])) == expected


def test_a_call_that_fails_leaves_the_stream_as_it_was(device: Device) -> None:
    cuda = cuda_of(device)
    expected = list(map(content, reaction(fake_listener(), HOP)))
    frames: list[ListenerFrame] = []
    with gpu_listener(device, lookahead=0).stream(seed=5) as stream:
        for first in range(0, 40, HOP):
            push(stream, first, first + HOP)
            cuda.fail["copy"] = EngineError("once")
            with pytest.raises(EngineError, match="once"):
                frames += stream.pull()
            frames += stream.pull()
        push(stream, 40, N)
        stream.finish()
        frames += stream.pull()
    assert list(map(content, frames)) == expected


def test_opening_and_closing_a_hundred_times_leaves_nothing() -> None:
    cuda = FakeCuda()
    for _ in range(100):
        listener = gpu_listener(Device(cuda))
        with listener.stream(seed=5) as stream:
            push(stream, 0, 8)
            next(stream.pull(), None)
        listener.close()
        listener.close()
        assert not cuda.live
        assert not cuda.live_host
    gc.collect()
    assert cuda.graphs == 0
    for made, dropped in (("create_stream", "destroy_stream"), ("create_event", "destroy_event")):
        assert cuda.calls[made] == cuda.calls[dropped]


# Batches


@given(st.integers(0, 200))
def test_batches_add_up_and_their_sizes_are_few(count: int) -> None:
    sizes = largest_batches(count)
    assert sum(sizes) == count
    assert set(sizes) <= set(BATCHES)
    assert list(UNHURRIED.batches(count)) == sizes
    assert len(sizes) <= count // 8 + 3


def test_warming_up_captures_every_batch(device: Device) -> None:
    listener = gpu_listener(device)
    renderer, engines = listener.chain.renderer, dict(listener._engines)
    renderer.warm_up(listener.chain.portraits[0])
    assert engines["pirender_frame"].captures == len(BATCHES)  # type: ignore[attr-defined]
    engines = fake_engines()
    cpu = fake_listener(engines)
    cpu.chain.renderer.warm_up(cpu.chain.portraits[0])
    assert engines["pirender_frame"].calls == 0  # type: ignore[attr-defined] # nothing to capture there
