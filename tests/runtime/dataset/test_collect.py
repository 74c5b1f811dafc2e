"""All rows in one array, in the order of the index; what is missing is told, and lengths that differ are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pflx.runtime.dataset import CollectError, RowError, collect, save_collected
from pflx.runtime.evaluation import Inputs, evaluate, read_predictions

SEAL = {"pflx": "1", "bundle": "abc", "samples": 2, "seed": 0}


def numbers(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write_set(folder: Path, lengths: list[int], *, emotion: bool = False, **fields: Any) -> Path:
    """A folder as it is after `pflx batch`, of rows of so many frames; 0 is one that is not there."""
    folder.mkdir()
    rows = [
        {"id": f"r/{number}", "speaker": f"{folder}/{number}.mp4", **{k: v[number] for k, v in fields.items()}}
        for number in range(len(lengths))
    ]
    (folder / "dataset.json").write_text(json.dumps({"schema": 1, "seal": SEAL, "rows": rows}))
    for number, length in enumerate(lengths):
        if length:
            write_row(folder / f"r/{number}.npz", number, length, emotion=emotion)
    return folder


def write_row(path: Path, number: int, length: int, *, emotion: bool = False, seal: dict[str, Any] = SEAL) -> None:
    path.parent.mkdir(exist_ok=True)
    more = {"emotion": numbers(number + 20, 2, length, 25)} if emotion else {}
    np.savez_compressed(
        path,
        coefficients=numbers(number, 2, length, 58),
        generated_pose=numbers(number + 10, 2, length, 6),
        fps=np.array(25),
        hop=np.array(8),
        untrained=np.array(-1),
        seal=np.frombuffer(json.dumps({**seal, "row seed": number}).encode(), np.uint8),
        **more,
    )


def test_rows_stand_in_the_order_of_the_index(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "out", [30, 30, 30], emotion=True)
    found = collect(folder)
    assert {name: array.shape for name, array in found.arrays.items()} == {
        "coefficients": (3, 2, 30, 58),
        "generated_pose": (3, 2, 30, 6),
        "emotion": (3, 2, 30, 25),
        "ids": (3,),
        "seeds": (3,),
        "fps": (),
        "hop": (),
        "untrained": (),
    }
    for number in range(3):
        np.testing.assert_array_equal(found.arrays["coefficients"][number], numbers(number, 2, 30, 58))
        np.testing.assert_array_equal(found.arrays["emotion"][number], numbers(number + 20, 2, 30, 25))
    assert found.arrays["ids"].tolist() == ["r/0", "r/1", "r/2"]
    assert found.left_out == [
        "No listener_gt: r/0 names no file of emotion.",
        "No speaker: r/0 names no file of emotion.",
    ]


def test_what_is_collected_is_what_is_evaluated(tmp_path: Path) -> None:
    true = [tmp_path / f"true{number}.npy" for number in range(2)]
    for number, path in enumerate(true):
        np.save(path, numbers(number + 30, 40, 25))
    folder = write_set(tmp_path / "out", [40, 40], emotion=True, listener=[[str(path)] for path in true])
    save_collected(tmp_path / "pred.npz", collect(folder))
    read = read_predictions(tmp_path / "pred.npz")
    assert [*read.tracks] == ["with PosNet", "without PosNet", "emotion"]
    assert (read.shape, read.hop, read.untrained) == ((2, 2, 40), 8, None)
    assert read.listener is not None
    np.testing.assert_array_equal(read.listener[1], np.load(true[1]))
    figures = evaluate(Inputs(predictions=read, listener=read.listener)).challenge
    assert [each.fr_corr is not None for each in figures] == [False, False, True]


def test_what_is_missing_is_told_with_its_reason(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "out", [30, 0, 30, 30, 0, 20])
    (folder / "r/1.failed.json").write_text('{"error": "It is no clip."}')
    (folder / "r/2.npz").write_bytes(b"PK\x03\x04 damaged")
    write_row(folder / "r/3.npz", 3, 30, seal={**SEAL, "bundle": "other"})
    found = collect(folder, frames=30)
    assert [row.id for row in found.rows] == ["r/0"]
    whys = {each.row.id: each.why for each in found.missing}
    assert whys["r/1"] == "It is no clip."
    assert whys["r/2"].startswith("Its file is damaged (")
    assert whys["r/3"] == "It was made with bundle other, not abc. Make it again: --redo."
    assert whys["r/4"] == "It was not made yet."
    assert whys["r/5"] == "It has 20 frames, fewer than 30."


def test_several_lengths_are_refused_or_cut(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "out", [30, 31, 31])
    with pytest.raises(CollectError, match=r"\(1 of 30, 2 of 31 frames\), and one array has one\..*--frames 30"):
        collect(folder)
    found = collect(folder, frames=30)
    assert found.arrays["coefficients"].shape == (3, 2, 30, 58)
    np.testing.assert_array_equal(found.arrays["coefficients"][2], numbers(2, 2, 31, 58)[:, :30])


def test_a_true_reaction_that_is_too_short_leaves_all_out(tmp_path: Path) -> None:
    np.save(tmp_path / "long.npy", numbers(1, 31, 1, 58))
    np.save(tmp_path / "short.npy", numbers(1, 29, 58))
    files = [[str(tmp_path / "long.npy")], [str(tmp_path / "short.npy")]]
    found = collect(write_set(tmp_path / "out", [30, 30], listener=files))
    assert "listener_gt" not in found.arrays
    assert found.left_out[0] == f"No listener_gt: r/1 has 29 frames in {tmp_path / 'short.npy'}, fewer than 30."


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"has no dataset\.json\. Give a folder that `pflx batch` wrote\."):
        collect(tmp_path)
    folder = write_set(tmp_path / "out", [0, 0])
    with pytest.raises(CollectError, match=r"None of the 2 rows of .* is there\. It was not made yet\."):
        collect(folder)
    (folder / "dataset.json").write_text('{"schema": 9}')
    with pytest.raises(RowError, match="is of schema 9, this pflx reads 1"):
        collect(folder)
    (folder / "dataset.json").write_text('{"schema": 1, "rows": [{}]}')
    with pytest.raises(RowError, match="is damaged"):
        collect(folder)
