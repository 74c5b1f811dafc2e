"""How the weights of each network are known: by a key that it has and others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from pflx.export.models import NETWORKS, public_keys


@dataclass(frozen=True)
class Signature:
    """How a network is known, and where its file goes.

    Attributes:
        key: that it has and others do not, unless they differ in its shape.
        noun: its name for people.
        slot: the option that takes it; empty for one that no bundle takes.
        shape: of `key`, where others have it too.
        fix: what to do with one that no option takes.
        variant_of: a network that it could be taken for; where that is wanted, it must be told from it.
        verb: that has the option.
        keys: that weights must have of one that `load_model` does not take.
    """

    key: str
    noun: str
    slot: str = "--generator"
    shape: tuple[int, ...] | None = None
    fix: str = ""
    variant_of: str = ""
    verb: str = "export"
    keys: frozenset[str] = frozenset()


_NOT_NEEDED = "it never reaches the reaction, leave it out"
_MODIFIER_KEYS = frozenset(
    f"{name}.{leaf}"
    for name in ("shared_layers.0", "shared_layers.1", "branches.0", "branches.1", "branches.2")
    for leaf in ("weight", "bias")
)
SIGNATURES: Mapping[str, Signature] = {
    "pirender": Signature("mapping_net.pre.weight", "a PIRender renderer (58 coefficients)", "--renderer"),
    "pirender73": Signature("mapping_net.first.0.weight", "a PIRender renderer (73 coefficients)", "--renderer"),
    "posnet": Signature("fc3.weight", "PosNet", "--posnet"),
    "reactface": Signature("video_encoder.Conv3D.conv1.weight", "a ReactFace generator"),
    "perfrdiff_render": Signature("to_3dmm_feat.weight", "PerFRDiffRender's denoiser", fix="ask for perfrdiff_render"),
    "perfrdiff": Signature("to_3dmm_embed.weight", "PerFRDiff's denoiser"),
    "perfrdiff_emotion": Signature("coeff_reg.0.weight", "PerFRDiff's embedder of coefficients", shape=(512, 58)),
    "transvae": Signature("speaker_behaviour_encoder.video_encoder.Conv3D.conv1.weight", "a Trans-VAE generator"),
    "belfusion_mlp": Signature("layers.0.linear_emb.weight", "BeLFusion's denoiser"),
    "belfusion_vae": Signature("coeff_reg.0.weight", "BeLFusion's autoencoder", shape=(128, 25)),
    "perfrdiff_v1": Signature(
        "to_emotion_embed.weight",
        "the original PerFRDiff's denoiser",
        "",
        fix="it yields emotion and no coefficients to render, pass a denoiser of 58 coefficients",
    ),
    "perfrdiff_prior": Signature("null_s_latent_embed", "PerFRDiff's prior", "", fix=_NOT_NEEDED),
    "perfrdiff_latent": Signature(
        "coeff_reg.0.weight", "PerFRDiff's embedder of emotion", "", shape=(512, 25), fix=_NOT_NEEDED
    ),
    "perfrdiff_person": Signature(
        "embed_layer.weight", "PerFRDiff's encoder of persons", "--person-encoder", verb="person make"
    ),
    "react2026_modifier": Signature(
        "hypernet.shared_layers.0.weight",
        "the hypernetwork of REACT 2026's PerFRDiff",
        "",
        fix="it makes layers in an order of its own, for a denoiser that yields emotion, pass PerFRDiffRender's",
        variant_of="perfrdiff_modifier",
        keys=frozenset(f"hypernet.{key}" for key in _MODIFIER_KEYS),
    ),
    "perfrdiff_modifier": Signature(
        "shared_layers.0.weight", "PerFRDiff's hypernetwork", "--modifier", verb="person make", keys=_MODIFIER_KEYS
    ),
}
"""By the names that `load_model` takes, and of parts of PerFRDiff that no bundle holds."""


@cache
def expected_keys(network: str) -> frozenset[str]:
    """The keys that weights of a network must have; none of one that is never read."""
    return public_keys(network) if network in NETWORKS else SIGNATURES[network].keys
