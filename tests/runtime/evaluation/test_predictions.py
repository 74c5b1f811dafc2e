"""Reading predictions and what they are held against: every shape that is taken, and one clear line for others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.predictions import numbers, of_run

from pflx.engines import Array
from pflx.runtime.evaluation import InputError, InputMissingError, read_neighbours, read_predictions, read_track


@pytest.mark.parametrize("shape", [(3, 2, 10, 25), (2, 10, 58)])
@pytest.mark.parametrize("suffix", ["npy", "npz", "keyed.npz"])
def test_an_array_is_taken_alone_or_by_its_name(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    path, array = tmp_path / f"pred.{suffix}", numbers(*shape)
    if suffix == "npy":
        np.save(path, array)
    else:
        content: dict[str, Any] = {"pred": array, "other": numbers(3)} if "keyed" in suffix else {"whatever": array}
        np.savez(path, **content)
    found = read_predictions(path)
    assert [*found.tracks] == ["predictions"]
    np.testing.assert_array_equal(found.tracks["predictions"], array.reshape(-1, *shape[-3:]))
    assert (found.hop, found.fps, found.untrained, found.listener) == (None, None, None, None)


def test_all_that_came_with_the_predictions_is_taken(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "pred": numbers(2, 1, 5, 3),
        "listener_gt": numbers(2, 5, 3),
        "speaker": numbers(2, 5, 3),
    }
    np.savez(tmp_path / "all.npz", neighbour=np.eye(2), **content)
    found = read_predictions(tmp_path / "all.npz")
    for array, expected in (
        (found.listener, content["listener_gt"]),
        (found.speaker, content["speaker"]),
        (found.neighbours, np.eye(2)),
    ):
        assert array is not None
        np.testing.assert_array_equal(array, expected)


def test_a_run_has_a_track_with_posnet_and_one_with_the_generators_pose(tmp_path: Path) -> None:
    path = of_run(tmp_path / "run.npz", untrained=np.array(7), emotion=numbers(2, 30, 25))
    found = read_predictions(path)
    assert [*found.tracks] == ["with PosNet", "without PosNet", "emotion"]
    with np.load(path) as written:
        np.testing.assert_array_equal(found.tracks["with PosNet"][0], written["coefficients"])
        np.testing.assert_array_equal(found.tracks["without PosNet"][0, ..., :52], written["coefficients"][..., :52])
        np.testing.assert_array_equal(found.tracks["without PosNet"][0, ..., 52:], written["generated_pose"])
        np.testing.assert_array_equal(found.tracks["emotion"][0], written["emotion"])
    assert (found.shape, found.hop, found.fps, found.untrained) == ((1, 2, 30), 8, 25, 7)


def test_a_run_without_posnet_has_one_track_and_the_file_tells_how_it_was_made(tmp_path: Path) -> None:
    words = {"crop": np.array("floating"), "generator_history": np.array("adjusted")}
    found = read_predictions(of_run(tmp_path / "run.npz", posnet=np.array(False), emotion=numbers(2, 30, 25), **words))
    assert [*found.tracks] == ["without PosNet", "emotion"]
    np.testing.assert_array_equal(found.tracks["without PosNet"][0], numbers(2, 30, 58))
    assert found.chain == ("without PosNet", "crop floating", "generator history adjusted")
    words = {"crop": np.array("release"), "generator_history": np.array("generated")}
    found = read_predictions(of_run(tmp_path / "run.npz", posnet=np.array(True), **words))
    assert [*found.tracks] == ["with PosNet", "without PosNet"]
    assert found.chain == ("crop release",)


@pytest.mark.parametrize("name", ["crop", "generator_history"])
@pytest.mark.parametrize("value", [np.array(["pfl", "floating"]), np.array(3), np.array([], "U1"), np.array(b"pfl")])
def test_what_is_no_word_is_refused(tmp_path: Path, name: str, value: Array) -> None:
    with pytest.raises(InputError, match=rf"run\.npz: {name} is .*, not a word\."):
        read_predictions(of_run(tmp_path / "run.npz", **{name: value}))


def test_whole_numbers_and_booleans_are_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((1, 5, 3), np.int8))
    np.save(tmp_path / "b.npy", np.ones((4, 4), bool))
    assert read_predictions(tmp_path / "a.npy").tracks["predictions"].dtype == np.float64
    assert read_neighbours(tmp_path / "b.npy", 4).sum() == 16


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_with_its_file_and_frame(tmp_path: Path, value: float) -> None:
    pred, track = numbers(2, 3, 10, 25), numbers(2, 10, 25)
    pred[1, 2, 7, 4] = track[1, 3, 24] = value
    np.save(tmp_path / "pred.npy", pred)
    np.save(tmp_path / "speaker.npy", track)
    where = f"pred.npy is {value} at clip 1, sample 2, frame 7, feature 4"
    with pytest.raises(InputError, match=where):
        read_predictions(tmp_path / "pred.npy")
    with pytest.raises(InputError, match=f"speaker.npy is {value} at clip 1, frame 3, feature 24"):
        read_track(tmp_path / "speaker.npy", "speaker")
    broken = numbers(2, 30, 6)
    broken[1, 29, 5] = value
    with pytest.raises(InputError, match=f"run.npz is {value} at clip 0, sample 1, frame 29, feature 57"):
        read_predictions(of_run(tmp_path / "run.npz", generated_pose=broken))


def pickled(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.array([{}], object), allow_pickle=True)


def damaged(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, pred=numbers(4, 100, 25))
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)


def saved(**arrays: Any) -> Callable[[Path], object]:
    def save(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(stream, **arrays)

    return save


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("1 2 3"), "is no .npy, .npz or .csv of numbers"),
        (lambda path: path.write_bytes(b""), "is no .npy, .npz or .csv of numbers"),
        (pickled, "holds object, no numbers"),
        (damaged, "is damaged, or no file of numbers"),
        (saved(a=numbers(3), b=numbers(3)), "holds a, b. Call the array 'pred', or give it alone."),
        (saved(), "holds nothing"),
        (saved(pred=numbers(30, 25)), "predictions of shape [30, 25] cannot be evaluated. Give [N, K, T, D] or [K, T"),
        (saved(pred=numbers(0, 30, 25)), "of shape [0, 30, 25]"),
        (saved(pred=numbers(1, 1, 1, 30, 25)), "of shape [1, 1, 1, 30, 25]"),
        (saved(pred=np.array([["a"]])), "holds <U1. Give real numbers"),
        (saved(pred=1j * numbers(2, 3, 4)), "holds complex64. Give real numbers"),
        (
            lambda path: of_run(path.with_suffix(".npz"), generated_pose=numbers(1, 30, 6)).rename(path),
            "is not of pflx",
        ),
        (lambda path: of_run(path.with_suffix(".npz"), emotion=numbers(2, 29, 25)).rename(path), "of another length"),
        (lambda path: of_run(path.with_suffix(".npz"), hop=np.array("a")).rename(path), "hop is a, not a number"),
        (lambda path: of_run(path.with_suffix(".npz"), fps=np.array(0)).rename(path), "has 0 fps"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], Any], said: str
) -> None:
    path = tmp_path / "given"
    make(path)
    with pytest.raises(InputError) as caught:
        read_predictions(path)
    message = str(caught.value)
    assert said in message
    assert str(path) in message
    assert "\n" not in message


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="does not exist"):
        read_predictions(tmp_path / "none.npy")


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (np.eye(2), "of shape [2, 2] do not fit 3 clips. Give [3, 3]"),
        (np.eye(3) * 2, "neighbours are 0 or 1, here is 2.0"),
        (np.diag([1, 0, 1]), "row 1 has no neighbour. Set at least [1, 1] to 1"),
    ],
)
def test_neighbours_that_do_not_fit_are_refused(tmp_path: Path, matrix: Array, said: str) -> None:
    np.save(tmp_path / "near.npy", matrix)
    with pytest.raises(InputError) as caught:
        read_neighbours(tmp_path / "near.npy", 3)
    assert said in str(caught.value)
