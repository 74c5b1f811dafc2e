"""Files of weights, known by what is in them: what is read, and what is said of the rest."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pflx.engines import PflxError
from pflx.export import CheckpointError, load_component, read_checkpoint, untrained
from pflx.export.models import PosNet


class Surprise:
    """Whatever class a training script may have pickled along."""


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return untrained("posnet", 0, slide=8)


def save(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def message(path: Path | str) -> str:
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(path)
    assert isinstance(raised.value, PflxError)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(path))
    return str(raised.value)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".safetensors", "-legacy.pth", ""])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_format_gives_the_same_weights_under_any_name(
    tmp_path: Path, weights: dict[str, Tensor], suffix: str, kind: str
) -> None:
    path = tmp_path / f"it{suffix}"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        save(path, weights, _use_new_zipfile_serialization=kind == "zip")
    network, checkpoint = load_component(path, "posnet")
    assert isinstance(network, PosNet)
    assert network.slide == 8
    assert same(checkpoint.state_dict, weights)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("begin", [b"<", b"{", b"[", b"PK", b"\x80", b"BZh"])
def test_safetensors_are_known_whatever_the_length_of_their_header_looks_like(
    tmp_path: Path, weights: dict[str, Tensor], begin: bytes
) -> None:
    save_file(weights, tmp_path / "it.safetensors")
    content = (tmp_path / "it.safetensors").read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    length = int.from_bytes(begin, "little")
    while length < len(header):
        length += 256 ** len(begin)
    made = length.to_bytes(8, "little") + header.ljust(length) + content[8 + len(header) :]
    assert made.startswith(begin)
    path = write(tmp_path / "it.pth", made)
    assert same(read_checkpoint(path).state_dict, weights)


# Shards


def sharded(folder: Path, weights: Mapping[str, Tensor], *, count: int = 3) -> list[Path]:
    """The weights in several files, and their index beside them."""
    names = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    places = {key: names[n % count] for n, key in enumerate(weights)}
    for name in names:
        save_file({key: value for key, value in weights.items() if places[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return [folder / name for name in names]


def test_shards_are_read_whole_by_their_index_or_any_of_them(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    shards = sharded(tmp_path, weights)
    digests = [hashlib.sha256(shard.read_bytes()).hexdigest() for shard in shards]
    for path in (tmp_path / "model.safetensors.index.json", *shards):
        found = read_checkpoint(path)
        assert same(found.state_dict, weights)
        assert found.notes == ("read whole, 3 shards",)
        assert found.sha256 == hashlib.sha256("".join(digests).encode()).hexdigest()


def test_a_missing_or_damaged_shard_is_named(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    first, second, _ = sharded(tmp_path, weights)
    index = tmp_path / "model.safetensors.index.json"
    second.rename(tmp_path / "away")
    assert "stands for 3 shards; 1 are not beside it, such as model-00002-of-00003.safetensors" in message(index)
    assert "such as model-00002-of-00003.safetensors" in message(first)
    second.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors is a pointer of Git LFS"):
        read_checkpoint(index)
    save_file({"other": torch.zeros(1)}, second)
    assert "which is not in model-00002-of-00003.safetensors" in message(index)


@pytest.mark.parametrize("name", ["../posnet.pth", "/etc/passwd", 3, ""])
def test_an_index_leads_to_no_other_folder(tmp_path: Path, name: object) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"weight_map": {"fc1.weight": name}}))
    assert "which is no file beside it" in message(path)


# What is no file of weights


def archive(names: list[str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name in names:
            made.writestr(zipfile.ZipInfo(name), b"content")  # without the time of day
    return content.getvalue()


def tape(names: list[str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        for name in names:
            made.addfile(tarfile.TarInfo(name), io.BytesIO())
    return content.getvalue()


def numbers() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
            ("pointer of Git LFS", "git lfs pull"),
        ),
        (b"<!DOCTYPE html><html>Not found</html>", ("web page (HTML)", "sign in", "download the file again")),
        (b"\xef\xbb\xbf\n <html><body>Sign in</body></html>", ("web page (HTML)", "sign in")),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", ("XML page", "sign in")),
        (b'{"error": "Access to model is restricted"}', ("is JSON", "sign in")),
        (b'[{"error": 1}]', ("is JSON", "sign in")),
        (archive(["weights/posnet.pth", "README.md"]), ("zip archive with weights/posnet.pth, README.md", "unpack it")),
        (tape(["posnet.pth"]), ("tar archive with posnet.pth in it", "unpack it")),
        (gzip.compress(b"anything", mtime=0), ("compressed with gzip", "unpack it")),
        (numbers(), ("one NumPy array",)),
        (b"\x89HDF\r\n\x1a\n", ("HDF5",)),
        (b"GGUF\x03\x00\x00\x00", ("GGUF",)),
        (b"\x08\x0a\x12\x07pytorch\x1a\x052.13.0", ("ONNX graph", "PyTorch checkpoint")),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_another_kind_is_called_what_it_is(
    tmp_path: Path, content: bytes, said: tuple[str, ...], suffix: str
) -> None:
    text = message(write(tmp_path / f"it{suffix}", content))
    assert all(part in text for part in said), text


def test_torchscript_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "it.pth"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path))
    text = message(path)
    assert "is a TorchScript archive, which holds code, so it was not loaded" in text
    assert "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')" in text


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_needs_arbitrary_pickle_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = save(tmp_path / "it.pth", {"extra": Surprise()}, _use_new_zipfile_serialization=zipped)
    text = message(path)
    assert "Surprise, which could run any code, so it was not loaded" in text
    assert "torch.save(model.state_dict(), path)" in text


def test_a_plain_pickle_is_refused_unopened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for protocol in (2, 4):
        path = tmp_path / f"{protocol}.pth"
        path.write_bytes(pickle.dumps({"state_dict": Bomb()}, protocol))
        assert "could run any code, so it was not loaded" in message(path)
    assert not (tmp_path / "ran").exists()


# What is damaged


def test_damaged_files_say_so_in_one_line(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    content = save(tmp_path / "it.pth", weights).read_bytes()
    legacy = save(tmp_path / "old.pth", weights, _use_new_zipfile_serialization=False).read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    cases = {
        "flipped.pth": bytes(flipped),
        "truncated-legacy.pth": legacy[: len(legacy) // 2],
        "noise.pth": bytes(range(1, 256)) * 9,
        "text.pth": b"hello\n" * 50,
        "noise.safetensors": bytes(range(256)) * 9,
        "one.pth": b"\x80",
    }
    for name, damaged in cases.items():
        text = message(write(tmp_path / name, damaged))
        assert "damaged" in text or "is no PyTorch checkpoint" in text
        assert "copy or download it again" in text


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_called_so(tmp_path: Path, weights: dict[str, Tensor], share: float) -> None:
    content = save(tmp_path / "it.pth", weights).read_bytes()
    assert "truncated" in message(write(tmp_path / "short.pth", content[: int(share * len(content))]))
    save_file(weights, tmp_path / "it.safetensors")
    content = (tmp_path / "it.safetensors").read_bytes()
    kept = max(int(share * len(content)), 100)
    text = message(write(tmp_path / "short.safetensors", content[:kept]))
    assert "is damaged: truncated" in text
    if share > 0.1:
        assert f"truncated, {len(content) - kept} bytes are missing; copy or download it again" in text


def test_a_path_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    assert message(tmp_path / "missing.pth").endswith("missing.pth does not exist.")
    assert message(tmp_path / "empty.pth").endswith("is empty; copy or download it again.")
    assert message(tmp_path).endswith("is a directory; pass the checkpoint file in it.")


def test_a_device_is_no_checkpoint() -> None:
    assert message("/dev/zero").endswith("is no regular file; pass a checkpoint file.")
