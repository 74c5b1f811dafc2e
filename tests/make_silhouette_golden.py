"""Makes tests/golden/silhouette.npz: what MediaPipe's own selfie segmentation finds in two portraits, in 255ths.

pip install mediapipe==0.10.21
python tests/make_silhouette_golden.py        needs pflx beside it, for the way in which portraits are cut
"""

from __future__ import annotations

from pathlib import Path

import mediapipe  # pyright: ignore[reportMissingImports]
import numpy as np

from pflx.runtime.rendering.portrait import load_portrait

TESTS = Path(__file__).parent


def main() -> None:
    """Write it."""
    network = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
    found = {}
    for name in ("hopper.jpg", "mona.jpg"):
        picture = load_portrait(TESTS / "media" / "portraits" / name, 256)
        found[name] = np.round(255 * network.process(picture).segmentation_mask).astype(np.uint8)
    np.savez_compressed(TESTS / "golden" / "silhouette.npz", **found)


if __name__ == "__main__":
    main()
