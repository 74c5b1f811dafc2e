"""Opening bundles that are good, damaged, newer, or made to escape their folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.files.unprivileged import shared_folder, unprivileged
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


def in_a_hubs_cache(bundle: Path, cache: Path) -> Path:
    """The bundle as `huggingface_hub` keeps it: a snapshot of links to files named by their hashes, and a card."""
    blobs, snapshot = cache / "blobs", cache / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    for file in sorted(bundle.rglob("*")):
        if file.is_file():
            blob = blobs / sha256(file.read_bytes()).hexdigest()
            file.rename(blob)
            link = snapshot / file.relative_to(bundle)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n# A listener\n")
    (snapshot / "LICENSE.txt").write_text("MIT")
    (snapshot / ".gitattributes").write_text("*.onnx filter=lfs")
    return snapshot


def test_links_with_the_right_content_and_a_card_are_no_fault(bundle: Path, tmp_path: Path) -> None:
    snapshot = in_a_hubs_cache(bundle, tmp_path / "models--me--listener")
    opened = Bundle.open(snapshot)
    assert opened.graph_path("posnet").read_bytes()
    (snapshot / GRAPH).resolve().write_bytes(b"another grap")
    with pytest.raises(BundleCorruptError, match=f"the content of '{GRAPH}' has changed"):
        Bundle.open(snapshot)


@pytest.mark.parametrize("target", ["nowhere", Path(GRAPH).name])
def test_a_link_that_leads_nowhere_or_to_itself_is_named(bundle: Path, target: str) -> None:
    (bundle / GRAPH).unlink()
    (bundle / GRAPH).symlink_to(target)
    with pytest.raises(BundleCorruptError, match=f"'{GRAPH}' is a link that leads nowhere"):
        Bundle.open(bundle)


def test_a_linked_folder_is_not_followed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "graphs").rename(tmp_path / "outside")
    (bundle / "graphs").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleCorruptError, match="is missing"):
        Bundle.open(bundle)


def test_a_pointer_of_a_large_file_store_is_called_so(bundle: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
    (bundle / GRAPH).write_bytes(pointer)
    with pytest.raises(BundleCorruptError, match=r"fp32\.onnx' is a pointer of Git LFS.*`git lfs pull`"):
        Bundle.open(bundle)
    (bundle / "manifest.json").write_bytes(pointer)
    with pytest.raises(BundleCorruptError, match=r"'manifest\.json' is a pointer of Git LFS"):
        Bundle.open(bundle)


def test_line_ends_that_git_changed_are_called_so(bundle: Path) -> None:
    def seal(data: dict[str, Any]) -> None:
        data["files"]["report.json"] = {"bytes": 8, "sha256": sha256(b'{\n"a":1}').hexdigest()}

    edit_manifest(bundle, seal)
    (bundle / "report.json").write_bytes(b'{\r\n"a":1}')
    with pytest.raises(BundleCorruptError, match=r"'report\.json' has the line ends of Windows.*\.gitattributes"):
        Bundle.open(bundle)


@pytest.mark.parametrize("place", ["manifest.json", "graphs", GRAPH, "."])
def test_what_may_not_be_read_is_named(place: str) -> None:
    with shared_folder() as folder:
        with bundle_writer(folder / "me.pflx") as made:
            fill_bundle(made)
        hidden = folder / "me.pflx" / place
        mode = hidden.stat().st_mode
        hidden.chmod(0)
        with unprivileged(), pytest.raises(BundleMissingError) as caught:
            Bundle.open(folder / "me.pflx")
        hidden.chmod(mode)
        named = folder / "me.pflx" / ("manifest.json" if place == "." else place)
        assert str(caught.value) == f"{named} cannot be opened: Permission denied. Check the path, and who may read it."
        Bundle.open(folder / "me.pflx")


@pytest.mark.parametrize("target", ["graphs", "."])
def test_a_folder_that_leads_to_itself_holds_nothing(bundle: Path, target: str) -> None:
    shutil.rmtree(bundle / "graphs")
    (bundle / "graphs").symlink_to(target)
    with pytest.raises(BundleCorruptError, match=r"file 'graphs/\w+\.fp32\.onnx' is missing"):
        Bundle.open(bundle)


@pytest.mark.parametrize("target", ["itself.pflx", "gone.pflx"])
def test_a_link_in_the_place_of_a_bundle_that_leads_nowhere_is_called_so(tmp_path: Path, target: str) -> None:
    (tmp_path / "itself.pflx").symlink_to(target)
    with pytest.raises(BundleMissingError, match=r"itself\.pflx is a link that leads nowhere"):
        Bundle.open(tmp_path / "itself.pflx")


def test_a_file_that_no_file_system_has_is_missing(bundle: Path) -> None:
    edit_manifest(bundle, lambda data: data["files"].update({"x" * 300: {"bytes": 6, "sha256": "0"}}))
    with pytest.raises(BundleCorruptError, match=r"file 'x{300}' is missing"):
        Bundle.open(bundle)


def test_a_manifest_that_would_fill_the_memory_is_not_read(bundle: Path) -> None:
    os.truncate(bundle / "manifest.json", 1 << 40)
    with pytest.raises(BundleCorruptError, match=r"manifest\.json has 1099511627776 bytes, more than any manifest"):
        Bundle.open(bundle)


def test_a_path_that_no_file_system_takes_is_refused_in_one_line(tmp_path: Path) -> None:
    for place in ("a\0b", "a" * 5000):
        with pytest.raises(BundleMissingError) as caught:
            Bundle.open(tmp_path / place)
        assert "\n" not in str(caught.value)
    with pytest.raises(BundleMissingError, match="cannot be opened: File name too long"):
        Bundle.open(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(fps=0), "fps is 0; pflx runs at 25"),
        (lambda d: d.update(fps=30), "fps is 30; pflx runs at 25"),
        (lambda d: d.update(sample_rate_hz=0), "sample_rate_hz is 0"),
        (lambda d: d.update(sample_rate_hz=16_001), "sample_rate_hz is 16001; it is a multiple of 25"),
        (lambda d: d["generator"].update(hop=0), "hop is 0; it is 1 to 4096 frames"),
        (lambda d: d["generator"].update(window=-8), "window is -8"),
        (lambda d: d["smoother"].update(slide=1 << 40), "slide is 1099511627776"),
        (lambda d: d["renderer"].update(size=1 << 20), "is 1048576; it is 16 to 4096 px"),
        (lambda d: d["pfl"].update(window=0), "the crop is of 0 px"),
        (lambda d: d["smoother"].update(graphs={}), "posnet has no graph with the role 'smooth'"),
        (lambda d: d["renderer"]["graphs"].pop("frame"), "pirender has no graph with the role 'frame'"),
    ],
)
def test_a_manifest_of_absurd_numbers_is_refused_when_it_is_opened(
    bundle: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(bundle, change)
    with pytest.raises(BundleCorruptError, match=message):
        Bundle.open(bundle, verify=False)


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
