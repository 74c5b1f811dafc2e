"""A listener whom your program tells what it sees and hears: here 30 pictures a second, and 48 kHz stereo."""

import sys
import threading
import time

import numpy as np

from pflx.runtime import Listener, PushSource


def push(source: PushSource) -> None:
    """What your capture card, WebRTC track or voice agent calls; here, two seconds of grey and silence."""
    for number in range(100):
        if number % 5 in (0, 2, 4):
            source.put_video(np.full((720, 1280, 3), 90, np.uint8), format="bgr")  # any size, and it may change
        source.put_audio(np.zeros((960, 2), np.int16), 48_000, channels=2)  # any rate, as it comes
        time.sleep(0.02)
    source.close()


bundle, portrait = sys.argv[1:]
with Listener.open(bundle, portrait, lookahead=0) as listener:
    source = PushSource(listener.sample_rate_hz)
    with listener.live(source) as session:
        threading.Thread(target=push, args=(source,)).start()
        for frame in session:  # comes when it is due: show it at once
            print(f"{frame.time_s:.2f} s  due at {frame.due_ns}", frame.to_rgba().shape)
