"""Opening bundles that are good, damaged, newer, or made to escape their folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sample_bundle import fill_bundle, sample_manifest

from pflx.engines import (
    Bundle,
    BundleCorruptError,
    BundleError,
    BundleMissingError,
    BundleVersionError,
    FileInfo,
    MeanFace,
    PflxError,
    TensorSpec,
    bundle_writer,
)
from pflx.engines.bundle.manifest import SCHEMA, decode_manifest, encode_manifest

GRAPH = "graphs/posnet.fp32.onnx"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "me.pflx"
    with bundle_writer(path) as folder:
        fill_bundle(folder)
    return path


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply a change to the parsed manifest and write it back."""
    data = json.loads((bundle / "manifest.json").read_text())
    change(data)
    (bundle / "manifest.json").write_text(json.dumps(data))


def test_a_written_bundle_opens_with_what_was_written(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert msgspec.structs.replace(opened.manifest, files={}) == sample_manifest()
    assert set(opened.manifest.files) == {f"graphs/{g}.fp32.onnx" for g in opened.manifest.graphs} | {"report.json"}
    assert opened.graph_path("posnet").read_bytes() == b"graph posnet"


@given(
    inputs=st.dictionaries(
        st.text(),
        st.builds(
            TensorSpec,
            st.lists(st.one_of(st.integers(1, 2**31), st.text(min_size=1))).map(tuple),
            st.sampled_from(["float32", "float16", "uint8", "int64", "bool"]).map(np.dtype),
        ),
    ),
    note=st.text(),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=58, max_size=58),
)
def test_a_manifest_survives_encoding(inputs: dict[str, TensorSpec], note: str, values: list[float]) -> None:
    plain = sample_manifest()
    manifest = msgspec.structs.replace(
        plain,
        graphs={n: msgspec.structs.replace(g, inputs=inputs) for n, g in plain.graphs.items()},
        files={file: FileInfo(bytes=1, sha256="0") for g in plain.graphs.values() for file in g.files.values()},
        versions={note: note},
        mean_face=MeanFace(source=note, values=values),
    )
    assert decode_manifest(encode_manifest(manifest), "me") == manifest


@pytest.mark.parametrize(("name", "precision"), [("nobody", None), ("posnet", "fp16")])
def test_a_graph_that_is_not_there_is_named(bundle: Path, name: str, precision: str | None) -> None:
    with pytest.raises(BundleError, match=precision or name):
        Bundle.open(bundle).graph_path(name, precision)


@pytest.mark.parametrize("place", ["absent.pflx", "file.pflx", "folder.pflx"])
def test_a_path_without_a_bundle_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file.pflx").write_text("")
    (tmp_path / "folder.pflx").mkdir()
    with pytest.raises(BundleMissingError, match=place) as caught:
        Bundle.open(tmp_path / place)
    assert isinstance(caught.value, FileNotFoundError)


