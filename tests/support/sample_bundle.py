"""Small bundles and graphs for the tests of bundles and builds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pflx.engines import (
    GeneratorInfo,
    GraphInfo,
    Manifest,
    MeanFace,
    PflInfo,
    Provenance,
    RendererInfo,
    SmootherInfo,
    TensorSpec,
    write_manifest,
)
from pflx.engines.bundle.policy import Origin

F32 = np.dtype(np.float32)
ROLES = {
    "speaker": "reactface_speaker",
    "listener": "reactface_listener",
    "smooth": "posnet",
    "portrait": "pirender_portrait",
    "frame": "pirender_frame",
}

ORIGIN = Origin(
    bundle="me.pflx",
    untrained=None,
    feeds="ab" * 32,
    bound={"psnr_db": 45.0},
    judged={"finite": True, "lowest_psnr_db": 51.5, "seam_z": None},
    evaluations=12,
    versions={"onnx": "1.23.2"},
)


def sample_manifest(precisions: tuple[str, ...] = ("fp32",)) -> Manifest:
    """A manifest of five graphs that take and return `x` and `y` [samples, 4]."""
    spec = TensorSpec(("samples", 4), F32)
    graphs = {
        name: GraphInfo(
            inputs={"x": spec},
            outputs={"y": spec},
            parameters=8,
            opset=20,
            files={precision: f"graphs/{name}.{precision}.onnx" for precision in precisions},
        )
        for name in ROLES.values()
    }
    return Manifest(
        created="2026-01-02T03:04:05+00:00",
        pflx="0.1.0",
        untrained=7,
        generator=GeneratorInfo(
            name="reactface",
            window=8,
            hop=8,
            needs=["video", "audio"],
            graphs={role: ROLES[role] for role in ("speaker", "listener")},
        ),
        smoother=SmootherInfo(name="posnet", slide=8, graphs={"smooth": "posnet"}),
        renderer=RendererInfo(name="pirender", size=256, graphs={role: ROLES[role] for role in ("portrait", "frame")}),
        pfl=PflInfo(mode="release", window=256, padding=20),
        mean_face=MeanFace(source="zero", values=[0.0] * 58),
        graphs=graphs,
        precision=precisions[0],
        provenance=[Provenance(slot="renderer", source="untrained", sha256="", keys=3)],
        versions={"numpy": np.__version__},
    )


def fill_bundle(folder: Path, content: bytes = b"graph ", precisions: tuple[str, ...] = ("fp32",)) -> Manifest:
    """Fill a folder with five small files that stand for graphs, a report, and the manifest."""
    (folder / "graphs").mkdir()
    manifest = sample_manifest(precisions)
    for name, graph in manifest.graphs.items():
        for file in graph.files.values():
            (folder / file).write_bytes(content + name.encode())
    (folder / "report.json").write_text("{}")
    return write_manifest(folder, manifest)
