"""Make tests/golden from the full reference fixtures: python tests/make_golden.py REFERENCE_DIR.

The fixtures come from the published modules (PIRender 9e59f19, ReactFace fa4b3a4, PFLPosNet 6c274a2), run
with seeded weights in eval mode, float32, on the CPU. Kept is what the tests compare: inputs whole, large
outputs at every fourth pixel with the statistics of all pixels.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from golden_arrays import GOLDEN, pack_pixels, statistics

COMPONENTS = {
    "pirender": "pirender58",
    "pirender73": "pirender73",
    "posnet": "posnet",
    "reactface": "reactface",
}
PIRENDER_CASES = {
    "pirender_256": "pirender58/case_256",
    "pirender_224": "pirender58/case_224",
    "pirender73_256": "pirender73/case_256",
}
STRIDE = 4


def main(reference: Path) -> None:
    GOLDEN.mkdir(exist_ok=True)
    _write_keys(reference)
    _write_reactface(reference / "reactface")
    _write_posnet(reference / "posnet")
    for name, case in PIRENDER_CASES.items():
        _write_pirender(name, reference / f"{case}.npz")


def _write_keys(reference: Path) -> None:
    shapes = {
        name: json.loads((reference / folder / "state_dict.json").read_text())["shapes"]
        for name, folder in COMPONENTS.items()
    }
    (GOLDEN / "keys.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")


def _write_reactface(folder: Path) -> None:
    stream, history = np.load(folder / "case_stream2.npz"), np.load(folder / "case_history2.npz")
    _save(
        "reactface",
        weight_seed=stream["weight_seed"],
        video_packed=pack_pixels(stream["video_u8"]),
        audio=stream["audio"],
        eps=stream["eps"],
        wav2vec_hidden=stream["mid0_wav2vec_hidden"][..., ::STRIDE],
        video_features=stream["mid0_video_features"],
        **{f"{name}_stream": stream[name] for name in ("outputs", "motion_samples")},
        **{f"{name}_history": history[name] for name in ("outputs", "motion_samples")},
    )


def _write_posnet(folder: Path) -> None:
    single, online = np.load(folder / "case_single.npz"), np.load(folder / "case_online3.npz")
    _save(
        "posnet",
        weight_seed=single["weight_seed"],
        **{name: single[name] for name in ("past_pos", "current_pos", "output")},
        segments=online["segments"],
        online_output=online["output"],
    )


def _write_pirender(name: str, path: Path) -> None:
    case = np.load(path)
    images = {kind: case[kind] for kind in ("warp_image", "fake_image")}
    _save(
        name,
        weight_seed=case["weight_seed"],
        source_packed=pack_pixels(case["source_u8"]),
        coeff_window=case["coeff_window"],
        flow_field=case["flow_field"],
        **{kind: image[..., ::STRIDE, ::STRIDE] for kind, image in images.items()},
        **{f"{kind}_statistics": statistics(image) for kind, image in images.items()},
    )


def _save(name: str, **arrays: Any) -> None:
    np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/make_golden.py REFERENCE_DIR")
    main(Path(sys.argv[1]))
