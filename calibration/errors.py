"""What can go wrong in calibration."""

from __future__ import annotations

from pflx.engines import PflxError


class CalibrationError(PflxError, ValueError):
    """What was given cannot be calibrated with."""
