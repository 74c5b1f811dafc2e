"""What is published of a bundle: its files, its manifest, and a card that tells people what it is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pflx.engines.bundle.bundle import Bundle, is_card
from pflx.engines.bundle.manifest import MANIFEST, Manifest, encode_manifest

CARD = "README.md"

_PIRENDER = (
    "The renderer is PIRender, and the weights of PIRender come under its own licence: the published ones are for "
    "non-commercial use. So is this bundle, where it holds them."
)


def files_to_publish(bundle: Bundle, *, engines: bool = False) -> dict[str, Path | bytes]:
    """Path to the file or its content, of all that a bundle is on another machine; cards of its own among it.

    Args:
        bundle: opened, its hashes checked.
        engines: whether compiled graphs go with it, which run on one kind of GPU; else the manifest names none.
    """
    manifest, plans = bundle.manifest, {passport.file for passport in bundle.manifest.engines}
    content: Path | bytes = bundle.path / MANIFEST
    if plans and not engines:
        kept = {path: info for path, info in manifest.files.items() if path not in plans}
        manifest = msgspec.structs.replace(manifest, engines=[], files=kept)
        content = encode_manifest(manifest)
    own = {path.name: path for path in sorted(bundle.path.iterdir()) if is_card(path.name) and path.is_file()}
    return {MANIFEST: content, **{path: bundle.path / path for path in manifest.files}, **own}


def write_card(manifest: Manifest, content: bytes, *, repo: str, licence: str) -> str:
    """The card of a bundle, as Markdown with a head in YAML that the hub reads.

    Args:
        manifest: that is published.
        content: of its file.
        repo: where, `ORG/NAME`.
        licence: as the hub names it, like `apache-2.0` or `other`.
    """
    return "\n".join(
        (
            *_head(manifest, licence),
            f"# {repo.partition('/')[2]}",
            "",
            *_introduction(manifest),
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {_cell(value)} |" for name, value in _facts(manifest, content)),
            "",
            "## Use",
            "",
            "```sh",
            "pip install 'pflx[cpu,hub]'",
            f"pflx run -b hf://{repo} -p me.png speaker.mp4",
            "```",
            "",
            "```python",
            "from pflx.runtime import Listener",
            "",
            f'with Listener.open("hf://{repo}", portrait="me.png") as listener:',
            '    for frame in listener.react("speaker.mp4"):',
            "        frame.image  # uint8 [H, W, 3] RGB",
            "```",
            "",
            "## Weights",
            "",
            "| part | from | sha256 of that file | tensors | note |",
            "|---|---|---|---|---|",
            *(
                f"| {' | '.join(map(_cell, (each.slot, each.source, each.sha256 or '-', str(each.keys), each.note)))} |"
                for each in manifest.provenance
            ),
            "",
            "## Licence",
            "",
            f"Published under `{licence}`. What the weights above were made from has terms of its own.",
            *([_PIRENDER] if _holds_pirender(manifest) else []),
            "",
        )
    )


def _head(manifest: Manifest, licence: str) -> Iterator[str]:
    named = (manifest.generator.name, *(info.name for info in manifest.renderers))
    tags = dict.fromkeys(("pflx", "onnx", "facial-reaction-generation", *named))
    yield "---"
    yield f"license: {licence}"
    yield "library_name: pflx"
    yield "tags:"
    yield from (f"- {tag}" for tag in tags if re.fullmatch(r"[a-z][a-z0-9-]*", tag))
    yield "---"
    yield ""


def _introduction(manifest: Manifest) -> Iterator[str]:
    yield "A listener for pflx: it watches and hears a speaker, and reacts with its face, live or to a clip."
    if manifest.untrained is not None:
        yield f"Its weights are made up (seed {manifest.untrained}), not trained: it shows that things run, no more."


def _facts(manifest: Manifest, content: bytes) -> Iterator[tuple[str, str]]:
    generator, renderer = manifest.generator, manifest.renderer
    precisions = sorted({precision for graph in manifest.graphs.values() for precision in graph.files})
    n_bytes = sum(info.bytes for info in manifest.files.values())
    yield "generator", f"{generator.name}, {generator.hop} frames a step, of {generator.window}"
    yield "reads of the speaker", ", ".join(generator.needs)
    yield "smoother", manifest.smoother.name
    yield "renderer", f"{renderer.name}, {renderer.size}x{renderer.size} px"
    if manifest.preview is not None:
        yield "preview", manifest.preview.name
    yield "frames per second", str(manifest.fps)
    yield "sound", f"{manifest.sample_rate_hz} Hz"
    yield "precision", f"{manifest.precision}; there is {', '.join(precisions)}"
    yield "weights", f"{sum(graph.parameters for graph in manifest.graphs.values()) / 1e6:.2f} M"
    yield "size", f"{n_bytes / 1e6:.1f} MB in {len(manifest.files) + 1} files"
    if manifest.engines:
        yield "engines", ", ".join(sorted({f"{each.backend} {each.backend_version}" for each in manifest.engines}))
    yield "written", f"{manifest.created} by pflx {manifest.pflx}, schema {manifest.schema}"
    yield f"sha256 of `{MANIFEST}`", f"`{hashlib.sha256(content).hexdigest()}`, which lists those of all other files"


def _holds_pirender(manifest: Manifest) -> bool:
    return manifest.untrained is None and any(info.name == "pirender" for info in manifest.renderers)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
