"""The person encoder: the published styles of clips of every length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.export.personal_weights import encoder_weights
from support.golden_arrays import coefficient_track, golden

from pflx.export import InputError, load_model
from pflx.export.models import PersonEncoder
from pflx.export.persons import style_of


@pytest.fixture(scope="module")
def encoder() -> PersonEncoder:
    made = load_model("perfrdiff_person", encoder_weights())
    assert isinstance(made, PersonEncoder)
    return made


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    return golden("persons")


@pytest.mark.parametrize("person", [0, 1])
def test_half_a_minute_has_the_published_feature_and_style(
    encoder: PersonEncoder, case: dict[str, Any], person: int
) -> None:
    clip = torch.from_numpy(coefficient_track(f"person{person}", 750))
    with torch.inference_mode():
        feature, style = encoder(clip[None])
    assert float(abs(style[0].numpy() - case["proj"][person]).max()) <= 1e-5
    assert float(abs(feature[0].numpy() - case["feat"][person]).max()) <= 1e-4
    assert float(style.norm()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("frames", [50, 100, 600, 999])
def test_clips_of_any_length_have_the_published_style(
    encoder: PersonEncoder, case: dict[str, Any], frames: int
) -> None:
    style = style_of(encoder, coefficient_track("person0", frames))
    assert float(abs(style.numpy() - case[f"proj_{frames}"][0]).max()) <= 1e-5


def test_clips_of_several_persons_in_one_batch_have_the_styles_that_they_have_alone(
    encoder: PersonEncoder, case: dict[str, Any]
) -> None:
    clips = [torch.from_numpy(coefficient_track(f"person{person}", 750)) for person in (1, 0, 1)]
    with torch.inference_mode():
        _, styles = encoder(torch.stack(clips))
    for style, person in zip(styles, (1, 0, 1), strict=True):
        assert float(abs(style.numpy() - case["proj"][person]).max()) <= 1e-5


@pytest.mark.parametrize("shape", [(1, 1000, 58), (1, 0, 58), (1, 750, 25), (750, 58)])
def test_what_it_cannot_read_is_refused(encoder: PersonEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"reads \[B, 1 to 999, 58\], got \["):
        encoder(torch.zeros(shape))
