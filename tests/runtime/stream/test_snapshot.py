"""Snapshots: a stream that stops anywhere goes on identically, here or in another process."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SIZE
from support.places import TESTS
from support.sessions import ACTIONS, EXPECTED, SOUND, VIDEO, Action, Session, content, listener, whole

from pflx.engines import Array
from pflx.runtime import StreamError
from pflx.runtime.frames.snapshot import sealed


def through_a_file(snapshot: Mapping[str, Array]) -> dict[str, Array]:
    file = io.BytesIO()
    plain: dict[str, Any] = dict(snapshot)
    np.savez(file, **plain)
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


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
from support.sessions import SOUND, VIDEO, listener

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
    tests = str(TESTS)
    paths = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=os.environ | {"PYTHONPATH": paths}, check=True
    )


def test_a_new_process_goes_on_identically_from_any_point(tmp_path: Path) -> None:
    """Before anything, with input waiting, in the middle of a pull, between segments, after the end."""
    given: dict[str, Any] = {}
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


def resealed(snapshot: Mapping[str, Array], **changes: Any) -> dict[str, Array]:
    """As whoever knows how they are sealed would change it; None takes an array away."""
    arrays = {name: value for name, value in snapshot.items() if name not in ("checksum", "schema")} | changes
    return sealed({name: value for name, value in arrays.items() if value is not None})


def test_what_is_no_snapshot_is_refused() -> None:
    stream = listener().stream(samples=2)
    snapshot = stream.snapshot()
    others: list[tuple[Any, str]] = [
        ({}, "it has no schema number and checksum"),
        ({"samples": np.array([2])}, "it has no schema number and checksum"),
        ({"samples": "two"}, "'samples' is no array of numbers"),
        ({"samples": np.array([None])}, "'samples' is no array of numbers"),
        (snapshot | {"counts": np.array([1])}, "its checksum is of something else: it was changed or damaged since"),
        (snapshot | {"schema": np.array([1])}, "it is of schema [1], this pflx reads 4"),
        (resealed(snapshot, portraits=np.zeros((1, 31), np.uint8)), "the hashes of its portraits are none"),
        (resealed(snapshot, portraits=np.zeros((0, 32), np.uint8)), "the hashes of its portraits are none"),
        (resealed(snapshot, counts=np.array([1])), "its counts are none"),
        (resealed(snapshot, counts=None), "it has no 'counts'"),
        (resealed(snapshot, counts=np.array([-1, 0, 0, -1])), "its counts are below 0"),
        (resealed(snapshot, counts=np.array([0, 1 << 60, 0, -1])), "its counts are too large"),
        (resealed(snapshot, counts=np.array([16, 2, 0, -1])), "segments are missing"),
        (resealed(snapshot, **{"inbox.video": np.zeros((3, 4, 4), np.uint8)}), "its pictures are none"),
        (resealed(snapshot, **{"inbox.audio": np.full(3, np.nan, np.float32)}), "its sound is none"),
        (resealed(snapshot, **{"speaker.face.region": np.array([0, 0, 60_000, 60_000])}), "its region is none"),
        (resealed(snapshot, **{"speaker.face.watch": np.array([77, 0])}), "77 is not a valid FaceState"),
        (resealed(snapshot, **{"smoother.last_pose": np.zeros((1, 6), np.float32)}), "its last pose is none"),
    ]
    for broken, why in others:
        with pytest.raises(StreamError, match=re.escape(f"This is no snapshot of a stream ({why}).")):
            listener().resume(broken)
    with pytest.raises(StreamError, match="2 samples, the stream 1"):
        listener().stream(samples=1).restore(snapshot)


def midway() -> dict[str, Array]:
    stream = listener().stream(samples=2, seed=5)
    stream.push(video=VIDEO[:20], audio=SOUND)
    list(islice(stream.pull(), 5))
    return stream.snapshot()


MIDWAY = midway()


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_is_changed_in_a_snapshot_it_is_taken_or_refused_in_one_line(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(MIDWAY.keys() - {"checksum", "schema"})))
    old = MIDWAY[name]
    shape = data.draw(st.sampled_from([old.shape, (*old.shape, 1), (0,), (1,), old.shape[::-1], (2, 3, 5)]))
    dtype: Any = data.draw(st.sampled_from([old.dtype, np.float64, np.int8, np.int64, np.uint8, np.bool_, np.float32]))
    value = data.draw(st.sampled_from([0, 1, -1, 127, 2**31, 2**62, float("inf"), float("nan")]))
    with np.errstate(all="ignore"):
        changed = (
            np.resize(old, shape).astype(dtype) if data.draw(st.booleans()) else np.full(shape, value).astype(dtype)
        )
    stream = listener().stream(samples=2, seed=5)
    snapshot = resealed(MIDWAY, **{name: changed})
    try:
        stream.restore(snapshot)
    except StreamError as error:
        said = str(error)
        assert "\n" not in said
        return
    if snapshot["counts"][3] < 0:  # else it is that of a stream that was finished
        stream.push(video=VIDEO[20:])
    stream.finish()
    assert all(frame.image.shape == (4, 4, 3) or frame.image.ndim == 3 for frame in stream.pull())


def test_a_snapshot_knows_its_seed() -> None:
    stream = listener().stream(seed=7)
    stream.push(video=VIDEO[:20], audio=SOUND)
    frames = list(stream.pull())
    with pytest.raises(StreamError, match=r"of seed 7, the stream of 5\. Give it the same"):
        listener().resume(stream.snapshot(), seed=5)
    resumed = listener().resume(stream.snapshot())
    resumed.push(video=VIDEO[20:])
    resumed.finish()
    expected = [content(frame) for frame in whole(listener(), seed=7)]
    assert [content(frame) for frame in [*frames, *resumed.pull()]] == expected


def test_a_snapshot_knows_what_was_shown(caplog: pytest.LogCaptureFixture) -> None:
    mine, other = (np.full((64, 64, 3), level, np.uint8) for level in (90, 160))
    stream = listener().stream(samples=2, seed=7)
    stream.set_portrait(mine, sample=1)
    stream.push(video=VIDEO[:20], audio=SOUND)
    before = list(stream.pull())
    snapshot = through_a_file(stream.snapshot())
    np.testing.assert_array_equal(snapshot["portraits"][1], np.frombuffer(hashlib.sha256(square(mine)).digest(), "u1"))
    other_stream = listener().resume(snapshot)
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [1]
    assert "Its motion goes on with this one; set that portrait to go on with the same." in caplog.text
    caplog.clear()
    listener().resume(snapshot, portrait=other)  # sample 0 showed the listener's
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [0, 1]
    caplog.clear()
    resumed = listener().stream(samples=2, seed=7)
    resumed.set_portrait(mine, sample=1)
    resumed.restore(snapshot)
    assert not caplog.records
    for each in (resumed, other_stream):
        each.push(video=VIDEO[20:])
        each.finish()
    frames, others = list(resumed.pull()), list(other_stream.pull())
    for one, two in zip(frames, others, strict=True):
        np.testing.assert_array_equal(one.coefficients, two.coefficients)
        assert (one.image.tobytes() == two.image.tobytes()) == (one.sample == 0)
    assert len(before) + len(frames) == 2 * len(VIDEO)


def square(portrait: Array) -> bytes:
    """What the fake renderer is given of a portrait."""
    return np.full((SIZE, SIZE, 3), portrait[0, 0], np.uint8).tobytes()


def test_a_noise_of_ones_own_has_no_seed() -> None:
    stream = listener().stream(seed=lambda segment, sample, size: np.zeros(size, np.float32))
    assert stream.snapshot()["seed"].size == 0
    listener().resume(stream.snapshot(), seed=5)


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


def test_a_snapshot_of_another_generator_is_refused() -> None:
    snapshot = listener().stream().snapshot()
    for changed in (
        {"generator.past_motion": np.zeros((1, 64), np.float32)},
        {"generator.past_reaction": np.zeros((1, 16, 58), np.float32)},
    ):
        with pytest.raises(StreamError, match="another generator"):
            listener().resume(resealed(snapshot, **changed))


def test_an_open_npz_file_is_a_snapshot(tmp_path: Path) -> None:
    stream = listener().stream(seed=5)
    stream.push(video=VIDEO, audio=SOUND)
    frames = list(islice(stream.pull(), 10))
    saved: dict[str, Any] = dict(stream.snapshot())
    np.savez_compressed(tmp_path / "snapshot.npz", **saved)
    with np.load(tmp_path / "snapshot.npz", allow_pickle=False) as file:
        resumed = listener().resume(file, seed=5)
    resumed.finish()
    assert [content(frame) for frame in [*frames, *resumed.pull()]] == EXPECTED[1]
