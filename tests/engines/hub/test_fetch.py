"""Bundles on the hub: what is fetched, what is read of the cache, and what is said where nothing can be had."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from support.hub.stand_in import Hub, bundle_files, commit, pflx_with, python_with, stand_in
from support.places import ROOT, python_blocks
from support.sample_bundle import fill_bundle

from pflx.cli.serve import _named
from pflx.engines import Bundle, BundleCorruptError, HubError, OutputError, bundle_writer
from pflx.engines.bundle.writer import check_target, require_own
from pflx.engines.hub.address import HubAddress, is_address, parse_address
from pflx.engines.hub.fetch import local_folder
from pflx.engines.hub.library import import_hub, told
from pflx.runtime.builtin import builtin_path

pytest.importorskip("huggingface_hub", reason="pflx[hub] is not installed")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLIP, PORTRAIT = ROOT / "tests/media/podium_speech_8s.mp4", ROOT / "tests/media/portrait_astronaut_256.png"
OPEN = f"""
from pflx.runtime import Listener
with Listener.open("hf://me/listener", {str(PORTRAIT)!r}) as listener:
    frames = listener.react({str(CLIP)!r})
    print(listener.manifest.generator.name, next(frames).image.shape)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with stand_in() as hub:
        yield hub


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    with bundle_writer(tmp_path / "me.pflx") as folder:
        fill_bundle(folder)
    return tmp_path / "me.pflx"


def in_the_cache(bundle: Path, home: Path) -> Path:
    """The bundle as the hub's library keeps it; its folder."""
    place = home / "hub" / "models--me--listener"
    for file, content in bundle_files(bundle).items():
        blob = place / "blobs" / sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = place / "snapshots" / COMMIT / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return place / "snapshots" / COMMIT


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://me/listener", HubAddress("me/listener")),
        ("hf:/me/listener", HubAddress("me/listener")),
        ("hf://models/me/listener/", HubAddress("me/listener")),
        ("hf://me/listener@v1.2", HubAddress("me/listener", "v1.2")),
        ("hf://me/listener@refs/pr/3/a/b.pflx", HubAddress("me/listener", "refs/pr/3", "a/b.pflx")),
        ("hf://me/listener@refs%2Fpr%2F3", HubAddress("me/listener", "refs/pr/3")),
        ("hf://me/models/b.pflx", HubAddress("me/models", None, "b.pflx")),
    ],
)
def test_an_address_says_repository_revision_and_folder(text: str, address: HubAddress) -> None:
    assert is_address(text)
    assert parse_address(text) == address
    assert parse_address(Path(text)) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text", ["hf://", "hf://me", "hf://me/", "hf://me/a b", "hf://me/a@", "hf://me/a/../b", "hf://me/a//b", "hf://ä/b"]
)
def test_what_is_no_address_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(HubError, match=r"is no address of a bundle\. Write hf://ORG/NAME"):
        parse_address(text)


@pytest.mark.parametrize("path", ["me.pflx", "/a/hf:/b", "hf", "hfx://a/b", "C:/hf/b"])
def test_a_path_is_no_address(path: str) -> None:
    assert local_folder(path) == Path(path)


def test_the_files_of_a_bundle_are_fetched_and_no_others(hub: Hub, tmp_path: Path) -> None:
    ours = bundle_files(builtin_path())
    others = {"README.md": b"# A listener", "weights.bin": b"0" * 999, "a/b.png": b"?"}
    hub.repos["me/listener"] = {"main": {**ours, **others}}
    assert python_with(hub, tmp_path, OPEN) == "backchannel (256, 256, 3)\n"
    assert hub.fetched() == {*ours, "README.md"}
    asked = len(hub.asked)
    assert python_with(hub, tmp_path, OPEN, HF_HUB_OFFLINE="1") == "backchannel (256, 256, 3)\n"
    assert len(hub.asked) == asked


