"""Policies as files, in manifests and in passports."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from support.commands import pflx, refusal
from support.fakes import fake_manifest, write_fake_bundle
from support.sample_bundle import ORIGIN

from pflx.engines import Bundle, BundleCorruptError, write_manifest
from pflx.engines.bundle.bundle import file_info
from pflx.engines.bundle.policy import (
    SCHEMA,
    GraphPolicy,
    Policy,
    PolicyError,
    encode_policy,
    policy_sha256,
    read_policy,
)

POLICY = Policy(
    created="2026-01-02T03:04:05+00:00",
    pflx="0.1.0",
    graphs={"posnet": GraphPolicy(skeleton="cd" * 32, fp32_nodes=["node_mean", "node_linear"])},
    origin=ORIGIN,
)


def write(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps(json.loads(encode_policy(POLICY)) | changes))
    return path


def test_a_policy_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(encode_policy(POLICY))
    assert read_policy(path) == POLICY
    assert policy_sha256(read_policy(path)) == policy_sha256(POLICY)


def test_the_hash_tells_policies_apart_and_is_that_of_the_file(tmp_path: Path) -> None:
    fewer = msgspec.structs.replace(POLICY, graphs={"posnet": GraphPolicy(skeleton="cd" * 32, fp32_nodes=[])})
    assert policy_sha256(fewer) != policy_sha256(POLICY)
    (tmp_path / "policy.json").write_bytes(encode_policy(POLICY))
    assert file_info(tmp_path / "policy.json").sha256 == policy_sha256(POLICY)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": SCHEMA + 1}, rf"is a policy of schema {SCHEMA + 1}, this pflx reads {SCHEMA}\. Calibrate again"),
        ({"schema": SCHEMA + 1, "news": 1}, "is a policy of schema"),
        ({"graphs": {"posnet": {"skeleton": "cd"}}}, "is no policy: .*fp32_nodes"),
        ({"graphs": {"posnet": {"skeleton": "cd", "fp32_nodes": [1]}}}, "is no policy: .*str"),
        ({"pickle": 1}, "is no policy: .*pickle"),
    ],
)
def test_what_is_no_policy_is_refused_with_the_field(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        read_policy(write(tmp_path / "policy.json", **changes))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{" * 10_000])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=r"policy\.json is no policy"):
        read_policy(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.json does not exist\. Make one: pflx calibrate fp16 BUNDLE "):
        read_policy(tmp_path / "none.json")


def test_export_reads_the_policy_before_it_begins(tmp_path: Path) -> None:
    options: list[str | Path] = ["export", "--untrained", "0", "--precision", "fp16", "-o", tmp_path / "me.pflx"]
    assert "none.json does not exist" in refusal(*options, "--policy", tmp_path / "none.json")
    assert list(tmp_path.iterdir()) == []


def test_a_policy_without_fp16_graphs_is_refused(tmp_path: Path) -> None:
    options: list[str | Path] = [
        "export",
        "--untrained",
        "0",
        "-o",
        tmp_path / "me.pflx",
        "--policy",
        write(tmp_path / "policy.json"),
    ]
    assert "Give --precision fp16 with it" in refusal(*options)


def with_policy(folder: Path) -> Bundle:
    """A bundle whose PosNet was made with a policy."""
    plain = fake_manifest()
    graphs = {
        name: msgspec.structs.replace(graph, files={"fp16": f"graphs/{name}.fp16.onnx"})
        for name, graph in plain.graphs.items()
    }
    write_fake_bundle(folder, graphs=graphs, precision="fp16")
    graphs["posnet"] = msgspec.structs.replace(graphs["posnet"], policies={"fp16": policy_sha256(POLICY)})
    (folder / "policy.fp16.json").write_bytes(encode_policy(POLICY))
    write_manifest(folder, msgspec.structs.replace(plain, graphs=graphs, precision="fp16"))
    return Bundle.open(folder)


def test_a_bundle_says_which_policy_a_graph_was_made_with(tmp_path: Path) -> None:
    bundle = with_policy(tmp_path / "me.pflx")
    assert bundle.source("posnet").policy_sha256 == policy_sha256(POLICY)
    assert bundle.source("posnet").onnx_sha256 == bundle.manifest.files["graphs/posnet.fp16.onnx"].sha256
    assert bundle.source("pirender_frame").policy_sha256 is None


def test_a_bundle_whose_policy_is_gone_is_damaged(tmp_path: Path) -> None:
    bundle = with_policy(tmp_path / "me.pflx")
    (bundle.path / "policy.fp16.json").unlink()
    with pytest.raises(BundleCorruptError, match="the policy of graph 'posnet' is not there"):
        write_manifest(bundle.path, bundle.manifest)


def test_inspect_names_the_policy(tmp_path: Path) -> None:
    bundle = with_policy(tmp_path / "me.pflx")
    outcome = pflx("inspect", bundle.path)
    assert outcome.code == 0
    assert outcome.out.count(f"by policy {policy_sha256(POLICY)[:12]}") == 1