def test_one_changed_byte_is_found_by_its_hash(bundle: Path) -> None:
    file = bundle / GRAPH
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleCorruptError, match=r"content of 'graphs/posnet\.fp32\.onnx' has changed"):
        Bundle.open(bundle)
    Bundle.open(bundle, verify=False)


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_file_is_found_by_its_size(bundle: Path, verify: bool) -> None:
    os.truncate(bundle / GRAPH, 3)
    with pytest.raises(BundleCorruptError, match="has 3 bytes, not 12"):
        Bundle.open(bundle, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
def test_a_deleted_file_is_named(bundle: Path, verify: bool) -> None:
    (bundle / GRAPH).unlink()
    with pytest.raises(BundleCorruptError, match=f"'{GRAPH}' is missing"):
        Bundle.open(bundle, verify=verify)


def test_a_file_that_nobody_listed_is_named(bundle: Path) -> None:
    (bundle / "graphs" / "extra.onnx").write_bytes(b"?")
    with pytest.raises(BundleCorruptError, match=r"'graphs/extra\.onnx' is not in the manifest"):
        Bundle.open(bundle)


def test_hidden_files_and_an_interrupted_build_do_not_stop_a_bundle_from_opening(bundle: Path) -> None:
    (bundle / ".DS_Store").write_bytes(b"?")
    (bundle / "engines").mkdir()
    (bundle / "engines" / ".x.plan.0011.partial").write_bytes(b"?")
    (bundle / "engines" / "x.fp32.tensorrt.0011.plan").write_bytes(b"?")
    Bundle.open(bundle)


@pytest.mark.parametrize("where", [[], ["pfl"], ["graphs", "posnet"], ["graphs", "posnet", "inputs", "x"]])
def test_an_unknown_key_is_refused_at_every_depth(bundle: Path, where: list[str]) -> None:
    def add(data: dict[str, Any]) -> None:
        for key in where:
            data = data[key]
        data["colour"] = "red"

    edit_manifest(bundle, add)
    with pytest.raises(BundleCorruptError, match="colour"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (SCHEMA + 1, rf"newer pflx: its schema is {SCHEMA + 1}, this one reads {SCHEMA}\. Upgrade pflx"),
        (SCHEMA - 1, "older pflx.*Export it again"),
    ],
)
def test_another_schema_is_said_before_anything_else_is_read(bundle: Path, schema: int, message: str) -> None:
    def change(data: dict[str, Any]) -> None:
        data.clear()
        data.update(schema=schema, words_of_the_future=[1])

    edit_manifest(bundle, change)
    with pytest.raises(BundleVersionError, match=message):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "graphs/../../secret", "c:\\x", "a\\..\\b", ".", "", "./x", "a//b"]
)
def test_a_path_that_leaves_the_bundle_is_refused(bundle: Path, path: str) -> None:
    (bundle.parent / "secret").write_text("secret")
    edit_manifest(bundle, lambda data: data["files"].update({path: {"bytes": 6, "sha256": "0"}}))
    with pytest.raises(BundleCorruptError, match="leaves the bundle"):
        Bundle.open(bundle)


@pytest.mark.parametrize("linked", [GRAPH, "graphs"])
def test_a_link_that_leaves_the_bundle_is_refused(bundle: Path, tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside"
    (bundle / linked).rename(outside)
    (bundle / linked).symlink_to(outside)
    with pytest.raises(BundleCorruptError, match=r"link that leaves|missing"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["generator"]["graphs"].update(speaker="x"), "reactface uses graph 'x'"),
        (lambda d: d.update(precision="fp16"), "has no fp16 variant"),
        (lambda d: d["graphs"]["posnet"]["files"].update(fp32="graphs/y.onnx"), "not in files"),
        (lambda d: d["mean_face"].update(values=[0.0] * 57), "57 values"),
        (lambda d: d["graphs"]["posnet"]["inputs"]["x"].update(dtype="object"), "no dtype"),
        (lambda d: d["graphs"]["posnet"]["inputs"]["x"].update(dtype=">f4"), "no dtype"),
        (lambda d: d.pop("pfl"), "missing required field `pfl`"),
        (lambda d: d.update(fps="25"), r"Expected `int`, got `str` - at `\$\.fps`"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    bundle: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(bundle, change)
    with pytest.raises(BundleCorruptError, match=message) as caught:
        Bundle.open(bundle)
    assert "\n" not in str(caught.value)


MANIFEST_BYTES = encode_manifest(msgspec.structs.replace(sample_manifest(), files={}, graphs={}, precision="fp32"))


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
@given(st.one_of(st.binary(max_size=64), st.tuples(st.integers(0, len(MANIFEST_BYTES) - 1), st.binary())))
def test_no_bytes_in_a_manifest_give_anything_but_a_clear_error(damage: bytes | tuple[int, bytes]) -> None:
    if isinstance(damage, tuple):
        at, insert = damage
        data = MANIFEST_BYTES[:at] + insert + MANIFEST_BYTES[at + len(insert) :]
    else:
        data = damage
    with pytest.raises(PflxError, match="me"):
        decode_manifest(data, "me")


def test_a_deeply_nested_manifest_is_malformed_not_a_crash() -> None:
    with pytest.raises(BundleCorruptError, match="malformed"):
        decode_manifest(b'{"schema":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "me")
