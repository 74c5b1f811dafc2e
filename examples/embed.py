"""A listener in a program of yours: push what the speaker shows and says, pull pictures."""

import sys

from pflx.runtime import Listener, open_speaker

bundle, portrait, clip = sys.argv[1:]

with Listener.open(bundle, portrait) as listener, listener.stream(seed=0) as stream:
    for chunk in open_speaker(clip, listener.sample_rate_hz).chunks():  # or a camera and a microphone
        stream.push(video=chunk.video, audio=chunk.audio)  # uint8 [T, H, W, 3] at 25 fps, float32 [N] mono
        for frame in stream.pull():  # what is due by now; never waits
            print(f"{frame.time_s:.2f} s", frame.image.shape)
    stream.finish()  # a speaker who goes on for ever needs no end
    print(len(list(stream.pull())), "frames at the end")
