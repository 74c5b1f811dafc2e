"""A listener in the browser: `pflx serve`. Its modules need the extra `serve`; this one does not."""

from __future__ import annotations

from pflx.engines.graphs.protocol import import_backend
from pflx.runtime.serve.errors import ServeError
from pflx.runtime.serve.network.ice import TurnServer
from pflx.runtime.serve.settings import ServeSettings

INSTALL = "pip install 'pflx[serve]'"

__all__ = ["INSTALL", "ServeError", "ServeSettings", "TurnServer", "require_server"]


def require_server() -> None:
    """Make sure that what serves pages and streams is installed.

    Raises:
        BackendMissingError: it is not.
    """
    for module in ("starlette", "uvicorn", "websockets", "aiortc", "prometheus_client"):
        import_backend(module, INSTALL)
