"""Peak signal-to-noise ratio of 8-bit pictures."""

from __future__ import annotations

import math

EQUAL_DB = 100.0
"""Of pictures that are equal, or nearly so."""


def psnr_db(squared_error: float) -> float:
    """PSNR in dB of a mean squared error in levels of 255, at most `EQUAL_DB`."""
    return min(EQUAL_DB, 10 * math.log10(255**2 / squared_error)) if squared_error > 0 else EQUAL_DB
