"""A connection to a Ray cluster, or a Ray of one's own on this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any

from pflx.engines import FeedError, PflxError
from pflx.engines.graphs.protocol import first_line, import_backend
from pflx.runtime.spawning import deaf_to

LOCAL, AUTO = "local", "auto"
"""In the place of an address: a Ray of one's own; the cluster that RAY_ADDRESS names, or this machine belongs to."""

Needs = Mapping[str, float]
"""Of a worker, by Ray's names: `CPU`, `GPU`."""

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:/\s]+):(\d{1,5})")
_ANSWER_S = 10.0
"""How long an address may take to answer."""
_SETTINGS = b"\x04"
"""Kind of the frame with which both sides of HTTP/2, and so of gRPC, begin."""
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
_STORE_BYTES = 100 << 20
"""What rows are told by is small; Ray would take a third of the memory."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Else a Ray of one's own reports its use to its makers."""
_OF_RAY = ("RAY_", "PYTHONBREAKPOINT")
"""Of variables that Ray sets, what their names begin with."""
_SHORT = 24
"""Letters of a folder that Ray's sockets still fit in: their paths may have 107."""


class ClusterError(PflxError, ConnectionError):
    """There is no cluster to work on."""


def require_ray() -> Any:
    """Ray's module.

    Raises:
        BackendMissingError: it is not installed.
    """
    return import_backend("ray", "pip install 'pflx[ray]'", needs=("init", "remote", "wait", "get", "kill"))


def check_address(address: str) -> None:
    """Refuse what is no address.

    Raises:
        FeedError: it is none.
    """
    if address.startswith("ray://"):
        raise FeedError(
            f"ray is {address}, for clients outside of a cluster, who do not see its files. Run this on a machine of "
            f"it, with '{AUTO}' or HOST:PORT; or hand it in with `ray job submit`."
        )
    if address not in (LOCAL, AUTO) and not _ADDRESS.fullmatch(address):
        raise FeedError(
            f"ray is '{address}'; give the cluster's HOST:PORT, '{AUTO}' for the one that this machine belongs to, or "
            f"'{LOCAL}' (behind --ray: nothing) for a Ray of its own on this machine."
        )


class RaySession:
    """A Ray to work on. If this process is connected to one already, that is taken, and stays.

    Args:
        address: see `check_address`.
        cpus: that a Ray of one's own has to deal out.
        wants_gpu: whether it looks for GPUs.

    Raises:
        ClusterError: nobody answers, or with what pflx cannot work with.
        BackendMissingError: Ray is not installed.
    """

    def __init__(self, address: str, *, cpus: int, wants_gpu: bool) -> None:
        self.ray = require_ray()
        self._open = ExitStack()
        if self.ray.is_initialized():
            return
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._open.enter_context(_environment(_QUIET))
        self._open.enter_context(_hushed(self.ray))
        asked: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
        try:
            if address == LOCAL:
                asked |= self._own(cpus, wants_gpu)
            else:
                _check_answer(address)
            # Daemons of a Ray of one's own must not get what a terminal sends to all: whoever began them decides.
            hidden = deaf_to("SIGINT", "SIGTERM", "SIGHUP") if address == LOCAL else nullcontext()
            with hidden, _own_sigterm():
                self.ray.init(address=address, **asked)
        except BaseException as error:
            with suppress(Exception):
                self.ray.shutdown()
            self._open.close()
            if isinstance(error, ClusterError) or not isinstance(error, Exception):
                raise
            raise ClusterError(_said(address, error)) from error  # it is of many kinds
        self._open.callback(self.ray.shutdown)

    def room(self, needs: Needs) -> int:
        """For how many workers there is room in the cluster as it is now, 1 at least."""
        has = self.resources()
        return max(1, min(int(has.get(name, 0.0) // amount) for name, amount in needs.items()))

    def resources(self) -> Mapping[str, float]:
        """What the cluster has, busy or not."""
        found: Mapping[str, float] = self.ray.cluster_resources()
        return found

    def close(self) -> None:
        """Disconnect; a Ray of one's own ends, and leaves nothing."""
        self._open.close()

    def _own(self, cpus: int, wants_gpu: bool) -> dict[str, Any]:
        """How a Ray of one's own is begun."""
        place = tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="pflx-ray-", dir=place if len(place) <= _SHORT else "/tmp")
        self._open.callback(shutil.rmtree, folder, ignore_errors=True)
        self._open.enter_context(_environment({"RAY_AUTH_TOKEN": _token()}))  # else Ray keeps one in the user's home
        gpus = {} if wants_gpu else {"num_gpus": 0}
        return {
            "num_cpus": cpus,
            **gpus,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_temp_dir": folder,
        }


def _check_answer(address: str) -> None:
    """Refuse an address where no Ray answers, which it takes a quarter of an hour to find out."""
    where = os.environ.get("RAY_ADDRESS", address) if address == AUTO else address
    found = _ADDRESS.fullmatch(where)
    if found is None:
        return  # Ray looks for it, or knows what it is
    try:
        with socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=_ANSWER_S) as asked:
            asked.sendall(_GREETING)
            answer = asked.recv(9, socket.MSG_WAITALL)
    except (OSError, OverflowError) as error:
        raise ClusterError(_said(where, error)) from error
    if answer[3:4] != _SETTINGS and not os.environ.get("RAY_USE_TLS"):
        raise ClusterError(_said(where, ConnectionError("what is there is no Ray")))


def _said(address: str, error: Exception) -> str:
    why = first_line(error).rstrip(".") or type(error).__name__
    if address == LOCAL:
        return f"Ray does not start on this machine: {why}. Try --workers without --ray."
    where = "" if address == AUTO else f" at {address}"
    return (
        f"No Ray cluster answers{where}: {why}. Check `ray status` there and the address, which is the one that "
        "`ray start --head` told, not that of the dashboard."
    )


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """What this process does on SIGTERM stays what it was: Ray puts an end of its own in its place."""
    before = signal.getsignal(signal.SIGTERM)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment, where nobody has set them. Those that Ray adds go with them."""
    before = set(os.environ)
    os.environ.update({name: value for name, value in values.items() if name not in before})
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith(_OF_RAY) and name not in before]:
            del os.environ[name]


@cache
def _token() -> str:
    """Of every Ray that this process begins: Ray keeps the first one that it sees."""
    return secrets.token_hex(32)


@contextmanager
def _hushed(ray: Any) -> Iterator[None]:
    """Ray prints on stdout that a worker died, which the pool tells. It has no switch for that."""
    place, name = ray._private.worker, "print_to_stdstream"
    before = getattr(place, name, None)
    if before is None:
        yield
        return
    setattr(place, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(place, name, before)
