"""From an address on the hub to a folder on this machine, with the files that a bundle needs and no others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from glob import escape
from pathlib import Path
from typing import Any

import msgspec

from pflx.engines.hub.address import HubAddress, HubError, is_address, parse_address
from pflx.engines.hub.library import import_hub, told, why_offline

_MANIFEST = "manifest.json"
_CARDS = ("README.md", "LICENSE*", "NOTICE*")


class _Listed(msgspec.Struct):
    """What a manifest says of files; the rest is read where the bundle is opened."""

    files: Mapping[str, Any]


def local_folder(place: str | Path) -> Path:
    """Where a bundle lies on this machine.

    Args:
        place: a path, which is given back as it is; or `hf://ORG/NAME`, `hf://ORG/NAME@REVISION`, or either with
            `/FOLDER` behind it. Then what the bundle needs and is not there yet is fetched into the hub's cache
            (`HF_HOME`). Without a connection, what is in the cache serves.

    Raises:
        HubError: there is nothing at the address, or it cannot be had.
        BackendMissingError: huggingface_hub is not installed.
    """
    return _fetch(parse_address(place)) if is_address(place) else Path(place)


def _fetch(address: HubAddress) -> Path:
    hub = import_hub()
    with told(address):
        try:
            manifest = Path(hub.hf_hub_download(address.repo, address.within(_MANIFEST), revision=address.revision))
        except hub.errors.RemoteEntryNotFoundError as error:
            raise HubError(_no_bundle(address)) from error
        folder = manifest.parent
        files = _files(manifest)
        commit = folder.parents[address.folder.count("/")].name if address.folder else folder.name
        if _lacking(folder, files):
            needed = [escape(address.within(file)) for file in files]
            needed += [escape(address.within("")) + card for card in _CARDS]
            # Of the manifest's commit: the branch may have moved on.
            hub.snapshot_download(address.repo, revision=commit, allow_patterns=needed)
    for file in _lacking(folder, files):
        raise HubError(_lacks(address, file))
    return folder


def _lacking(folder: Path, files: Iterable[str]) -> list[str]:
    return sorted(file for file in files if not (folder / file).exists())


def _files(manifest: Path) -> list[str]:
    """What a manifest lists; nothing, where it is malformed, which is told when the bundle is opened."""
    try:
        return [*msgspec.json.decode(manifest.read_bytes(), type=_Listed).files]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []


def _lacks(address: HubAddress, file: str) -> str:
    """Why a listed file was not fetched."""
    hub = import_hub()
    if hub.constants.HF_HUB_OFFLINE:
        return f"{address}: '{file}' is not in the cache, and {why_offline()}"
    return f"{address}: its manifest lists '{file}', which the hub does not give. Connect, or ask who published it."


def _no_bundle(address: HubAddress) -> str:
    """Where in the repository bundles are, if there are any."""
    listed = import_hub().HfApi().list_repo_files(address.repo, revision=address.revision)
    folders = sorted(file.removesuffix(f"/{_MANIFEST}") for file in listed if file.endswith(f"/{_MANIFEST}"))
    here = f"{address} is no bundle: it has no {_MANIFEST}."
    if not folders:
        return f"{here} Check the name, or publish one: pflx push BUNDLE {address.repo}"
    others = ", ".join(str(HubAddress(address.repo, address.revision, folder)) for folder in folders)
    return f"{here} {address.repo} has {others}."
