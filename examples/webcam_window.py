"""A listener in a window who watches your webcam and hears your microphone; q ends it."""

import sys

from pflx.runtime import Listener, WebcamSource, WindowSink

bundle, portrait = sys.argv[1:]

with Listener.open(bundle, portrait, lookahead=0) as listener:
    camera = WebcamSource(microphone="default", sample_rate_hz=listener.sample_rate_hz)
    with listener.live(camera, WindowSink()) as session:  # on macOS, show the frames yourself: see WindowSink
        session.wait()
    print(session.stats.rungs)
