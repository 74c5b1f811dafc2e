"""The library that speaks to the hub, and what its errors mean."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pflx.engines.graphs.protocol import PflxError, first_line, import_backend
from pflx.engines.hub.address import HubAddress, HubError

_CACHE_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_SIGN_IN = "run `hf auth login`"


def import_hub() -> Any:
    """Import `huggingface_hub`.

    Raises:
        BackendMissingError: it is not installed.
    """
    # It tells the hub which packages are beside it, unless told not to before it is imported. 0 lets it.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    needs = ("HfApi", "hf_hub_download", "snapshot_download", "errors", "utils")
    return import_backend("huggingface_hub", "pip install 'pflx[hub]'", needs=needs)


@contextmanager
def told(address: HubAddress, *, writes: bool = False) -> Iterator[None]:
    """Make one line of whatever the library raises in the block.

    Args:
        address: what the block reads.
        writes: it writes there, too.

    Raises:
        HubError: naming the address, what is wrong with it, and what helps.
    """
    hub = import_hub()
    try:
        with _bars_on_terminals(hub):
            yield
    except PflxError:
        raise
    except Exception as error:  # of the libraries for HTTP below it, which have no base but this
        said = _why_not_written(hub, error) if writes else _why_not_read(hub.errors, error, address)
        raise HubError(f"{address}: {said or _why(hub.errors, error)}") from error


def _why_not_read(errors: Any, error: Exception, address: HubAddress) -> str | None:
    if isinstance(error, errors.GatedRepoError):
        return f"access is given on request. Ask for it on the page of {address.repo}, and {_SIGN_IN}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no {address.repo} on the hub, or it is private. Check the name, or {_SIGN_IN}."
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{address.repo} has no revision '{address.revision}'. Give a branch, a tag or the hash of a commit in "
            "full, or leave it out."
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return f"it is not whole in the cache, and {why_offline()}"
    return None


def _why_not_written(hub: Any, error: Exception) -> str | None:
    if isinstance(error, hub.errors.RepositoryNotFoundError):
        return f"the hub lets only those write who may: {_SIGN_IN}."
    if isinstance(error, hub.errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to publish. Unset that, and try again."
    return None


def _why(errors: Any, error: Exception) -> str:
    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"the hub asks who you are: {_SIGN_IN}."
    if isinstance(error, errors.HfHubHTTPError):
        return _answered(error)
    if isinstance(error, OSError) and error.errno in _CACHE_FAILS:
        return f"the cache cannot be written: {error.strerror}. Free space, or set HF_HOME to a folder of your own."
    if isinstance(error, ValueError):  # a name or a card that the hub does not take
        return f"{' '.join(str(error).split())[:300].rstrip('.')}. Change that."
    return f"the hub cannot be reached: {first_line(error).rstrip('.') or type(error).__name__}. Try again."


@contextmanager
def _bars_on_terminals(hub: Any) -> Iterator[None]:
    """Draw no progress where nobody watches."""
    quiet = not sys.stderr.isatty() and not hub.utils.are_progress_bars_disabled()
    if quiet:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            hub.utils.enable_progress_bars()


def why_offline() -> str:
    """Why nothing is fetched, and what helps, as the end of a sentence."""
    if import_hub().constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to fetch it. Unset that, and try again."
    return "the hub cannot be reached. Connect, and try again."


def _answered(error: Any) -> str:
    status = getattr(error.response, "status_code", 0)
    said = (error.server_message or first_line(error)).strip().split("\n", 1)[0].rstrip(".")
    if status == 401:
        return f"the hub asks who you are: {_SIGN_IN}."
    if status == 403:
        return f"the hub refuses it: {said}. Sign in with a token that may do this: `hf auth login`."
    return f"the hub answers {status}: {said}. {'Try again later' if status >= 500 or status == 429 else 'Check it'}."
