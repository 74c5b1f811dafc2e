"""What can go wrong between a checkpoint and a network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pflx.engines import PflxError


class ModelNameError(PflxError, ValueError):
    """A network was asked for by a name that does not exist."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"No network is named '{name}'; there are {', '.join(sorted(known))}.")


class ModelOptionError(PflxError, ValueError):
    """A network was given an option it does not take, or a value it cannot work with."""


class InputError(PflxError, ValueError):
    """A tensor does not have the shape that the network works with."""


class StateDictError(PflxError, ValueError):
    """Keys or shapes of a state dict differ from the network's.

    Attributes:
        problems: all of them; the message shows a few.
    """

    _SHOWN = 3

    def __init__(self, name: str, problems: Iterable[str], cause: str = "", files: Iterable[Path] = ()) -> None:
        """Say what differs.

        Args:
            name: the network.
            problems: every key that is missing, unknown, or has another shape or other values.
            cause: the likely reason and what to do, as a sentence; empty where none is known.
            files: that the state dict is from.
        """
        listed = list(problems)
        count = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
        more = f"; and {len(listed) - self._SHOWN} more" if len(listed) > self._SHOWN else ""
        begin = f"{' and '.join(map(str, files))}: the" if files else "The"
        shown = f"{begin} state dict does not fit {name} ({count}): {'; '.join(listed[: self._SHOWN])}{more}."
        super().__init__(f"{shown} {cause}".rstrip())
        self.problems = tuple(listed)
        self._name, self._cause = name, cause

    def of_files(self, files: Iterable[Path]) -> StateDictError:
        """The same error, which also names the files."""
        return StateDictError(self._name, self.problems, self._cause, tuple(files))


class CheckpointError(PflxError, ValueError):
    """A file is not a checkpoint that can be read safely."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} {problem}.")


class UnknownComponentError(PflxError, ValueError):
    """The keys of a state dict belong to none of the known networks."""


class WrongComponentError(PflxError, ValueError):
    """A checkpoint was given where another network's is needed."""


class ComponentError(PflxError, ValueError):
    """Networks or settings that cannot work together."""


class RangeError(PflxError, ValueError):
    """An FP16 graph makes numbers that FP16 does not hold, or would not hold with a little more."""


class PersonalisationError(PflxError, ValueError):
    """A hypernetwork, a denoiser or a clip of which no person can be made."""
