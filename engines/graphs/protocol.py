"""The one protocol every backend serves, the shared feed check, and the errors of pflx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""A named tensor on its way in or out of an engine: numpy on the CPU, a device array of the same
interface (`shape`, `dtype`) on a GPU backend."""


class PflxError(Exception):
    """Base of every error that a user of pflx can cause; the message is one line."""


class FeedError(PflxError, ValueError):
    """The arrays given to an engine are not the ones it takes."""


class ShapeError(FeedError):
    """One array has the wrong dtype or shape."""

    def __init__(self, name: str, expected: TensorSpec, got: Array, why: str = "") -> None:
        reason = f" ({why})" if why else ""
        super().__init__(f"'{name}' takes {expected}, got {got.dtype} {list(got.shape)}{reason}.")


class EngineError(PflxError, RuntimeError):
    """A graph could not be loaded, built or run."""


class DeviceError(PflxError, RuntimeError):
    """The device asked for is not there, or is not the one that would be used."""


class DeviceMemoryError(EngineError, MemoryError):
    """The GPU has no memory left for what was asked."""


class DeviceLostError(EngineError):
    """A GPU has failed so that nothing works on it any more in this process."""


class BackendMissingError(PflxError, ImportError):
    """An optional package is not installed; the message holds the line that installs it."""

    def __init__(self, package: str, install: str) -> None:
        super().__init__(f"{package} is not installed. Install it: {install}")


class BackendBrokenError(BackendMissingError):
    """An optional package is there, but is not what pflx can use; the message says why, and what puts it right."""

    def __init__(self, package: str, reason: str, install: str) -> None:
        self.reason, self.fix = reason, install.replace("pip install", "pip install --force-reinstall", 1)
        PflxError.__init__(self, f"{package} is installed, but does not work: {reason}. Install it again: {self.fix}")


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape and dtype of one graph input or output.

    Attributes:
        shape: one entry per axis: a fixed size, or the name of a dynamic dimension (any size from 1).
            One name means one size in all tensors of a call.
        dtype: numpy dtype, native byte order.
    """

    shape: tuple[int | str, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        """Write `float32 [P, 3, 256, 256]`."""
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


class Engine(Protocol):
    """A compiled graph: named arrays in, named arrays out. One engine serves one thread.

    `contextlib.closing(engine)` closes it at the end of a `with` block.
    """

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What `run` takes, by name."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """What `run` returns, by name."""
        ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once.

        Args:
            feeds: exactly the arrays that `inputs` describes. They are read only during the call.

        Returns:
            The arrays that `outputs` describes. A backend may reuse them in the next call: copy what
            must outlive it.

        Raises:
            FeedError: names, dtypes or shapes differ from `inputs`.
            EngineError: the backend failed, or the engine is closed.
        """
        ...

    def close(self) -> None:
        """Release the graph and its memory; closing twice is harmless."""
        ...


@runtime_checkable
class Looping(Protocol):
    """What an engine is besides, if it runs a loop faster than call by call."""

    def loop(
        self, feeds: Mapping[str, Array], carried: Mapping[str, str], steps: Sequence[Mapping[str, Array]]
    ) -> dict[str, Array]:
        """See `run_loop`."""
        ...


