"""Colour profiles and pictures in them, computed here and by no library of colours."""

from __future__ import annotations

import struct

import numpy as np

from pflx.runtime.frames.arrays import Float64Array, UInt8Array

SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Linear sRGB to XYZ at D50, columns red, green and blue. Source: IEC 61966-2-1, adapted by Bradford."""

DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])

_D50 = (0.96420, 1.0, 0.82491)


def decoded(levels: UInt8Array) -> Float64Array:
    """Levels of sRGB or Display P3 as light."""
    value = levels / 255
    return np.asarray(np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4), np.float64)


def encoded(light: Float64Array, gamma: float | None = None) -> UInt8Array:
    """Light as levels: of sRGB, or by a power."""
    light = np.clip(light, 0, 1)
    srgb = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.round((srgb if gamma is None else light ** (1 / gamma)) * 255), np.uint8)


def in_space(picture: UInt8Array, space: Float64Array, gamma: float | None = None) -> UInt8Array:
    """An sRGB picture [H, W, 3] with the numbers that it has in another space."""
    return encoded(decoded(picture) @ SRGB.T @ np.linalg.inv(space).T, gamma)


def rgb_profile(space: Float64Array, gamma: float | None = None) -> bytes:
    """An ICC profile, version 4, of three primaries and one curve.

    Args:
        space: linear RGB to XYZ at D50.
        gamma: of the curve; None for that of sRGB.
    """
    colours = {name: _xyz(*space[:, column]) for column, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return _profile(b"RGB ", {**colours, **curves})


def grey_profile(gamma: float) -> bytes:
    """An ICC profile, version 4, of grey by a power."""
    return _profile(b"GRAY", {b"kTRC": _curve(gamma)})


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text("made for a test"), b"cprt": _text("none"), b"wtpt": _xyz(*_D50), **tags}
    offset, table, data = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content + b"\0" * (-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", offset + len(data), b"\0" * 4, 0x04300000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp").ljust(68 - len(header), b"\0")
    header += struct.pack(">3i", *(round(value * 65_536) for value in _D50))
    return header.ljust(128, b"\0") + table + data


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65_536) for value in values))


def _curve(gamma: float | None) -> bytes:
    parameters = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045) if gamma is None else (gamma,)
    kind = 3 if gamma is None else 0
    return (
        b"para\0\0\0\0"
        + struct.pack(">HH", kind, 0)
        + struct.pack(f">{len(parameters)}i", *(round(value * 65_536) for value in parameters))
    )


def _text(text: str) -> bytes:
    content = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(content), 28) + content
