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
    """Keys or shapes of a state dict differ from the network's."""

    def __init__(self, name: str, problems: Iterable[str]) -> None:
        listed = list(problems)
        count = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
        super().__init__(f"The state dict does not fit {name} ({count}): {'; '.join(listed)}.")
        self.problems = tuple(listed)


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
