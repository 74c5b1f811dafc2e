"""A window that shows the listener."""

from __future__ import annotations

import os
import sys
from threading import get_ident
from typing import Any

import numpy as np

from pflx.engines import DeviceError
from pflx.engines.graphs.protocol import import_backend
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.media.sinks import StopWatching

_ENLARGED = 2  # a picture of 256 pixels is small on today's screens


class WindowSink:
    """Shows the listener in a window of SDL, which may be resized; q, Esc or the window's own button end the session.

    A window belongs to the thread that calls `show`. On macOS that must be the main thread, which a session does not
    use for its sinks; show the frames yourself there, and anywhere else if you like:

        window = WindowSink()
        with listener.live(source) as session:
            for frame in session:
                window.show(frame)      # raises StopWatching
        window.close(None)

    Args:
        title: of the window.
        sample: which of the reactions; the others are passed over.

    Raises:
        BackendMissingError: pygame-ce, which brings SDL, is not installed.
        DeviceError: there is no screen.
    """

    def __init__(self, title: str = "pflx", *, sample: int = 0) -> None:
        self._pygame = _pygame()
        self._title, self._sample = title, sample
        self._window: Any = None
        self._thread: int | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the window was closed, by the user or by `close`."""
        return self._closed

    def show(self, frame: ListenerFrame) -> None:
        """Show the frame and look for keys.

        Raises:
            StopWatching: the window was closed.
            DeviceError: no window can be opened on this screen.
        """
        if self._closed:
            raise StopWatching(f"The window '{self._title}' was closed.")
        if frame.sample != self._sample:
            return
        if self._window is None:
            self._window, self._thread = self._opened(frame.image), get_ident()
        self._draw(frame.image)
        if any(self._ends(event) for event in self._events()):
            self.close(None)
            raise StopWatching(f"The window '{self._title}' was closed.")

    def close(self, error: BaseException | None) -> None:
        """Close the window. From another thread than `show`'s it only forbids more frames."""
        self._closed = True
        if self._window is not None and self._thread == get_ident():
            self._window.destroy()
            self._window = None

    def _opened(self, image: UInt8Array) -> Any:
        height, width = image.shape[:2]
        try:
            self._pygame.display.init()
            return self._pygame.Window(self._title, (_ENLARGED * width, _ENLARGED * height), resizable=True)
        except self._pygame.error as error:
            raise DeviceError(f"No window can be opened here ({error}). Write a file or use a function.") from error

    def _draw(self, image: UInt8Array) -> None:
        """The picture, as large as it fits, in the middle."""
        height, width = image.shape[:2]
        picture = self._pygame.image.frombuffer(np.ascontiguousarray(image), (width, height), "RGB")
        target = self._window.get_surface()
        room_x, room_y = target.get_size()
        scale = min(room_x / width, room_y / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        target.fill((0, 0, 0))
        target.blit(
            self._pygame.transform.smoothscale(picture, size), ((room_x - size[0]) // 2, (room_y - size[1]) // 2)
        )
        self._window.flip()

    def _events(self) -> list[Any]:
        """What has happened to this window; what has happened to others is left for them."""
        mine = []
        for event in self._pygame.event.get():
            if getattr(event, "window", None) in (None, self._window):
                mine.append(event)
            else:
                self._pygame.event.post(event)
        return mine

    def _ends(self, event: Any) -> bool:
        game = self._pygame
        if event.type == game.KEYDOWN:
            return event.key in (game.K_q, game.K_ESCAPE)
        return event.type in (game.QUIT, game.WINDOWCLOSE)


def _pygame() -> Any:
    """pygame-ce, where it can open windows."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    pygame = import_backend("pygame", "pip install 'pflx[window]'")
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in screens):
        raise DeviceError(
            "There is no screen for a window (DISPLAY is not set). Write a file or use a function instead."
        )
    return pygame
