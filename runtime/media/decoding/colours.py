"""The colours of a clip as sRGB shows them: HLG, PQ and wide gamuts brought to BT.709, everything else as it is."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pflx.runtime.frames.arrays import Float32Array, UInt8Array

if TYPE_CHECKING:
    import av

    from pflx.runtime.media.decoding.converter import Converter

REFERENCE_WHITE_NITS = 203.0
"""What white is in HDR, where it is 255 in SDR. Source: ITU-R BT.2408."""
_HLG_PEAK_NITS, _HLG_GAMMA = 1000.0, 1.2
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_SDR_GAMMA = 2.4
"""Of a display for SDR. Source: ITU-R BT.1886."""

_PQ, _HLG = 16, 18  # AVColorTransferCharacteristic
_UNREAD_TRANSFERS = {8: "linear light", 9: "a logarithmic curve", 10: "a logarithmic curve", 17: "SMPTE 428"}
_UNREAD_MATRICES = {
    10: "BT.2020 constant luminance",
    13: "chromaticity-derived constant luminance",
    14: "ICtCp",
    15: "IPT",
}
_D65 = (0.3127, 0.3290)
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65)
_XY = {  # AVColorPrimaries: red, green, blue, white. What cinema's P3 (11) calls white is shown as white.
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: _P3,
    12: _P3,
}
_BT709 = 1
_WHITE = 255 << 8
"""What FFmpeg's scaler makes of the white of Y'CbCr in 16-bit RGB, whatever the depth it comes from."""
_OUT_STEPS = 4096
_ROWS = 64
"""Rows converted at a time, so that what is computed in between stays small."""


def unread_colours(frame: av.VideoFrame) -> str | None:
    """What about a picture's colours is not undone, for a note; None if all is."""
    return _UNREAD_TRANSFERS.get(int(frame.color_trc)) or _UNREAD_MATRICES.get(int(frame.colorspace))


def to_rgb(frame: av.VideoFrame, size: tuple[int, int], converter: Converter) -> UInt8Array:
    """A decoded picture as uint8 [H, W, 3] RGB of `size` (width, height), for a display of BT.709.

    HLG and PQ are shown as a display of 1000 cd/m² shows them, scaled so that reference white is white; what is
    brighter is white as well, and colours outside of BT.709 are clipped. Wide gamuts are converted. For all other clips
    the numbers are FFmpeg's.

    Source: ITU-R BT.2100 (HLG with its OOTF, PQ), BT.2408, BT.1886; SMPTE EG 432 for P3.
    """
    transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
    same_size = size == (frame.width, frame.height)
    scaled: dict[str, Any] = {} if same_size else {"width": size[0], "height": size[1], "interpolation": "BICUBIC"}
    if transfer in (_PQ, _HLG) or primaries in _XY.keys() - {_BT709}:
        deep = converter.convert(frame, format="rgb48le", **scaled)
        return _shown(np.asarray(deep.to_ndarray(), np.uint16), transfer, primaries)
    return np.asarray(converter.convert(frame, format="rgb24", **scaled).to_ndarray(), np.uint8)


def _shown(picture: np.ndarray[Any, np.dtype[np.uint16]], transfer: int, primaries: int) -> UInt8Array:
    """uint16 [H, W, 3] of a transfer and primaries → uint8 as a display of BT.709 gets them."""
    matrix, curve, steps = _to_bt709(_gamut(transfer, primaries)), _curve(transfer), _steps()
    shown = np.empty(picture.shape, np.uint8)
    for top in range(0, len(picture), _ROWS):
        light = curve[picture[top : top + _ROWS]]
        if transfer == _HLG:
            light = _hlg_displayed(light)
        light = np.clip(light @ matrix.T, 0, 1)
        shown[top : top + _ROWS] = steps[(np.sqrt(light) * (_OUT_STEPS - 1) + 0.5).astype(np.int32)]
    return shown


def _gamut(transfer: int, primaries: int) -> int:
    """Of the primaries; HDR that does not say has BT.2020's."""
    return primaries if primaries in _XY else 9 if transfer in (_PQ, _HLG) else _BT709


def _hlg_displayed(scene: Float32Array) -> Float32Array:
    """Light of the scene, [..., 3] in [0, 1] → of the display, 1 at reference white."""
    luma = np.maximum(scene @ _BT2020_LUMA, 1e-6)[..., None]
    shown: Float32Array = scene * luma ** np.float32(_HLG_GAMMA - 1) * np.float32(_HLG_PEAK_NITS / REFERENCE_WHITE_NITS)
    return shown


@cache
def _curve(transfer: int) -> Float32Array:
    """float32 [65536]: light of each 16-bit number; 1 at reference white, for HLG at the scene's peak."""
    signal = np.minimum(np.arange(1 << 16) / _WHITE, 1)
    if transfer == _PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = signal ** (1 / m2)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000 / REFERENCE_WHITE_NITS
    elif transfer == _HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = signal**_SDR_GAMMA
    return light.astype(np.float32)


@cache
def _steps() -> UInt8Array:
    """uint8 [4096]: the number for each square root of light, which spreads the dark ones out."""
    light = np.linspace(0, 1, _OUT_STEPS) ** 2
    return np.round(255 * light ** (1 / _SDR_GAMMA)).astype(np.uint8)


@cache
def _to_bt709(primaries: int) -> Float32Array:
    """float32 [3, 3]: light of other primaries → of BT.709's, white to white."""
    return np.asarray(np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(primaries), np.float32)


def _to_xyz(primaries: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [3, 3]: RGB → XYZ, from chromaticities."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in _XY[primaries]]).T
    scaled: np.ndarray[Any, np.dtype[np.float64]] = columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
    return scaled
