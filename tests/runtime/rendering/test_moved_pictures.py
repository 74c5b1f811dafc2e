"""Pictures that are late, and in a live session are the last one moved by the weightless renderer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.fakes import fake_engines, fake_listener, frames_of, portrait_of, sound_of
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import FunctionContext, gpu_engines, gpu_listener
from support.live.live_sessions import (
    START,
    Run,
    costly,
    run,
    speaker,
    watchdog,  # noqa: F401
)
from support.rendering.previews import preview_manifest, put_face, warp_engines

from pflx.engines import Array, Engine, FakeEngine, FeedError
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine
from pflx.runtime import Listener, ListenerFrame, LiveSession, LiveSettings, Rung
from pflx.runtime.bundle_engines import stream_of
from pflx.runtime.frames.coefficients import POSE
from pflx.runtime.frames.pace import Unhurried
from pflx.runtime.live.clock import VirtualClock

Picture = npt.NDArray[np.uint8]


@pytest.fixture
def a_face(monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.float32]:
    """A face is found in every portrait."""
    return put_face(monkeypatch)


def moving(clock: VirtualClock, *, render: float) -> Listener:
    engines = {**costly(clock, render=render, generate=10), **warp_engines()}
    return fake_listener(engines, lookahead=3, manifest=preview_manifest())


def test_a_late_picture_is_the_last_one_moved_by_the_difference_of_the_poses(a_face: npt.NDArray[np.float32]) -> None:
    clock = VirtualClock(START)
    listener = moving(clock, render=150)
    result = run(speaker(120), clock=clock, listener=listener)
    warped = [frame for frame in result.frames if frame.degraded is Rung.WARPED]
    assert len(warped) > 40
    rendered = [frame for frame in result.frames if frame.degraded in (Rung.FULL, Rung.HALF_RATE)]
    checked = 0
    for frame in warped:
        for anchor in rendered:
            if np.array_equal(frame.coefficients[: POSE.start], anchor.coefficients[: POSE.start]):
                assert frame.ledger.picture == frame.ledger.frame
                assert frame.image.shape == anchor.image.shape
                assert not np.array_equal(frame.image, anchor.image)
                checked += 1
    assert checked > 20


def test_it_takes_the_place_of_holding_and_pictures_are_new_more_often(a_face: npt.NDArray[np.float32]) -> None:
    def session(listener: Listener, clock: VirtualClock) -> Run:
        return run(speaker(160), clock=clock, listener=listener)

    clock = VirtualClock(START)
    moved = session(moving(clock, render=150), clock)
    clock = VirtualClock(START)
    held = session(fake_listener(costly(clock, render=150, generate=10), lookahead=3), clock)
    assert held.last.rungs["WARPED"] == 0
    assert moved.last.rungs["HOLD"] < 0.1 * held.last.rungs["HOLD"]
    assert moved.last.rungs["HALF_RATE"] >= held.last.rungs["HALF_RATE"]
    new = [len({frame.image.tobytes() for frame in result.frames}) for result in (held, moved)]
    assert new[1] > 2 * new[0]
    assert moved.last.missed == held.last.missed == 160


def test_with_time_enough_nothing_is_moved(a_face: npt.NDArray[np.float32]) -> None:
    clock = VirtualClock(START)
    result = run(speaker(60), clock=clock, listener=moving(clock, render=5))
    assert {frame.degraded for frame in result.frames} == {Rung.FULL}


def test_moving_costs_no_time_in_the_prediction_of_rendering(a_face: npt.NDArray[np.float32]) -> None:
    clock = VirtualClock(START)
    result = run(speaker(120), clock=clock, listener=moving(clock, render=150))
    assert result.last.rungs["WARPED"] > 20
    assert result.last.cost_ms["render"] == pytest.approx(150)


def test_no_frame_is_worse_than_this_floor(a_face: npt.NDArray[np.float32]) -> None:
    clock = VirtualClock(START)
    result = run(speaker(120), clock=clock, listener=moving(clock, render=150), floor=Rung.WARPED, stale_ms=60_000)
    assert max(frame.degraded for frame in result.frames) is Rung.WARPED


def test_this_floor_is_refused_where_there_is_no_preview() -> None:
    clock = VirtualClock(START)
    listener = fake_listener(costly(clock))
    with pytest.raises(FeedError, match=r"floor is Rung.WARPED, and the bundle has no preview"):
        listener.live(speaker(8), lambda frame: None, settings=LiveSettings(floor=Rung.WARPED), clock=clock)


def test_a_portrait_without_a_face_has_its_pictures_held(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock(START)
    listener = moving(clock, render=150)  # whose portrait is noise
    assert "are held, not moved" in caplog.text
    result = run(speaker(80), clock=clock, listener=listener)
    assert result.last.rungs["WARPED"] == 0
    assert result.last.rungs["HOLD"] > 20


def test_after_a_change_of_the_portrait_no_picture_of_the_old_one_is_moved(
    a_face: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualClock(START)
    listener = moving(clock, render=150)
    moved: list[Picture] = []
    rendered: list[tuple[Picture, bool]] = []  # and whether of the new portrait
    renderer, other = listener.chain.renderer, portrait_of(9)
    move, render = renderer.move, renderer.render

    def watched_move(image: Picture, shown: Any, wanted: Any, features: Any) -> Array:
        moved.append(image)
        fits = [new for one, new in rendered if np.array_equal(one, image)]
        assert fits == [bool((features["source"][0, 0] == np.float32(other[..., 0]) / np.float32(255)).all())]
        return move(image, shown, wanted, features)

    def watched_render(track: Array, count: int, features: Any) -> Array:
        images = render(track, count, features)
        is_new = bool((features["source"][0, 0] == np.float32(other[..., 0]) / np.float32(255)).all())
        rendered.extend((np.array(image), is_new) for image in images)
        return images

    monkeypatch.setattr(renderer, "move", watched_move)
    monkeypatch.setattr(renderer, "render", watched_render)

    def show(session: LiveSession, frame: ListenerFrame) -> None:
        if frame.ledger.frame == 60:
            session.set_portrait(other)

    result = run(speaker(140), clock=clock, listener=listener, show=show)
    assert {new for _, new in rendered} == {False, True}
    assert result.last.rungs["WARPED"] > 40
    assert len(moved) > 40


class _Moving(Unhurried):
    """Moves pictures in the place of some frames."""

    def rung(self, frame: int, *, ahead: int) -> Rung:
        return Rung.WARPED if 12 <= frame < 18 else Rung.FULL


def test_pictures_are_moved_on_a_gpu_too(a_face: npt.NDArray[np.float32]) -> None:
    manifest, device = preview_manifest(), Device(FakeCuda())
    engines: dict[str, Engine] = dict(gpu_engines(device))
    for graph, made in warp_engines().items():
        assert isinstance(made, FakeEngine)
        order = device.streams.named(stream_of(manifest, graph))
        context = FunctionContext(made.run, made.inputs, made.outputs, device, order, graph)
        engines[graph] = DeviceEngine(graph, context, device, order)
    frames = {}
    for listener in (
        fake_listener({**fake_engines(), **warp_engines()}, manifest=manifest),
        gpu_listener(device, engines=engines, manifest=manifest, lookahead=0),
    ):
        with listener.stream(samples=2) as stream:
            stream.push(video=frames_of(32), audio=sound_of(32))
            stream.finish()
            frames[listener.device] = list(stream.pull(_Moving()))
    for device_frames in frames.values():
        assert [frame.ledger.frame for frame in device_frames] == [at for at in range(32) for _ in (0, 1)]
        moved = [frame for frame in device_frames if frame.degraded is Rung.WARPED]
        assert [frame.ledger.frame for frame in moved] == [at for at in range(12, 18) for _ in (0, 1)]
    for one, other in zip(*frames.values(), strict=True):
        if one.degraded is Rung.FULL:
            np.testing.assert_array_equal(one.image, other.image)
        else:  # of an earlier picture on the GPU, where those between are under way
            np.testing.assert_array_equal(one.coefficients[POSE], other.coefficients[POSE])
            assert other.image.shape == one.image.shape
