"""Tensors that are no weights: refused with key, dtype and what to do."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pflx.export import CheckpointError, load_component, read_checkpoint, untrained

KEY = "fc1.weight"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return untrained("posnet", 0, slide=8)


def changed(value: Tensor, kind: str) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "sparse":
            return value.to_sparse()
        if kind == "csr":
            return value.to_sparse_csr()
        if kind == "quantised":
            return torch.quantize_per_tensor(value, 0.01, 0, torch.qint8)
        if kind == "meta":
            return value.to("meta")
    return value.to(getattr(torch, kind))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("int8", "as int8, which is no weight without its scales; pass the checkpoint in float32 or float16"),
        ("uint8", "as uint8, which is no weight without its scales"),
        ("bool", "as bool, which is no weight without its scales"),
        ("float8_e4m3fn", "as float8_e4m3fn, which is no weight without its scales"),
        ("float8_e5m2", "as float8_e5m2, which is no weight without its scales"),
        ("complex64", "as complex64, and the network computes with real numbers"),
        ("sparse", "as a sparse tensor of float32; save it as a dense one where it was made: value.to_dense()"),
        ("csr", "as a sparse tensor of float32"),
        ("quantised", "as quantised qint8; save it as float where it was made: value.dequantize()"),
        ("meta", "as a meta tensor of float32, which has no numbers; save it after its weights were loaded"),
    ],
)
def test_a_tensor_that_is_no_weight_is_named_with_its_dtype(
    tmp_path: Path, weights: dict[str, Tensor], kind: str, said: str
) -> None:
    for more in ((), ("fc2.weight",)):
        made = {key: changed(value, kind) if key in (KEY, *more) else value for key, value in weights.items()}
        torch.save({"state_dict": made}, tmp_path / "it.pth")
        with pytest.raises(CheckpointError) as caught:
            load_component(tmp_path / "it.pth", "posnet")
        count = " (and 1 more)" if more else ""
        assert str(caught.value).startswith(f"{tmp_path / 'it.pth'} holds '{KEY}'{count} {said}"), caught.value


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floats_are_weights(tmp_path: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
    torch.save({key: value.to(dtype) for key, value in weights.items()}, tmp_path / "it.pth")
    network, _ = load_component(tmp_path / "it.pth", "posnet")
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, weights[key].to(dtype).float(), rtol=0, atol=0)


def test_a_view_that_repeats_few_numbers_to_a_huge_shape_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    huge = torch.zeros(1, 1).expand(10**6, 10**7)  # 40 TB in four bytes: PosNet reads its width from it
    torch.save({**weights, "fc3.weight": huge}, tmp_path / "it.pth")
    assert (tmp_path / "it.pth").stat().st_size < 10**7
    with pytest.raises(CheckpointError, match=r"holds 'fc3\.weight' as a view of float32 that repeats few numbers"):
        read_checkpoint(tmp_path / "it.pth")


def test_a_view_of_its_own_size_is_a_weight(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(
        {key: value.T.contiguous().T if value.ndim == 2 else value for key, value in weights.items()},
        tmp_path / "it.pth",
    )
    loaded = load_component(tmp_path / "it.pth", "posnet")[0].state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in weights.items())


def test_what_no_step_reads_may_count_in_integers(tmp_path: Path) -> None:
    weights = untrained("perfrdiff_emotion", 0)
    extra = {"fc_mu_enc.weight": torch.zeros(512, 512, dtype=torch.int8)}
    torch.save(weights | extra, tmp_path / "it.pth")
    assert load_component(tmp_path / "it.pth", "perfrdiff_emotion")[1].notes
