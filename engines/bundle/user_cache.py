"""Files that save work on this machine, in the user's cache folder; nothing depends on them."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from pathlib import Path

from pflx.engines.bundle.driver import Gpu
from pflx.engines.files.writer import write_whole
from pflx.engines.graphs.protocol import PflxError

log = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size


class CacheFile:
    """A cache of one kind, found again by all that it is valid for.

    Whatever is wrong with the file is logged as a warning, and the work is done again.

    Args:
        kind: what is cached; begins the file's name.
        valid_for: what the content depends on; any difference is another file.

    Attributes:
        path: where it is, or will be.
    """

    def __init__(self, kind: str, *valid_for: str) -> None:
        key = hashlib.sha256("\0".join(valid_for).encode()).hexdigest()[:16]
        self.path = cache_folder() / f"{kind}-{key}.cache"
        self._stored = b""

    def read(self) -> bytes:
        """What was written last; empty if there is nothing, or nothing sound."""
        try:
            whole = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self.reject(error.strerror or "it cannot be read")
            return b""
        digest, content = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
        # The libraries parse these files in native code: none that has changed reaches them.
        if hashlib.sha256(content).digest() != digest:
            self.reject("its content has changed")
            return b""
        self._stored = content
        return content

    def write(self, content: bytes | memoryview) -> None:
        """Keep this for the next time, unless it is what is there already."""
        data = bytes(content)
        if not data or data == self._stored:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, hashlib.sha256(data).digest() + data)
        except (OSError, PflxError) as error:
            log.warning("Nothing is kept for the next start: %s", error)
        else:
            self._stored = data

    def reject(self, why: str) -> None:
        """Log that the file is not used, and forget what was read from it."""
        self._stored = b""
        log.warning("%s is ignored, its work is done again: %s.", self.path, why.rstrip("."))


def cache_folder() -> Path:
    """The folder of pflx for caches of this user, which need not exist.

    Source: XDG Base Directory Specification, `XDG_CACHE_HOME`; on Windows `LOCALAPPDATA`.
    """
    name, default = ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", ".cache")
    given = Path(os.environ.get(name, ""))
    # The specification has relative paths ignored.
    return (given if given.is_absolute() else Path.home() / default) / "pflx"


def jit_cache(plan_sha256: str, backend_version: str, compute_capability: str | None, driver: str | None) -> CacheFile:
    """The kernels that TensorRT for RTX has compiled for one engine on one kind of GPU.

    Args:
        plan_sha256: of the engine file.
        backend_version: of the library.
        compute_capability: of the GPU, like `sm_89`.
        driver: CUDA version of the driver.
    """
    return CacheFile("kernels", plan_sha256, backend_version, compute_capability or "", driver or "")


def timing_cache(backend_version: str, gpu: Gpu) -> CacheFile:
    """How long TensorRT's kernels take on one kind of GPU, measured in earlier builds.

    Args:
        backend_version: of the library.
        gpu: that was measured. Its name counts besides its generation: TensorRT rejects timings of another card.
    """
    return CacheFile("timings", backend_version, gpu.name, gpu.compute_capability)
