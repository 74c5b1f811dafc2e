"""TensorRT and TensorRT for RTX: the modules, and the one logger that each of them takes."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Literal, TypeAlias, get_args

from pflx.engines.graphs.protocol import import_backend

log = logging.getLogger(__name__)


Backend: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


def import_tensorrt(backend: Backend) -> Any:
    """Import the library of a backend.

    Raises:
        BackendMissingError: it is not installed, or broken.
    """
    module = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}[backend]
    return import_backend(module, f"pip install 'pflx[{backend}]'", needs=("ILogger",))


@cache
def library_logger(trt: Any) -> Any:
    """The one logger of a library, which keeps the first it is given and ignores all later ones.

    Its list `errors` holds, one line each, the errors since it was last cleared. An exception in it, Ctrl-C included,
    would be lost in the library: it is kept, and `raise_caught` raises it.

    Args:
        trt: the module of the library.
    """
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
    }

    class Logger(trt.ILogger):  # type: ignore[misc] # the base is chosen at run time
        """Keeps errors for the exception, passes the rest to logging."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self._caught: BaseException | None = None

        def log(self, severity: Any, message: str) -> None:
            try:
                level = levels.get(severity, logging.DEBUG)
                if level == logging.ERROR:
                    self.errors.append(one_line(message))
                log.log(min(level, logging.INFO), "%s", message)
            except BaseException as error:
                self._caught = self._caught or error

        def raise_caught(self) -> None:
            """To be called after each call of the library."""
            caught, self._caught = self._caught, None
            if caught:
                raise caught

    return Logger()


def one_line(message: str) -> str:
    """A message of the library on one line, without the full stop."""
    return " ".join(message.split()).rstrip(".")
