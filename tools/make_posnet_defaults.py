"""Makes export/data/posnet_*.safetensors, the PosNet of users who have none, from a track of tools/make_head_tracks.py.

    python tools/make_posnet_defaults.py tracks/franck.npy

One for each slide that a generator has and the fit is good for. They are the solved start of a fit, of the smallest
width: more steps made what was held out a little better, and tracks of others no better (docs/posnet.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pflx.calibration.posnet.fit import FitOptions
from pflx.calibration.posnet.report import fit_and_judge
from pflx.calibration.posnet.start import MIN_HIDDEN

SLIDES = (8, 16, 25)


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracks", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("export/data"))
    arguments = parser.parse_args()
    for slide in SLIDES:
        output = arguments.output / f"posnet_{slide}.safetensors"
        options = FitOptions(slide=slide, hidden=MIN_HIDDEN, steps=0)
        print(output, *fit_and_judge(arguments.tracks, options, output), sep="\n")


if __name__ == "__main__":
    main()