@runtime_checkable
class Placing(Protocol):
    """What an engine is besides, if it does not run where arrays of numpy are."""

    def place(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """See `placed`."""
        ...


def placed(engine: Engine, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Arrays that many calls of an engine take, brought to where it reads them, once.

    Args:
        engine: that takes them.
        arrays: of numpy, by the names of its inputs; nobody changes them.

    Raises:
        DeviceMemoryError: there is no room for them.
    """
    return engine.place(arrays) if isinstance(engine, Placing) else dict(arrays)


def run_loop(
    engine: Engine, feeds: Mapping[str, Any], carried: Mapping[str, str], steps: Sequence[Mapping[str, Array]]
) -> dict[str, Array]:
    """Run a graph once per step, outputs of one step being inputs of the next.

    Args:
        engine: the graph.
        feeds: what all steps take; of carried inputs, what the first step takes.
        carried: input to the output that it is in the next step.
        steps: what each step takes besides, numpy arrays, the same names and shapes in all.

    Returns:
        The outputs of the last step, which stay as they are.

    Raises:
        FeedError, EngineError: as `Engine.run`.
    """
    if isinstance(engine, Looping):
        return engine.loop(feeds, carried, steps)
    current, made = dict(feeds), dict[str, Array]()
    for step in steps:
        made = {name: value.copy() for name, value in engine.run({**current, **step}).items()}
        current |= {name: made[output] for name, output in carried.items()}
    return made


def check_feeds(inputs: Mapping[str, TensorSpec], feeds: Mapping[str, Array]) -> dict[str, int]:
    """Check the arrays of one call against the inputs of an engine; every backend calls this first.

    Args:
        inputs: what the engine takes.
        feeds: what was given.

    Returns:
        The size of every named dimension in this call.

    Raises:
        FeedError: an input is missing or unknown, or a value is no array.
        ShapeError: a dtype or shape differs, or one named dimension has two sizes.
    """
    if feeds.keys() != inputs.keys():
        raise FeedError(_names_sentence(inputs, feeds))
    sizes: dict[str, int] = {}
    for name, spec in inputs.items():
        bind_dimensions(name, spec, feeds[name], sizes)
    return sizes


def bind_dimensions(name: str, spec: TensorSpec, array: Array, sizes: dict[str, int]) -> None:
    """Check one array against its spec, adding its named dimensions to `sizes`.

    Raises:
        FeedError: `array` is no array.
        ShapeError: dtype or shape differ from the spec or from a size bound earlier.
    """
    shape = getattr(array, "shape", None)
    if shape is None:
        raise FeedError(f"'{name}' takes an array, {spec}, got {type(array).__name__}.")
    if array.dtype != spec.dtype or len(shape) != len(spec.shape):
        raise ShapeError(name, spec, array)
    for axis, (expected, size) in enumerate(zip(spec.shape, shape, strict=True)):
        if isinstance(expected, int):
            if size != expected:
                raise ShapeError(name, spec, array, f"axis {axis} must be {expected}")
        elif size < 1:
            raise ShapeError(name, spec, array, f"{expected} must be at least 1")
        elif sizes.setdefault(expected, size) != size:
            raise ShapeError(name, spec, array, f"{expected} is {sizes[expected]} in another input")


def import_backend(module: str, install: str, *, needs: Sequence[str] = ()) -> Any:
    """Import an optional package.

    Args:
        module: its import name.
        install: the command that installs it.
        needs: names that pflx uses of it.

    Raises:
        BackendMissingError: it is not installed.
        BackendBrokenError: it is, but raises on import, as where its own libraries are missing or of another version;
            or it is empty, as after two packages that hold the same files; or it has not what pflx uses.
    """
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            raise BackendMissingError(module, install) from error
        raise BackendBrokenError(module, f"it needs {error.name}, which is not installed", install) from error
    except Exception as error:  # whatever a library raises while it is loaded
        raise BackendBrokenError(module, first_line(error).rstrip(".") or type(error).__name__, install) from error
    if found.__spec__ is not None and found.__spec__.origin is None:
        raise BackendBrokenError(module, "only an empty folder is left of it, as by another package's removal", install)
    if lacking := [name for name in needs if not hasattr(found, name)]:
        known = getattr(found, "__version__", "of unknown version")
        reason = f"{known} has no {lacking[0]}, so it is incomplete, or of a version that pflx does not know"
        raise BackendBrokenError(module, reason, install)
    return found


def first_line(error: Exception) -> str:
    """What an error of a library says first; many go on with a trace."""
    return str(error).strip().split("\n", 1)[0]


def _names_sentence(inputs: Mapping[str, TensorSpec], feeds: Mapping[str, Array]) -> str:
    missing = ", ".join(sorted(inputs.keys() - feeds.keys()))
    unknown = ", ".join(sorted(feeds.keys() - inputs.keys()))
    parts = [f"missing {missing}"] * bool(missing) + [f"unknown {unknown}"] * bool(unknown)
    return f"Wrong input names: {'; '.join(parts)}. The graph takes {', '.join(inputs) or 'nothing'}."
