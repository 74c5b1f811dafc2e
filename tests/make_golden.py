"""Make tests/golden from the full reference fixtures: python tests/make_golden.py REFERENCE_DIR.

The fixtures come from the published modules (PIRender 9e59f19, ReactFace fa4b3a4, PFLPosNet 6c274a2, PerFRDiff 8f08853,
PerFRDiffRender 42b1efc, Trans-VAE and BeLFusion of baseline_react2024 0c3ce58), run with seeded weights in eval mode,
float32, on the CPU. Kept is what the tests compare: inputs whole, large outputs at every fourth pixel with the
statistics of all pixels.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from support.golden_arrays import pack_pixels, statistics
from support.places import GOLDEN

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
EVALUATION_CASES = {"evaluation_emotion25": "metrics/case_emotion25", "evaluation_3dmm58": "metrics/case_3dmm58"}
"""Whole: inputs, and what the metrics of baseline_react2024 0c3ce58 make of them."""
STRIDE = 4


def main(reference: Path) -> None:
    GOLDEN.mkdir(exist_ok=True)
    _write_keys(reference)
    _write_reactface(reference / "reactface")
    _write_posnet(reference / "posnet")
    for name, case in PIRENDER_CASES.items():
        _write_pirender(name, reference / f"{case}.npz")
    for name, case in EVALUATION_CASES.items():
        shutil.copyfile(reference / f"{case}.npz", GOLDEN / f"{name}.npz")
    _write_transvae(reference / "transvae")
    _write_belfusion(reference / "belfusion")
    _write_perfrdiff(reference / "perfrdiff")
    _write_persons(reference / "perfrdiff_personal")


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
        **{name: single[name] for name in single if name.startswith(("loss_", "grad_", "gradnorm_"))},
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


def _write_transvae(folder: Path) -> None:
    """The video is made again by the tests."""
    case = np.load(folder / "case_online3.npz")
    kept = ("speaker_audio", "eps", "out_3dmm", "out_emotion", "mu", "std", "video_feature_2frames")
    features = {name: case[name] for name in ("speaker_feature_step2", "fused_feature_step2")}
    _save("transvae", keys=_keys(folder / "state_dict.json"), **{name: case[name] for name in kept}, **features)


def _write_belfusion(folder: Path) -> None:
    case = np.load(folder / "case_online3.npz")
    steps = [f"mlp_out_t{t}" for t in (0, 5, 9)]
    kept = ("speaker_emotion", "noise", "stat_min", "stat_max", "cond", *steps, "prediction_emotion", "prediction_3dmm")
    files = {"mlp": "state_dict.json", "vae": "state_dict.belfusion_vae.json"}
    keys = {f"{part}_keys": _keys(folder / file) for part, file in files.items()}
    _save("belfusion", **keys, **{name: case[name] for name in (*kept, "alphas_cumprod")})


def _write_perfrdiff(folder: Path) -> None:
    steps, online, past, v1 = (
        np.load(folder / f"case_{name}.npz") for name in ("steps", "online3", "past_online3", "v1_original")
    )
    calls = ("den_cond_t500", "den_uncond_t500", "den_cfg_t20", "den_cfg_t500", "den_cfg_t980", "den_cfg_past_t500")
    inputs = ("den_x", "den_audio01", "den_speaker_3dmm", "den_past_listener")
    stream = ("speaker_audio", "speaker_3dmm", "noise_decoder", "windows_3dmm", "stream_3dmm")
    original = ("x", "speaker_audio_raw", "speaker_3dmm", "speaker_latent", "cfg_t500", "sample50")
    parts = ("denoiser_v5", "denoiser_v1", "latent_3dmm_embedder")
    _save(
        "perfrdiff",
        **{f"{part}_keys": _keys(folder / f"state_dict.{part}.json") for part in parts},
        **{name: steps[name] for name in (*inputs, *calls, "alphas_cumprod")},
        **{name: online[name] for name in stream},
        stream_emotion=online["stream_emotion_before_posnet"],
        **{f"past_{name}": past[name] for name in ("speaker_audio", "speaker_3dmm", "noise_decoder")},
        past_windows_3dmm=past["windows_3dmm"][:, :, :2],
        **{f"v1_{name}": v1[name] for name in original},
    )


def _write_persons(folder: Path) -> None:
    """Every value of an edited matrix is in its probe, a product with one random vector."""
    encoder, full = np.load(folder / "case_person.npz"), np.load(folder / "case_modifier_full.npz")
    lengths = (50, 100, 600, 999)
    _save(
        "persons",
        encoder_keys=_keys(folder.parent / "perfrdiff/state_dict.person_specific.json"),
        denoiser_render_keys=_keys(folder / "state_dict.denoiser_render.json"),
        **{name: encoder[name] for name in ("feat", "proj", *(f"proj_{n}" for n in lengths))},
        **{f"full_{name}": full[name] for name in full if not name.endswith(("_rows", "_stat_delta"))},
        **_edited(folder, "render"),
        **_edited(folder, "v1"),
    )


def _edited(folder: Path, variant: str) -> dict[str, Any]:
    case = np.load(folder / f"case_edit_{variant}.npz")
    inputs = [name for name in case if name.startswith(("call_", "run_", "probe_", "person_", "generic_"))]
    made = [name for name in case if name.endswith(("_shared", "_probe", "_cfg", "_run"))]
    named = {f"{variant}_{name}": case[name] for name in dict.fromkeys((*inputs, *made))}
    return {f"{variant}_keys": _keys(folder / f"state_dict.modifier_{variant}.json"), **named}


def _keys(path: Path) -> str:
    """Key → shape, as JSON."""
    return json.dumps(json.loads(path.read_text())["shapes"], separators=(",", ":"))


def _save(name: str, **arrays: Any) -> None:
    np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/make_golden.py REFERENCE_DIR")
    main(Path(sys.argv[1]))
