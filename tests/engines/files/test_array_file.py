"""Files of numbers: what is read, and that any bytes at all end in one line, in little memory."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pflx.engines import PflxError
from pflx.engines.files import array_file
from pflx.engines.files.array_file import read_arrays

TRACK = np.random.default_rng(0).standard_normal((9, 58)).astype(np.float32)


class NumbersError(PflxError, ValueError):
    """In the place of a caller's own."""


class NumbersMissingError(NumbersError, FileNotFoundError):
    """The same, for a file that is not there."""


def npy(array: Any, version: tuple[int, int] | None = None, *, pickled: bool = False) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array), version, allow_pickle=pickled)
    return stream.getvalue()


def npy_saying(shape: str, descr: str = "'<f4'", content: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def npz(*members: tuple[str, bytes], packed: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, archive.compression)  # without the time of day
    return stream.getvalue()


def read(content: bytes, folder: Path, name: str = "numbers.bin") -> dict[str, Any]:
    (folder / name).write_bytes(content)
    return dict(read_arrays(folder / name, NumbersError, NumbersMissingError))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint32, np.int64, np.bool_, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_come_back_as_they_were_saved(tmp_path: Path, dtype: Any, order: Any) -> None:
    wanted = np.array(TRACK > 0 if dtype == np.bool_ else TRACK * 10, dtype, order=order)
    contents = [npy(wanted), npy(wanted, (2, 0))]
    contents += [npz(("a.npy", npy(wanted)), ("b.npy", npy(TRACK[:0])), packed=packed) for packed in (False, True)]
    for content in contents:
        found = read(content, tmp_path)
        np.testing.assert_array_equal(found.get("", found.get("a")), wanted)
        assert found.get("b", TRACK[:0]).shape == (0, 58)


@pytest.mark.parametrize("head", ["", "pitch, yaw, roll\n", "\ufeffpitch,yaw,roll\n\n"])
def test_a_table_is_read_with_and_without_names(tmp_path: Path, head: str) -> None:
    found = read(f"{head}1,2,3\n4, 5e-1,-6\n".encode(), tmp_path, "track.CSV")
    np.testing.assert_array_equal(found[""], [[1, 2, 3], [4, 0.5, -6]])


def refused(content: bytes, folder: Path, said: str, name: str = "numbers.bin") -> None:
    with pytest.raises(NumbersError, match=re.escape(said)) as caught:
        read(content, folder, name)
    assert str(caught.value).startswith(f"{folder / name} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no .npy, .npz or .csv of numbers. Save it with numpy.save or numpy.savez."),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no .npy, .npz or .csv of numbers"),
        (npy(TRACK)[:-4], "says [9, 58] of float32, 2,088 bytes, and holds 2,084. Write it again."),
        (npy(TRACK)[:30], "is damaged, or no file of numbers ("),
        (npy_saying("(10**12,)"), "is damaged, or no file of numbers ("),
        (npy_saying("(1000000000000,)"), "4,000,000,000,000 bytes, and holds 0"),
        (npy_saying("(-1,)", content=bytes(80)), "says [-1] of float32"),
        (npy_saying("(4294967296, 4294967296)"), "bytes, and holds 0"),
        (npy_saying("(2,)", "'|O'", b"\x80\x04cos\nsystem\n"), "holds object, no numbers. Save float32."),
        (npy_saying("(1,)", "[('a', '<f4'), ('b', '<f4')]", bytes(8)), "no numbers. Save float32."),
        (npz(("a.npy", npy(TRACK)))[:200], "is damaged, or no file of numbers ("),
        (npz(("a.npy", b"not numbers")), "is damaged, or no file of numbers ("),
        (npz(("a.npy", npy_saying("(1000000000000,)"))), "4,000,000,000,000 bytes, and holds 0"),
        (npz(("a.npy", npy(TRACK[:, 0])), ("a", npy(TRACK))), "holds two arrays of one name"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    refused(content, tmp_path, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n3\n", "has rows of 1 to 2 numbers. Give all as many."),
        (b"1,2\n3,x\n", "has 'x' among its numbers. Write numbers only, parted by commas."),
        (b"\xff\xfe1\x00", "is damaged, or no file of numbers ("),
    ],
)
def test_other_tables_are_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    refused(content, tmp_path, said, "numbers.csv")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(NumbersMissingError, match="none does not exist"):
        read_arrays(tmp_path / "none", NumbersError, NumbersMissingError)
    with pytest.raises(NumbersError, match=r"is a folder\. Check the path"):
        read_arrays(tmp_path, NumbersError)


def test_what_unpacks_to_more_than_a_file_of_numbers_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_file, "LARGEST_UNPACKED", 1 << 26)
    bomb = npz(("a.npy", npy(np.zeros(1 << 24, np.float32))), packed=True)
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    refused(bomb, tmp_path, "unpacks to 67,108,992 bytes, more than 67,108,864. Save it with numpy.savez")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


GOOD = [
    npy(TRACK),
    npy(TRACK.astype(">f8"), (2, 0)),
    npz(("coefficients.npy", npy(TRACK)), ("generated_pose.npy", npy(TRACK[:, :6]))),
    npz(("coefficients.npy", npy(TRACK)), ("fps.npy", npy(25)), packed=True),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=8),
    st.none() | st.integers(0, 1 << 16),
    st.binary(max_size=16),
)
def test_whatever_the_bytes_are_numbers_come_or_one_line(
    tmp_path: Path, content: bytes, flips: list[tuple[int, int]], cut: int | None, tail: bytes
) -> None:
    spoilt = bytearray(content)
    for place, value in flips:
        spoilt[place % min(len(spoilt), 400)] = value
    made = bytes(spoilt if cut is None else spoilt[: cut % len(spoilt)]) + tail
    found: dict[str, Any] = {}
    with suppress(NumbersError):
        found = read(made, tmp_path)
    assert not any(array.dtype.hasobject for array in found.values())
