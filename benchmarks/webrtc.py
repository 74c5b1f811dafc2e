"""What the browser's video costs the server on its CPU: encoding the listener, decoding the visitor.

    python benchmarks/webrtc.py

Pictures are those of the webcam clip of the tests, scaled, and made the encoder's planes as pflx does it; beside it, by
aiortc, whose conversion begins threads for every picture. Encoders and decoders are those of aiortc, with its own
settings and its default target of 500 kbit/s; times are of the process's CPU, so that what else runs counts little.
"""

from __future__ import annotations

import argparse
import time
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder, vp8_depayload
from av import VideoFrame
from av.codec import CodecContext
from report import machine, write

from pflx.runtime.media.decoding.converter import Converter

MEDIA = Path(__file__).parent.parent / "tests" / "media"
FRAMES = 250
LISTENER = ((256, 256), (512, 256), (768, 256), (512, 512))
VISITOR = ((320, 240), (640, 480), (1280, 720))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with av.open(str(MEDIA / "webcam_cap12_12s.mp4")) as clip:
        pictures = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)][:FRAMES]
    versions = {name: version(name) for name in ("aiortc", "av")}
    figures: dict[str, Any] = {
        "command": "python benchmarks/webrtc.py",
        "machine": machine(1) | {"webrtc": versions},
        "encode": {},
        "encode, converted by aiortc": {},
        "decode": {},
    }
    for size in LISTENER:
        for name, encoder in (("vp8", Vp8Encoder()), ("h264", H264Encoder())):
            figures["encode"][f"{name} {size[0]}x{size[1]}"], _ = encode(encoder, pictures, size)
    size = LISTENER[0]
    for name, encoder in (("vp8", Vp8Encoder()), ("h264", H264Encoder())):
        by_aiortc, _ = encode(encoder, pictures, size, converts=False)
        figures["encode, converted by aiortc"][f"{name} {size[0]}x{size[1]}"] = by_aiortc
    for size in VISITOR:
        _, packets = encode(Vp8Encoder(), pictures, size)
        figures["decode"][f"vp8 {size[0]}x{size[1]}"] = {"cpu_ms_per_frame": decode(packets)}
    write("webrtc_cpu", figures)


def encode(
    encoder: Any, pictures: list[Any], size: tuple[int, int], *, converts: bool = True
) -> tuple[dict[str, float], list[bytes]]:
    """CPU per frame from RGB to packets, the rate, and the encoded frames."""
    converter = Converter()
    scaled = [np.ascontiguousarray(cv2.resize(picture, size)) for picture in pictures]
    packets, sent, begun = [], 0, time.process_time()
    for number, picture in enumerate(scaled):
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame = converter.convert(frame, format="yuv420p") if converts else frame
        frame.pts, frame.time_base = number * 3600, Fraction(1, 90_000)
        payloads, _ = encoder.encode(frame)
        packets.append(payloads)
        sent += sum(map(len, payloads))
    spent = time.process_time() - begun
    whole = [b"".join(map(vp8_depayload, payloads)) for payloads in packets] if isinstance(encoder, Vp8Encoder) else []
    per_frame = {"cpu_ms_per_frame": 1e3 * spent / len(scaled), "kbit_per_s": sent * 8 * 25 / len(scaled) / 1000}
    return {name: round(value, 2) for name, value in per_frame.items()}, whole


def decode(packets: list[bytes]) -> float:
    """CPU per frame from encoded frames to RGB."""
    decoder, converter, begun = CodecContext.create("libvpx", "r"), Converter(), time.process_time()
    for packet in packets:
        for frame in decoder.decode(av.Packet(packet)):
            converter.convert(frame, format="rgb24").to_ndarray()
    return round(1e3 * (time.process_time() - begun) / len(packets), 2)


if __name__ == "__main__":
    main()
