"""What is said of a candidate, and what it is refused for."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from pflx.calibration.feeds.replay import Performance
from pflx.calibration.judge import Bound, Judgement, judge

HOP = 8


def performance(seed: int = 0) -> Performance:
    """Six segments of smooth motion, and six pictures around the seam in the middle."""
    rng = np.random.default_rng(seed)
    time = np.arange(6 * HOP)[:, None] / 25
    motion = 0.2 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.6, 58) * time + rng.uniform(0, 1, 58)))
    track = motion.astype(np.float32)[None]
    rows, columns = np.mgrid[0:64, 0:64]
    images = [
        np.repeat((110 + 60 * np.sin((rows + shot) / 9) + 40 * np.cos(columns / 7))[..., None], 3, axis=2)
        for shot in range(6)
    ]
    return Performance(track, track, np.arange(21, 27), np.stack(images).astype(np.uint8), seam=3)


def changed(images: np.ndarray) -> Judgement:
    reference = performance()
    return judge([reference], [replace(reference, images=images)], HOP)


def moved(track: np.ndarray) -> Judgement:
    reference = performance()
    return judge([reference], [replace(reference, smoothed=track)], HOP)


def test_equal_performances_pass_any_bound() -> None:
    found = judge([performance(), performance(1)], [performance(), performance(1)], HOP)
    assert (found.psnr_db, found.lowest_psnr_db) == (100.0, 100.0)
    assert found.ssim == pytest.approx(1.0)
    assert (found.coefficients_max, found.coefficients_rms, found.head_deg) == (0.0, 0.0, 0.0)
    assert (found.added_flicker, found.added_at_seams) == (0.0, 0.0)
    assert found.seam_z == found.reference_seam_z
    assert found.flicker == found.reference_flicker > 0
    assert Bound(psnr_db=100, ssim=0.999, head_deg=0, seam_z=0, added_at_seams=0).faults(found) == []


def test_psnr_is_that_of_the_squared_error() -> None:
    images = performance().images.copy()
    images[2] += 4
    found = changed(images)
    assert found.lowest_psnr_db == pytest.approx(10 * np.log10(255**2 / 16), abs=1e-4)
    assert found.psnr_db == pytest.approx(10 * np.log10(255**2 / (16 / 6)), abs=1e-4)


def test_black_pictures_are_refused() -> None:
    found = changed(np.zeros_like(performance().images))
    faults = Bound().faults(found)
    assert any(fault.startswith("a picture has 6.") or "dB, asked are 38" in fault for fault in faults)
    assert any("SSIM" in fault for fault in faults)


def test_numbers_that_are_not_finite_are_refused_first() -> None:
    track = performance().smoothed.copy()
    track[0, 5, 52] = np.nan
    found = moved(track)
    assert not found.finite
    assert found.coefficients_max is found.head_deg is found.seam_z is None
    assert Bound().faults(found) == ["coefficients are not finite"]


def test_the_head_is_told_in_degrees_and_expression_is_not_the_head() -> None:
    track = performance().smoothed.copy()
    track[0, 12, 53] += np.radians(2.0)
    track[0, 12, 3] += 0.5
    found = moved(track)
    assert found.head_deg == pytest.approx(2.0, abs=1e-3)
    assert found.coefficients_max == pytest.approx(0.5, abs=1e-5)
    assert found.coefficients_rms == pytest.approx(np.sqrt((0.5**2 + np.radians(2) ** 2) / (48 * 58)), rel=1e-3)
    assert Bound().faults(found) == ["the head is 2.00° off, allowed are 0.5"]


def test_a_seam_in_the_motion_is_refused() -> None:
    track = performance().smoothed.copy()
    for border in range(HOP, 6 * HOP, 2 * HOP):
        track[0, border : border + HOP, 52:55] += np.radians(0.3)
    found = moved(track)
    assert found.seam_z is not None
    assert found.reference_seam_z is not None
    assert found.seam_z > found.reference_seam_z + 0.25
    assert [fault for fault in Bound().faults(found) if fault.startswith("seams stand out")]


def test_an_error_that_changes_at_the_seam_is_refused_and_a_steady_one_is_not() -> None:
    images = performance().images
    steady, leaping = images + np.uint8(2), images.copy()
    leaping[3:] += np.uint8(3)
    bound = Bound(psnr_db=30)
    assert bound.faults(changed(steady)) == []
    found = changed(leaping)
    assert found.added_at_seams == pytest.approx(3.0)
    assert found.added_flicker == pytest.approx(3.0 / 5)
    assert [fault for fault in bound.faults(found) if fault.startswith("seams flicker")]


def test_a_judgement_survives_json() -> None:
    found = changed(performance().images + np.uint8(1))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Judgement) == found
