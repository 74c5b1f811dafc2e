from __future__ import annotations

import json
import math
import re
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.export.reactface_tables import position_tables
from support.golden_arrays import golden, statistics, to_float, unpack_pixels
from support.places import GOLDEN
from torch import Tensor, nn

from pflx.export import InputError, ModelNameError, ModelOptionError, StateDictError, load_model, untrained
from pflx.export.models import PosNet, PosNetSmoother, ReactFace, ReactFaceListener, ReactFaceSpeaker
from pflx.export.models.keys import Keys, load_strictly, public_shapes
from pflx.export.models.layers import DecoderStack, alignment_bias, periodic_bias
from pflx.export.models.video_window import N_OUTPUTS, WindowConv, minimal_filter
from pflx.export.models.wav2vec2 import PositionConv, n_tokens
from pflx.export.models.weights import fill

KEYS: dict[str, dict[str, list[int]]] = json.loads((GOLDEN / "keys.json").read_text())
POSITION_CONV = "speaker_reaction_decoder.audio_encoder.wav2vec2.encoder.pos_conv_embed.conv"


def public_weights(name: str, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Every key of the public checkpoint but the analytic tables, as the fixtures were made with."""
    return fill({key: tuple(shape) for key, shape in KEYS[name].items() if not key.endswith(".pe")}, seed)


def tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)


def max_error(got: Tensor, expected: npt.NDArray[np.float32]) -> float:
    assert got.shape == expected.shape
    return float((got - tensor(expected)).abs().max())


@pytest.fixture(scope="module")
def reactface() -> ReactFace:
    network = load_model("reactface", public_weights("reactface", int(golden("reactface")["weight_seed"])))
    assert isinstance(network, ReactFace)
    return network


@pytest.fixture(scope="module")
def speaker() -> tuple[Tensor, Tensor]:
    """Sixteen frames [1, 16, 3, 224, 224] in [-1, 1] and their audio [1, 10240]."""
    case = golden("reactface")
    return tensor(to_float(unpack_pixels(case["video_packed"]))), tensor(case["audio"])


@pytest.mark.parametrize("mode", ["stream", "history"])
def test_reactface_gives_the_published_reactions(
    reactface: ReactFace, speaker: tuple[Tensor, Tensor], mode: str
) -> None:
    case, (video, audio) = golden("reactface"), speaker
    reaction, motion = torch.zeros(1, 8, 58), torch.full((1, 128), math.nan)
    for step in range(2):
        start = 8 * step if mode == "stream" else 0
        frames, sound = video[:, start : 8 * step + 8], audio[:, 640 * start : 5120 * (step + 1)]
        eps = tensor(case["eps"][step])
        reaction, motion = reactface(frames, sound, reaction, motion, eps, step == 0)
        assert max_error(reaction, case[f"outputs_{mode}"][step]) <= 2e-4
        assert max_error(motion, case[f"motion_samples_{mode}"][step]) <= 2e-4


def test_the_encoders_give_the_published_features(reactface: ReactFace, speaker: tuple[Tensor, Tensor]) -> None:
    case, (video, audio) = golden("reactface"), speaker
    hidden = reactface.speaker_reaction_decoder.audio_encoder(audio[:, :5120])
    assert max_error(hidden[..., ::4], case["wav2vec_hidden"]) <= 1e-3
    assert max_error(reactface.video_encoder(video[:, :8]), case["video_features"]) <= 2e-4


def test_the_exported_speaker_side_equals_the_network(reactface: ReactFace, speaker: tuple[Tensor, Tensor]) -> None:
    pixels = tensor(unpack_pixels(golden("reactface")["video_packed"])).reshape(2, 8, 224, 224, 3)
    video, audio = speaker
    expected = reactface.speaker(video.reshape(2, 8, 3, 224, 224), audio.reshape(2, 5120))
    got = ReactFaceSpeaker(reactface)(pixels, audio.reshape(2, 5120))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


@pytest.mark.parametrize("first", [True, False])
def test_samples_in_one_batch_equal_single_runs(reactface: ReactFace, first: bool) -> None:
    torch.manual_seed(0)
    encoded = torch.randn(1, 8, 128), torch.randn(1, 16, 128)
    state = torch.randn(3, 8, 58), torch.randn(3, 128), torch.randn(3, 128)
    listener = ReactFaceListener(reactface)
    batch = listener(*encoded, *state, torch.tensor([first]))
    for i in range(3):
        past_reaction, past_motion, eps = (value[i : i + 1] for value in state)
        single = reactface.listener(*encoded, past_reaction, past_motion, eps, first)
        for ours, theirs in zip(batch, single, strict=True):
            torch.testing.assert_close(ours[i : i + 1], theirs, atol=1e-5, rtol=0)


def test_a_longer_window_reads_the_last_frames_of_a_longer_history(reactface: ReactFace) -> None:
    with torch.device("meta"):
        network = ReactFace(window=16)
    network.load_state_dict(reactface.state_dict(), assign=True)
    video, audio = torch.rand(1, 16, 3, 224, 224) * 2 - 1, torch.randn(1, 10240)
    with torch.inference_mode():
        motion, speech = network.speaker(video, audio)
        last_motion, last_speech = reactface.speaker(video, audio)
        state = torch.zeros(1, 16, 58), torch.zeros(1, 128), torch.zeros(1, 128)
        reaction, _ = network(video, audio, *state, True)
    assert reaction.shape == (1, 16, 58)
    torch.testing.assert_close(motion[:, 8:], last_motion)
    torch.testing.assert_close(speech[:, 16:], last_speech)


def test_a_window_that_breaks_the_period_is_refused() -> None:
    for window in (0, 4, 12):
        with pytest.raises(ModelOptionError, match=rf"multiple of 8 frames, got {window}\."):
            ReactFace(window)


@pytest.mark.parametrize(
    ("shape", "n_samples", "words"),
    [
        ((1, 8, 3, 256, 256), 5120, r"got \[1, 8, 3, 256, 256\]"),
        ((1, 12, 3, 224, 224), 7680, "multiple of 8; got 12"),
        ((1, 8, 3, 224, 224), 5000, "8 frames need 5120 audio samples, got 5000"),
    ],
)
def test_a_speaker_that_does_not_fit_is_refused(
    reactface: ReactFace, shape: tuple[int, ...], n_samples: int, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        reactface.speaker(torch.zeros(shape), torch.zeros(1, n_samples))


def test_half_precision_keeps_biases_and_positions_exact() -> None:
    with torch.device("meta"):
        network = ReactFace().half()
    assert network.past_motion_linear.weight.dtype == torch.float16
    torch.testing.assert_close(network.timing.self_bias, periodic_bias(8, 8), rtol=0, atol=0)
    assert all(value.dtype == torch.float32 for value in network.timing.buffers())


@given(n_frames=st.integers(1, 4).map(lambda n: 8 * n))
def test_biases_hide_the_future_and_align_speech(n_frames: int) -> None:
    visible = periodic_bias(n_frames, 2 * n_frames).softmax(-1) > 0
    assert [int(row.nonzero().max()) for row in visible[0]] == list(range(n_frames, 2 * n_frames))
    spoken = alignment_bias(n_frames).softmax(-1)
    assert [row.nonzero().flatten().tolist() for row in spoken] == [[2 * i, 2 * i + 1] for i in range(n_frames)]


def test_the_self_bias_falls_by_the_head_slope_every_eight_frames() -> None:
    bias = periodic_bias(24, 24)
    assert bias[0, 23, [23, 16, 15, 8, 7, 0]].tolist() == [0, 0, -0.5, -0.5, -1, -1]
    assert bias[7, 23, 0].item() == -2 / 256


def test_attention_equals_pytorchs_decoder_layer() -> None:
    torch.manual_seed(0)
    theirs = nn.TransformerDecoderLayer(128, 8, 256, batch_first=True).eval()
    ours = DecoderStack(128)
    ours.load_state_dict({f"layers.0.{key}": value for key, value in theirs.state_dict().items()})
    tokens, memory = torch.randn(2, 8, 128), torch.randn(2, 16, 128)
    bias = periodic_bias(8, 8)
    expected = theirs(tokens, memory, bias.repeat(2, 1, 1))
    torch.testing.assert_close(ours(tokens, memory, bias), expected, atol=1e-5, rtol=0)


@given(n_taps=st.sampled_from([3, 5]), seed=st.integers(0, 2**32 - 1))
def test_minimal_filtering_is_correlation(n_taps: int, seed: int) -> None:
    restore, taps_to, signal_to = minimal_filter(n_taps)
    random = np.random.default_rng(seed)
    taps, signal = random.standard_normal(n_taps), random.standard_normal(n_taps + N_OUTPUTS - 1)
    got = restore @ ((taps_to @ taps) * (signal_to @ signal))
    np.testing.assert_allclose(got, np.correlate(signal, taps, "valid"), atol=1e-10)


@settings(deadline=None, max_examples=20)
@given(n_taps=st.sampled_from([3, 5]), n_frames=st.sampled_from([4, 8, 16]), grouped=st.booleans())
def test_a_window_convolution_equals_the_3d_one(n_taps: int, n_frames: int, grouped: bool) -> None:
    torch.manual_seed(n_frames)
    conv = nn.Conv3d(3, 5, (n_taps, 3, 3), (1, 2, 2), (n_taps // 2, 1, 1), bias=False)
    frames = torch.randn(2, n_frames, 3, 11, 9)
    with torch.no_grad():
        got = WindowConv(conv, n_frames, grouped)(frames)
        torch.testing.assert_close(got, conv(frames.transpose(1, 2)), atol=5e-5, rtol=0)


@settings(deadline=None, max_examples=10)
@given(n_frames=st.integers(1, 6).map(lambda n: 8 * n))
def test_trimming_the_position_convolution_changes_nothing(n_frames: int) -> None:
    torch.manual_seed(0)
    conv, n = PositionConv().requires_grad_(False), n_tokens(640 * n_frames)
    assert n == 2 * n_frames - 1
    tokens = torch.randn(1, n, 768)
    expected = conv(tokens)
    conv.trim(n)
    torch.testing.assert_close(conv(tokens), expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def posnet() -> PosNet:
    network = load_model("posnet", public_weights("posnet", int(golden("posnet")["weight_seed"])))
    assert isinstance(network, PosNet)
    return network


def test_posnet_gives_the_published_pose(posnet: PosNet) -> None:
    case = golden("posnet")
    got = posnet(tensor(case["past_pos"]), tensor(case["current_pos"]))
    assert max_error(got, case["output"]) <= 1e-5


def test_the_exported_smoother_repeats_the_published_loop(posnet: PosNet) -> None:
    case = golden("posnet")
    segments, expected = tensor(case["segments"])[0], tensor(case["online_output"])[0]
    smoother, pose = PosNetSmoother(posnet), segments[:, 0, -1, 52:]
    for i in (1, 2):
        smoothed, pose = smoother(segments[:, i, 25:], pose)
        torch.testing.assert_close(smoothed, expected[:, 25 * (i + 1) : 25 * (i + 2)], atol=1e-5, rtol=0)
        assert torch.equal(smoothed[..., :52], segments[:, i, 25:, :52])
        assert torch.equal(pose, smoothed[:, -1, 52:])


@pytest.mark.parametrize("slide", [1, 8, 25])
def test_posnet_reads_its_slide_from_the_last_layer(slide: int) -> None:
    network = load_model("posnet", untrained("posnet", 3, slide=slide))
    past, current = torch.randn(2, 3, 30, 6), torch.randn(2, 3, 30, 6)
    got = network(past, current)
    assert got.shape == (2, 3, 30, 6)
    assert torch.equal(got[:, :, :-slide], past[:, :, slide:])
    stale = torch.cat((torch.zeros(2, 3, 30 - slide, 6), current[:, :, -slide:]), dim=2)
    assert torch.equal(network(past, stale), got)


def test_posnet_refuses_windows_shorter_than_its_slide(posnet: PosNet) -> None:
    with pytest.raises(InputError, match=r"\[B, K, 25 or more, 6\], got \[1, 1, 20, 6\]"):
        posnet(torch.zeros(1, 1, 20, 6), torch.zeros(1, 1, 20, 6))


@pytest.mark.parametrize("case_name", ["pirender_256", "pirender_224", "pirender73_256"])
def test_pirender_gives_the_published_frame(case_name: str) -> None:
    case, name = golden(case_name), case_name.partition("_")[0]
    network = load_model(name, public_weights(name, int(case["weight_seed"])))
    portrait = tensor(to_float(unpack_pixels(case["source_packed"])))
    with torch.inference_mode():
        got = network(portrait, tensor(case["coeff_window"]))
    assert max_error(got["flow_field"], case["flow_field"]) <= 1e-4
    for kind in ("fake_image", "warp_image"):
        assert max_error(got[kind][..., ::4, ::4], case[kind]) <= 5e-5
        np.testing.assert_allclose(statistics(got[kind].numpy()), case[f"{kind}_statistics"], atol=5e-5)


@pytest.mark.parametrize("name", sorted(KEYS))
def test_untrained_weights_have_the_public_keys(name: str) -> None:
    weights = untrained(name, 4)
    public = {key: tuple(shape) for key, shape in KEYS[name].items()}
    assert {key: tuple(value.shape) for key, value in weights.items()}.items() <= public.items()
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())


def test_untrained_weights_are_the_same_everywhere() -> None:
    values = fill({"a.weight": (16, 8, 3, 3)}, 7)["a.weight"]
    assert zlib.crc32(values.tobytes()) == 0x7F805576


def test_a_loaded_network_computes_without_gradients(posnet: PosNet) -> None:
    assert not posnet.training
    assert not any(parameter.requires_grad for parameter in posnet.parameters())


def test_both_weight_norm_spellings_and_tables_load(reactface: ReactFace) -> None:
    weights: dict[str, Any] = dict(public_weights("reactface", 1))
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        weights[f"{POSITION_CONV}.parametrizations.weight.{new}"] = weights.pop(f"{POSITION_CONV}.{old}")
    weights |= position_tables()
    network = load_model("reactface", weights)
    torch.testing.assert_close(
        network.get_parameter(f"{POSITION_CONV}.weight"), reactface.get_parameter(f"{POSITION_CONV}.weight")
    )


def test_weight_norm_folds_to_the_plain_weight() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 6, 3, groups=2)

    theirs = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3, groups=2), dim=2)
    ours = Normed()
    load_strictly(
        "it",
        ours,
        Keys(weight_norm={"conv.weight": 2}),
        {f"conv.{k}": v for k, v in theirs.state_dict().items()},
    )
    signal = torch.randn(1, 4, 9)
    torch.testing.assert_close(ours.conv(signal), theirs(signal))


def test_one_error_lists_every_key_that_does_not_fit() -> None:
    weights: dict[str, Any] = dict(untrained("posnet", 0))
    del weights["fc1.bias"], weights["fc2.weight"]
    weights |= {"fc9.weight": torch.zeros(1), "fc2.bias": torch.zeros(3), "epoch": 7}
    with pytest.raises(StateDictError) as raised:
        load_model("posnet", weights)
    assert raised.value.problems == (
        "missing fc1.bias",
        "missing fc2.weight",
        "fc2.bias is [3], not [512]",
        "unknown fc9.weight",
        "unknown epoch",
    )
    assert "\n" not in str(raised.value)


def test_an_unused_key_is_accepted_only_in_its_own_shape() -> None:
    layer, keys = nn.Linear(2, 2), Keys(unused={"table.pe": (5, 1, 2)})
    weights = {key: torch.zeros(shape) for key, shape in public_shapes(layer, keys).items()}
    load_strictly("it", layer, keys, {**weights, "table.pe": np.ones((5, 1, 2))})
    with pytest.raises(StateDictError, match=re.escape("table.pe is [5, 2], not [5, 1, 2]")):
        load_strictly("it", layer, keys, {**weights, "table.pe": np.ones((5, 2))})


def test_the_same_parameter_in_both_spellings_is_refused() -> None:
    keys = Keys(weight_norm={"weight": 0})
    weights = {"weight_g": torch.ones(2, 1), "weight_v": torch.ones(2, 2), "bias": torch.ones(2)}
    wrapped, again = nn.Sequential(nn.Linear(2, 2)), torch.ones(2, 1)
    both = {f"0.{key}": value for key, value in weights.items()} | {"0.parametrizations.weight.original0": again}
    with pytest.raises(StateDictError, match=r"0\.weight_g is there in both weight-norm spellings"):
        load_strictly(
            "it",
            wrapped,
            Keys(weight_norm={f"0.{key}": axis for key, axis in keys.weight_norm.items()}),
            both,
        )


def test_wrong_names_and_options_are_named() -> None:
    with pytest.raises(ModelNameError, match="No network is named 'face'; there are belfusion, belfusion_mlp"):
        load_model("face", {})
    with pytest.raises(ModelOptionError, match="posnet takes slide and hidden, got 'window'"):
        untrained("posnet", 0, window=8)
    with pytest.raises(ModelOptionError, match="pirender takes no options, got 'size'"):
        load_model("pirender", {}, size=256)


def test_a_half_precision_smoother_stays_close_and_keeps_its_interface(posnet: PosNet) -> None:
    torch.manual_seed(1)
    segment, pose = torch.randn(2, 25, 58), torch.randn(2, 6)
    expected, _ = PosNetSmoother(posnet)(segment, pose)
    half = PosNet(25).requires_grad_(False)
    half.load_state_dict(posnet.state_dict())
    smoothed, new_pose = PosNetSmoother(half.half())(segment, pose)
    assert smoothed.dtype == new_pose.dtype == torch.float32
    assert F.l1_loss(smoothed, expected) < 5e-3