def test_revisions_and_folders_are_told_apart(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    new, old = bundle_files(bundle), bundle_files(builtin_path(), "sub/a[1].pflx/")
    hub.repos["me/listener"] = {"main": new, "v1": old}
    first, second, third, fourth = pflx_with(
        hub,
        tmp_path,
        ["inspect", "--json", "hf://me/listener"],
        ["inspect", "--json", "hf://me/listener@v1/sub/a[1].pflx"],
        ["inspect", "--json", f"hf://me/listener@{commit(old)}/sub/a[1].pflx"],
        ["inspect", "--json", "hf://me/listener@v1"],
    )
    assert first.out.encode() == new["manifest.json"]
    assert second.out == third.out
    assert second.out.encode() == old["sub/a[1].pflx/manifest.json"]
    assert fourth.err == (
        "pflx: hf://me/listener@v1 is no bundle: it has no manifest.json. me/listener has "
        "hf://me/listener@v1/sub/a[1].pflx.\n"
    )


def test_what_the_hub_refuses_is_one_line_with_the_fix(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    files = bundle_files(bundle)
    hub.repos = {"me/listener": {"main": files}, "me/short": {"main": dict(files)}, "me/empty": {"main": {"a": b""}}}
    del hub.repos["me/short"]["main"]["report.json"]
    hub.refuses = {"me/gated": (403, "GatedRepo"), "me/secret": (401, "RepoNotFound"), "me/asks": (401, "")}
    expected = {
        "hf://me/none": "there is no me/none on the hub, or it is private. Check the name, or run `hf auth login`.",
        "hf://me/secret": "there is no me/secret on the hub, or it is private. Check the name, or run `hf auth login`.",
        "hf://me/asks": "the hub asks who you are: run `hf auth login`.",
        "hf://me/gated": "access is given on request. Ask for it on the page of me/gated, and run `hf auth login`.",
        "hf://me/listener@v9": (
            "me/listener has no revision 'v9'. Give a branch, a tag or the hash of a commit in full, or leave it out."
        ),
        "hf://me/short": (
            "its manifest lists 'report.json', which the hub does not give. Connect, or ask who published it."
        ),
    }
    outcomes = pflx_with(hub, tmp_path, *(["inspect", address] for address in expected), ["inspect", "hf://me/empty"])
    for (address, said), outcome in zip(expected.items(), outcomes, strict=False):
        assert (outcome.code, outcome.out, outcome.err) == (1, "", f"pflx: {address}: {said}\n")
    assert outcomes[-1].err == (
        "pflx: hf://me/empty is no bundle: it has no manifest.json. Check the name, or publish one: pflx push BUNDLE "
        "me/empty\n"
    )


def test_without_a_connection_the_cache_serves(tmp_path: Path) -> None:
    folder = in_the_cache(builtin_path(), tmp_path)
    (tmp_path / "me.png").symlink_to(PORTRAIT)
    (tmp_path / "speaker.mp4").symlink_to(CLIP)
    [shown] = python_blocks(ROOT / "docs" / "hub.md")
    of_the_page = f"import os; os.chdir({str(tmp_path)!r})\n{shown}print(first.image.shape)"
    assert python_with(None, tmp_path, of_the_page, HF_HUB_OFFLINE="1") == "(256, 256, 3)\n"
    assert python_with(None, tmp_path, OPEN, HF_HUB_OFFLINE="1") == "backchannel (256, 256, 3)\n"
    assert python_with(None, tmp_path, OPEN) == "backchannel (256, 256, 3)\n"
    (folder / "graphs" / "posnet.fp32.onnx").unlink()
    lacking, absent = pflx_with(
        None, tmp_path, ["inspect", "hf://me/listener"], ["inspect", "hf://me/other"], HF_HUB_OFFLINE="1"
    )
    assert lacking.err == (
        "pflx: hf://me/listener: 'graphs/posnet.fp32.onnx' is not in the cache, and HF_HUB_OFFLINE forbids to fetch "
        "it. Unset that, and try again.\n"
    )
    assert absent.err == (
        "pflx: hf://me/other: it is not whole in the cache, and HF_HUB_OFFLINE forbids to fetch it. Unset that, and "
        "try again.\n"
    )


def test_without_the_library_the_line_that_installs_it_is_given(tmp_path: Path) -> None:
    code = "import sys; sys.modules['huggingface_hub'] = None\nfrom support.commands import pflx\n"
    printed = python_with(None, tmp_path, code + "print(pflx('inspect', 'hf://me/listener').err)")
    assert printed.strip() == "pflx: huggingface_hub is not installed. Install it: pip install 'pflx[hub]'"


def test_what_was_fetched_and_changed_since_is_refused(bundle: Path, tmp_path: Path) -> None:
    folder = in_the_cache(bundle, tmp_path)
    (folder / "graphs" / "posnet.fp32.onnx").resolve().write_bytes(b"GRAPH posnet")
    with pytest.raises(BundleCorruptError, match=r"content of 'graphs/posnet\.fp32\.onnx' has changed"):
        Bundle.open(folder)


def test_other_files_of_the_repository_do_not_stop_a_bundle_in_the_cache(bundle: Path, tmp_path: Path) -> None:
    folder = in_the_cache(bundle, tmp_path)
    (folder / "sample.png").write_bytes(b"?")
    assert Bundle.open(folder).name == "me/listener@01234567"
    assert Bundle.open(bundle).name == "me.pflx"
    shutil.copytree(folder, tmp_path / "copy.pflx")
    with pytest.raises(BundleCorruptError, match=r"'sample\.png' is not in the manifest"):
        Bundle.open(tmp_path / "copy.pflx")


def test_the_cache_is_never_written_to(bundle: Path, tmp_path: Path) -> None:
    folder = in_the_cache(bundle, tmp_path)
    linked, copied = tmp_path / "linked.pflx", tmp_path / "copied.pflx"
    linked.symlink_to(folder)
    before = bundle_files(folder)
    for place in (folder, linked):
        with pytest.raises(OutputError, match=f"{place} is in the hub's cache.*cp -rL {place} me.pflx"):
            require_own(place)
        with pytest.raises(OutputError, match="is in the hub's cache"):
            check_target(place, overwrite=True)
    [outcome] = pflx_with(None, tmp_path, ["build", "hf://me/listener"], HF_HUB_OFFLINE="1")
    assert outcome.err == (
        f"pflx: {folder} is in the hub's cache, or is made of links, and is not changed. Copy it, and take the copy: "
        f"cp -rL {folder} me.pflx\n"
    )
    assert bundle_files(folder) == before
    shutil.copytree(folder, copied)
    require_own(copied)


def test_the_page_calls_a_bundle_of_the_hub_by_its_repository(bundle: Path, tmp_path: Path) -> None:
    folder = in_the_cache(bundle, tmp_path)
    assert [name for name, _ in _named([bundle, folder])] == ["me", "listener"]


def test_a_malformed_manifest_is_told_as_that_of_any_bundle(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    hub.repos["me/listener"] = {"main": bundle_files(bundle) | {"manifest.json": b'{"files": 3}'}}
    hub.repos["me/older"] = {"main": {"manifest.json": msgspec.json.encode({"schema": 1, "files": {}})}}
    malformed, older = pflx_with(hub, tmp_path, ["inspect", "hf://me/listener"], ["inspect", "hf://me/older"])
    assert "manifest.json is malformed" in malformed.err
    assert "was written by an older pflx" in older.err


def answer(status: int, message: str = "") -> Exception:
    """What the library makes of an answer."""
    hub = import_hub()
    response = SimpleNamespace(headers={}, request=None, status_code=status)
    error: Exception = hub.errors.HfHubHTTPError("Client Error\nfor url", response=response, server_message=message)
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answer(401), "the hub asks who you are: run `hf auth login`."),
        (
            answer(403, "No right to this.\nSee there"),
            "the hub refuses it: No right to this. Sign in with a token that may do this: `hf auth login`.",
        ),
        (answer(429, "Too many requests"), "the hub answers 429: Too many requests. Try again later."),
        (answer(500), "the hub answers 500: Client Error. Try again later."),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the cache cannot be written: No space left on device. Free space, or set HF_HOME to a folder of your own.",
        ),
        (ConnectionResetError(104, "reset"), "the hub cannot be reached: [Errno 104] reset. Try again."),
        (RuntimeError("TLS failed.\n at …"), "the hub cannot be reached: TLS failed. Try again."),
        (RuntimeError(), "the hub cannot be reached: RuntimeError. Try again."),
        (ValueError("Repo id must\nbe 'a'."), "Repo id must be 'a'. Change that."),
    ],
)
@pytest.mark.parametrize("writes", [False, True])
def test_whatever_the_library_raises_is_one_line(error: Exception, said: str, writes: bool) -> None:
    with pytest.raises(HubError) as caught, told(HubAddress("me/listener"), writes=writes):
        raise error
    assert str(caught.value) == f"hf://me/listener: {said}"
