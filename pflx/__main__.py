"""The `pflx` command from its first moment: also `python -m pflx`.

Nothing but the standard library's lightest is imported up here, so that Ctrl-C is answered while the rest loads.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType


def main() -> None:
    """Run the command. Before and after, while nothing is open, a signal to stop ends the process at once."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from pflx.cli import main as run

    try:
        run()
    except KeyboardInterrupt:  # in the moment between one way of taking signals and the other
        _leave(signal.SIGINT, None)


def _leave(number: int, _: FrameType | None) -> None:
    with suppress(OSError):  # a terminal that is closed takes no more words
        os.write(2, b"pflx: Stopped. Nothing half-written was left.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
