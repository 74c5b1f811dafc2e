"""Live sessions on a GPU: the frames of the CPU, sessions beside one another, and nothing captured late."""

from __future__ import annotations

from typing import Any

import pytest
from support.fakes import REGION
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import gpu_engines, gpu_listener
from support.grouped import grouped
from support.live.live_sessions import (
    MS,
    START,
    contents,
    offline,
    run,
    speaker,
    still,
    unseen,
    watchdog,  # noqa: F401
)

from pflx.engines.gpu.device import Device
from pflx.runtime import ListenerFrame, LiveSettings, Rung, SpeakerSettings
from pflx.runtime.live.clock import VirtualClock
from pflx.runtime.live.errors import ListenerFullError


class SlowCuda(FakeCuda):
    """A GPU that lets whoever waits for it wait so many ms of a clock, while others go on.

    Attributes:
        overlaps: captured calls that were launched while somebody waited.
    """

    def __init__(self, clock: VirtualClock, ms: float) -> None:
        super().__init__()
        self.overlaps = self._waiting = 0
        self._clock, self._duration = clock, round(ms * MS)

    def wait_host(self, event: int) -> None:
        self._waiting += 1
        self._clock.sleep(self._duration)
        self._waiting -= 1
        super().wait_host(event)

    def launch(self, graph: int, stream: int) -> None:
        self.overlaps += self._waiting > 0
        super().launch(graph, stream)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("capture", [True, False])
def test_a_live_session_on_a_gpu_shows_the_frames_of_the_cpu(samples: int, capture: bool) -> None:
    clock = VirtualClock(START)
    listener = gpu_listener(Device(SlowCuda(clock, 2)), lookahead=3, capture=capture)
    result = run(speaker(45), clock=clock, listener=listener, samples=samples, seed=4)
    assert contents(result.frames) == contents(offline(speaker(45), samples=samples, seed=4))
    assert {frame.degraded for frame in result.frames} == {Rung.FULL}
    assert (result.last.missed, result.last.dropped) == (0, 0)
    listener.close()


def test_two_sessions_on_one_gpu_listener_do_not_mix() -> None:
    """While one waits for the GPU, the other has the engines."""
    clock = VirtualClock(START)
    cuda = SlowCuda(clock, 8)  # long enough for the two to meet, wherever their segments fall
    listener = gpu_listener(Device(cuda), lookahead=3)
    shown: list[list[ListenerFrame]] = [[], []]
    sessions = [
        listener.live(
            speaker(45),
            shown[seed].append,
            seed=seed,
            samples=1 + seed,
            speaker=SpeakerSettings(region=REGION),
            clock=clock,
            settings=LiveSettings(playout_ms=800),
        )
        for seed in range(2)
    ]
    for session in sessions:
        with session:
            assert session.wait()
    for seed in range(2):
        assert contents(shown[seed]) == contents(offline(speaker(45), seed=seed, samples=1 + seed))
        assert {frame.degraded for frame in shown[seed]} == {Rung.FULL}
    assert cuda.overlaps > 0
    listener.close()
    assert (cuda.live, cuda.live_host) == ({}, {})
    assert not still(5)


def test_a_gpu_listener_tells_the_load_of_its_sessions_and_refuses_one_too_many() -> None:
    clock = VirtualClock(START)
    listener = gpu_listener(Device(SlowCuda(clock, 20)), lookahead=3)
    given: dict[str, Any] = {"clock": clock, "region": REGION, "playout_ms": 400}
    with listener.live(speaker(45), unseen, **grouped(given, "speaker", "settings")) as session:
        load = listener.load
        assert 0 < load < 1
        with pytest.raises(ListenerFullError) as caught:
            listener.live(speaker(45), unseen, **grouped(given | {"max_load": load * 1.5}, "speaker", "settings"))
        assert caught.value.load > caught.value.max_load == load * 1.5
        session.wait()
        assert session.stats.dropped == 0
    listener.close()


def test_live_sessions_capture_no_call_that_their_warm_up_has_not_captured() -> None:
    clock = VirtualClock(START)
    device = Device(SlowCuda(clock, 1))
    engines = gpu_engines(device)
    listener = gpu_listener(device, engines=engines, lookahead=3)
    captured: list[int] = []

    def show(session: object, frame: ListenerFrame) -> None:
        captured.append(sum(engine.captures for engine in engines.values()))

    run(speaker(60), clock=clock, listener=listener, show=show)
    assert len(set(captured)) == 1
    listener.close()
