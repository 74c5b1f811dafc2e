"""A server for one stream, in a process of its own: `python stream_server.py ADDRESS [FORMAT] [OPTION=VALUE ...]`.

It says what it got as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any


def main(address: str, kind: str = "", *options: str) -> None:
    """Take a stream in until it ends."""
    import av
    from av.error import FFmpegError

    got: dict[str, Any] = {"video": 0, "samples": 0, "levels": [], "loudest": 0.0, "stamps": []}
    given = dict(option.split("=") for option in options)
    with av.open(address, format=kind or None, options=given, timeout=(20, 3)) as container:
        got["streams"] = [stream.codec_context.name for stream in container.streams]
        with suppress(OSError, FFmpegError):  # some protocols end like that
            for frame in container.decode():
                if isinstance(frame, av.VideoFrame):
                    got["video"] += 1
                    got["size"] = [frame.width, frame.height]
                    got["levels"].append(int(frame.to_ndarray(format="gray").mean()))
                    got["stamps"].append(round(frame.time or 0.0, 3))
                else:
                    got["samples"] += frame.samples
                    got["loudest"] = max(got["loudest"], float(abs(frame.to_ndarray()).max()))
    sys.stdout.write(json.dumps(got))


if __name__ == "__main__":
    main(*sys.argv[1:])
