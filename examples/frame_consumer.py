"""What comes out, as NumPy arrays and, without a copy, as tensors of any library that knows DLPack."""

import sys

from torch.utils.dlpack import from_dlpack

from pflx.runtime import Listener
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

bundle, portrait, clip = sys.argv[1:]
jaw = ARKIT_NAMES.index("jawOpen")

with Listener.open(bundle, portrait) as listener:
    for frame in listener.react(clip):
        tensor = from_dlpack(frame.image)  # uint8 [H, W, 3]: the very bytes of the array
        brightness = tensor.float().mean() / 255
        print(f"{frame.time_s:.2f} s  brightness {brightness:.3f}  jaw {frame.coefficients[jaw]:+.2f}")
