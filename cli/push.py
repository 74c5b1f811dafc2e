"""`pflx push`: a bundle to a repository on the hub, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.support.console import print_line, print_untrained, progress_bar
from pflx.cli.support.options import BundleArgument
from pflx.cli.support.paths import check_apart, check_output
from pflx.engines import Bundle
from pflx.engines.bundle.card import CARD, files_to_publish, write_card
from pflx.engines.bundle.manifest import MANIFEST, decode_manifest
from pflx.engines.files.writer import write_whole
from pflx.engines.hub.address import HubAddress, HubError, parse_address
from pflx.engines.hub.terms import check_licence
from pflx.engines.hub.upload import upload


def push(
    bundle: BundleArgument,
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository on the hub; made if it is not there.")],
    licence: Annotated[
        str, typer.Option("--license", metavar="ID", help="Of the bundle: its SPDX id, like apache-2.0, or other.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to publish on; made if it is not there. [main]")] = None,
    engines: Annotated[
        bool, typer.Option("--engines", help="Publish the TensorRT engines, too, which run on one kind of GPU.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be published, and show the card.")] = False,
    card_only: Annotated[
        Path | None, typer.Option("--card-only", help="Only write the card, .md, to look at; nothing is published.")
    ] = None,
) -> None:
    """Publish a bundle with a card, so that hf://ORG/NAME opens it anywhere."""
    check_output(card_only, ".md")
    check_apart(reads={"BUNDLE": bundle}, writes={"--card-only": card_only})
    address, licence = _address(repo, revision), check_licence(licence)
    with progress_bar() as report:
        report("checking the files", 0, None)
        opened = Bundle.open(bundle)
    print_untrained(opened.manifest)
    files = files_to_publish(opened, engines=engines)
    manifest = _content(files[MANIFEST])
    card = write_card(decode_manifest(manifest, opened.name), manifest, repo=address.repo, licence=licence)
    has_card = CARD in files
    if card_only is not None:
        write_whole(card_only, card.encode())
        print_line(f"Wrote {card_only}")
        return
    files.setdefault(CARD, card.encode())
    if has_card:
        print_line(f"{CARD} of the bundle is its card, and is published as it is; --license is not written into it.")
    if dry_run:
        for file, content in files.items():
            print_line(f"{_size(content) / 1e6:9.2f} MB  {file}")
        print_line(f"\n{_content(files[CARD]).decode(errors='replace')}")
        return
    commit = upload(files, address, message=f"pflx push {opened.name}", private=private or None)
    print_line(f"Published {address}, commit {commit[:8]}: pflx run CLIP -b {address} -p PICTURE")


def _address(repo: str, revision: str | None) -> HubAddress:
    address = parse_address(repo if "://" in repo else f"hf://{repo}")
    if address.folder or address.revision:
        raise HubError(f"{repo} is more than a repository. Give ORG/NAME, and the branch as --revision.")
    return HubAddress(address.repo, revision)


def _content(given: Path | bytes) -> bytes:
    return given if isinstance(given, bytes) else given.read_bytes()


def _size(given: Path | bytes) -> int:
    return len(given) if isinstance(given, bytes) else given.stat().st_size
