"""`pflx push`: what goes to the hub, what its card says, and what stays here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from support.commands import pflx, refusal
from support.hub.stand_in import Hub, bundle_files, pflx_with, stand_in
from support.sample_bundle import fill_bundle, sample_manifest

from pflx.engines import Bundle, Manifest, Passport, Provenance, bundle_writer
from pflx.engines.bundle.card import files_to_publish, write_card
from pflx.engines.bundle.manifest import decode_manifest
from pflx.engines.bundle.writer import install_engine
from pflx.runtime.builtin import builtin_path

pytest.importorskip("huggingface_hub", reason="pflx[hub] is not installed")

TOKEN = "hf_mayWrite"
PASSPORT = Passport(
    file="",
    graph="posnet",
    precision="fp32",
    backend="tensorrt",
    backend_version="10.13",
    onnx_sha256=sha256(b"graph posnet").hexdigest(),
    compute_capabilities=["sm_89"],
    profile={},
    driver=None,
    os="Linux x86_64",
    created="2026-01-02T03:04:05+00:00",
)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with stand_in() as hub:
        yield hub


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    with bundle_writer(tmp_path / "me.pflx") as folder:
        fill_bundle(folder)
    return tmp_path / "me.pflx"


def head(card: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found is not None
    read: dict[str, Any] = yaml.safe_load(found[1])
    return read


def card_of(manifest: Manifest, licence: str = "mit") -> str:
    return write_card(manifest, b"content", repo="me/listener", licence=licence)


def test_what_is_published_opens_again_bit_for_bit(hub: Hub, tmp_path: Path) -> None:
    source = builtin_path()
    pushed, opened = pflx_with(
        hub,
        tmp_path,
        ["push", source, "me/listener", "--license", "Apache-2.0"],
        ["inspect", "--json", "hf://me/listener"],
        HF_TOKEN=TOKEN,
    )
    assert re.fullmatch(
        r"Published hf://me/listener, commit [0-9a-f]{8}: pflx run CLIP -b hf://me/listener -p PICTURE\n", pushed.out
    )
    there = hub.repos["me/listener"]["main"]
    card = there["README.md"].decode()
    assert {file: there[file] for file in bundle_files(source)} == bundle_files(source)
    assert there.keys() == {*bundle_files(source), "README.md", ".gitattributes"}
    assert opened.out.encode() == (source / "manifest.json").read_bytes()
    assert head(card) == {
        "license": "apache-2.0",
        "library_name": "pflx",
        "tags": ["pflx", "onnx", "facial-reaction-generation", "backchannel", "warp"],
    }
    assert sha256(there["manifest.json"]).hexdigest() in card


def test_what_an_earlier_bundle_left_goes_with_the_new_one_and_the_rest_stays(
    hub: Hub, bundle: Path, tmp_path: Path
) -> None:
    others = {"README.md": b"old", "sample.png": b"?", "docs/a.onnx": b"?"}
    hub.repos["me/listener"] = {"main": {**others, **bundle_files(builtin_path())}}
    [pushed] = pflx_with(hub, tmp_path, ["push", bundle, "me/listener", "--license", "mit"], HF_TOKEN=TOKEN)
    assert pushed.code == 0
    assert hub.repos["me/listener"]["main"].keys() == {*others, *bundle_files(bundle)}
    assert hub.repos["me/listener"]["main"]["README.md"] != b"old"
    assert len([each for each in hub.asked if "/commit/" in each]) == 1


def test_a_revision_is_a_branch_of_its_own(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    command: list[str | Path] = ["push", bundle, "hf://me/listener", "--license", "mit"]
    pushed, opened = pflx_with(
        hub, tmp_path, [*command, "--revision", "v2"], ["inspect", "--json", "hf://me/listener@v2"], HF_TOKEN=TOKEN
    )
    assert "Published hf://me/listener@v2, commit" in pushed.out
    assert opened.out.encode() == (bundle / "manifest.json").read_bytes()
    assert hub.repos["me/listener"]["main"].keys() == {".gitattributes"}


def test_who_may_not_write_is_told(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    [outcome] = pflx_with(hub, tmp_path, ["push", bundle, "me/listener", "--license", "mit"])
    assert outcome.code == 1
    assert outcome.err.endswith("\npflx: hf://me/listener: the hub asks who you are: run `hf auth login`.\n")
    assert not hub.repos


def test_offline_nothing_is_published(bundle: Path, tmp_path: Path) -> None:
    [outcome] = pflx_with(None, tmp_path, ["push", bundle, "me/listener", "--license", "mit"], HF_HUB_OFFLINE="1")
    said = "pflx: hf://me/listener: HF_HUB_OFFLINE forbids to publish. Unset that, and try again.\n"
    assert (outcome.code, outcome.err.endswith(said)) == (1, True)


def test_a_dry_run_and_a_card_alone_need_no_network(tmp_path: Path, bundle: Path) -> None:
    command: list[str | Path] = ["push", bundle, "me/listener", "--license", "mit"]
    card = tmp_path / "card.md"
    dry, written = pflx_with(None, tmp_path, [*command, "--dry-run"], [*command, "--card-only", card])
    assert (dry.code, written.code) == (0, 0)
    assert written.out == f"Wrote {card}\n"
    assert dry.out.endswith(card.read_text() + "\n")
    for file in (*bundle_files(bundle), "README.md"):
        assert re.search(rf"^ +\d+\.\d\d MB  {re.escape(file)}$", dry.out, re.MULTILINE)


def test_a_card_of_the_bundles_own_is_kept(tmp_path: Path, bundle: Path) -> None:
    (bundle / "README.md").write_text("---\nlicense: other\n---\n# Mine\n")
    (bundle / "LICENSE.txt").write_text("Mine.")
    [dry] = pflx_with(None, tmp_path, ["push", bundle, "me/listener", "--license", "mit", "--dry-run"])
    assert "README.md of the bundle is its card, and is published as it is" in dry.out
    assert "# Mine" in dry.out
    assert "LICENSE.txt" in dry.out
    assert "license: mit" not in dry.out


def test_engines_stay_here_unless_they_are_asked_for(bundle: Path) -> None:
    (bundle / "engines").mkdir()
    placed = install_engine(bundle, PASSPORT, b"plan")
    opened = Bundle.open(bundle)
    alone, both = files_to_publish(opened), files_to_publish(opened, engines=True)
    assert placed.file in both
    assert both["manifest.json"] == bundle / "manifest.json"
    assert alone.keys() == both.keys() - {placed.file}
    content = alone["manifest.json"]
    assert isinstance(content, bytes)
    manifest = decode_manifest(content, "me")
    assert not manifest.engines
    assert {"manifest.json", *manifest.files} == alone.keys()
    assert "engines" not in card_of(manifest)
    assert "| engines | tensorrt 10.13 |" in card_of(opened.manifest)


def test_a_card_says_what_is_inside() -> None:
    weights = Provenance(slot="generator", source="best|one.pth", sha256="ab" * 32, keys=31, note="EMA\nof 3")
    manifest = msgspec.structs.replace(sample_manifest(("fp16", "fp32")), untrained=None, provenance=[weights])
    card = card_of(manifest)
    for line in (
        "| generator | reactface, 8 frames a step, of 8 |",
        "| reads of the speaker | video, audio |",
        "| renderer | pirender, 256x256 px |",
        "| frames per second | 25 |",
        "| precision | fp16; there is fp16, fp32 |",
        f"| sha256 of `manifest.json` | `{sha256(b'content').hexdigest()}`, which lists those of all other files |",
        f"| generator | best\\|one.pth | {'ab' * 32} | 31 | EMA of 3 |",
        "pflx run -b hf://me/listener -p me.png speaker.mp4",
        "Published under `mit`. What the weights above were made from has terms of its own.",
    ):
        assert f"\n{line}\n" in card
    assert "not trained" not in card
    assert "seed 7" in card_of(sample_manifest())


def test_the_card_of_a_bundle_with_weights_of_pirender_says_so() -> None:
    said = "the weights of PIRender come under its own licence"
    trained = msgspec.structs.replace(sample_manifest(), untrained=None)
    warp = msgspec.structs.replace(trained, renderer=msgspec.structs.replace(trained.renderer, name="warp"))
    assert said in card_of(trained)
    assert said not in card_of(sample_manifest())
    assert said not in card_of(warp)


def test_nothing_of_a_manifest_gets_into_the_head_of_the_card() -> None:
    plain = sample_manifest()
    generator = msgspec.structs.replace(plain.generator, name="a\nlicense: mit\n---\nb")
    card = card_of(msgspec.structs.replace(plain, generator=generator), "other")
    assert head(card) == {
        "license": "other",
        "library_name": "pflx",
        "tags": ["pflx", "onnx", "facial-reaction-generation", "pirender"],
    }


@pytest.mark.parametrize("licence", ["mine", "MIT OR Apache-2.0", "mit\n", ""])
def test_a_licence_that_the_hub_does_not_know_is_refused(bundle: Path, licence: str) -> None:
    said = refusal("push", bundle, "me/listener", "--license", licence, "--dry-run")
    assert "which is no SPDX id like mit or cc-by-nc-4.0. Give one, or 'other' and a README.md" in said


@pytest.mark.parametrize("repo", ["listener", "me/listener@v1", "hf://me/listener/a.pflx", "https://hub.example/me/a"])
def test_what_is_no_repository_is_refused(bundle: Path, repo: str) -> None:
    said = refusal("push", bundle, repo, "--license", "mit", "--dry-run")
    assert repo in said
    assert "ORG/NAME" in said


def test_a_damaged_bundle_is_not_published(bundle: Path) -> None:
    (bundle / "graphs" / "posnet.fp32.onnx").write_bytes(b"GRAPH posnet")
    assert "has changed" in refusal("push", bundle, "me/listener", "--license", "mit")


def test_the_licence_must_be_given(bundle: Path) -> None:
    assert pflx("push", bundle, "me/listener").err == (
        "pflx: pflx push needs --license. For example: pflx push me.pflx ORG/NAME --license mit\n"
    )
