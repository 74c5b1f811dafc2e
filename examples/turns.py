"""A listener beside a program that speaks itself: tell it whose turn it is, have it nod, and hear what it does."""

import sys

from pflx.runtime import Listener, open_speaker

bundle, portrait, clip = sys.argv[1:]

with Listener.open(bundle, portrait, lookahead=0) as listener, listener.stream(seed=0) as stream:
    stream.set_turn("speaking", at_s=2.0)  # from here on what is heard is the program's own voice
    stream.set_turn("listening", at_s=4.0)
    stream.cue("nod", at_s=5.0)
    for chunk in open_speaker(clip, listener.sample_rate_hz).chunks():
        stream.push(video=chunk.video, audio=chunk.audio)
        for frame in stream.pull():
            for event in frame.events:  # a nod, a smile, a blink, attention: as it begins
                print(f"{event.time_s:.2f} s  {event.kind} {event.because}  {event.duration_s:.2f} s")
