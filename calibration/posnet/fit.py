"""Fits PosNet to motion: seeded, stopped early by what was held out, and after a break continued bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pflx.calibration.errors import CalibrationError
from pflx.calibration.posnet.loss import Objective
from pflx.calibration.posnet.motion import FPS, Batch, Draws, Motion
from pflx.calibration.posnet.start import MIN_HIDDEN, solve_start
from pflx.calibration.posnet.table import online
from pflx.calibration.progress import Progress, silent
from pflx.engines import Array
from pflx.engines.files.writer import write_whole
from pflx.export.models import PosNet
from pflx.export.models.posnet import POSE

RECONSTRUCTION = 1e5
"""Weight of the reconstruction: the other terms weigh sizes of steps, in rad, which are small, and it their squares."""
PULL_PER_SECOND = 0.25
"""Share of the way back to the generator's pose that a second of segments goes."""
MIN_SLIDE = 4

_HELD_DRAWS = 1024
_START_DRAWS = 8192
_WIDEST = 8192
_WARM_UP = 0.05  # of all steps, until the learning rate is there


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How PosNet is fitted.

    Attributes:
        slide: frames of a segment, the generator's hop.
        hidden: width of all layers.
        objective: what it is fitted for.
        start: "solved" begins at the best linear answer, "random" as the paper does.
        optimizer: "adam" with a learning rate that falls to 0, or "sgd" with one that stays, as the paper has it.
        lr: learning rate.
        momentum: of SGD; 0.9 in the released code.
        weight_decay: of either; 1e-4 in the released code.
        steps: at most.
        batch: windows in a step.
        check_every: steps between looks at what was held out; the state is kept as often.
        patience: looks without anything better, after which the fit stops.
        seed: of weights and draws.
        pull: share of the way back to the generator's pose that a segment goes; by default `PULL_PER_SECOND`.

    Raises:
        CalibrationError: a number that nothing can be fitted with.
    """

    slide: int
    hidden: int = 256
    objective: Objective = field(default_factory=lambda: Objective(reconstruction=RECONSTRUCTION))
    start: Literal["solved", "random"] = "solved"
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 3e-4
    momentum: float = 0.0
    weight_decay: float = 0.0
    steps: int = 4000
    batch: int = 128
    check_every: int = 100
    patience: int = 20
    seed: int = 0
    pull: float | None = None

    def __post_init__(self) -> None:
        least = MIN_HIDDEN if self.start == "solved" else 1
        limits = {"slide": MIN_SLIDE, "hidden": least, "steps": 0, "batch": 1, "check_every": 1, "patience": 1}
        for name, limit in limits.items():
            if getattr(self, name) < limit:
                raise CalibrationError(f"{name} is {getattr(self, name)}; the least is {limit}.")
        if self.hidden > _WIDEST:
            raise CalibrationError(f"hidden is {self.hidden}; the most is {_WIDEST}.")
        if not 0 < self.lr <= 1:
            raise CalibrationError(f"The learning rate is {self.lr:g}. Give one above 0, and 1 at most.")
        for name in ("momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise CalibrationError(f"{name} is {getattr(self, name):g}. Give 0 or more, and less than 1.")
        if not 0 <= self.pulled <= 1:
            raise CalibrationError(f"The pull is {self.pulled:g}. Give a share, 0 to 1.")

    @property
    def pulled(self) -> float:
        """The pull of a segment."""
        return min(1.0, PULL_PER_SECOND * self.slide / FPS) if self.pull is None else self.pull

    def lr_at(self, step: int) -> float:
        """Learning rate of a step."""
        if self.optimizer == "sgd":
            return self.lr
        warm_up = max(1.0, _WARM_UP * self.steps)
        return self.lr * min(1.0, (step + 1) / warm_up) * (1 + math.cos(math.pi * step / self.steps)) / 2


@dataclass(frozen=True)
class Fitted:
    """What came of a fit.

    Attributes:
        state_dict: under the public checkpoint's keys.
        best_step: after which it was taken.
        steps: that were done.
        history: (step, objective of what was held out) of every look.
    """

    state_dict: dict[str, Tensor]
    best_step: int
    steps: int
    history: Sequence[tuple[int, float]]


def fit(
    motions: Sequence[Motion],
    options: FitOptions,
    *,
    state: Path | None = None,
    progress: Progress = silent,
) -> Fitted:
    """Fit PosNet.

    Args:
        motions: to fit to; a part of each is held out.
        options: how.
        state: where the fit is kept while it runs, to go on from; removed at its end. None keeps nothing.
        progress: told about every step.

    Raises:
        CalibrationError: no motion, the state is of another fit, or the fit diverged.
        OutputError: the state cannot be written.
    """
    if not motions:
        raise CalibrationError("There is nothing to fit to. Give a motion.")
    training = _Training(motions, options)
    if state is not None and state.exists():
        training.resume(state)
    while not training.is_over:
        training.step()
        progress(f"fitting, held out {training.best_loss:.4g}", training.steps, options.steps)
        if training.is_checked and state is not None:
            training.keep(state)
    if state is not None:
        state.unlink(missing_ok=True)
    return training.fitted()


class _Training:
    """A fit under way. The network works in standard deviations of the motion, which are folded into it at the end."""

    def __init__(self, motions: Sequence[Motion], options: FitOptions) -> None:
        self._options = options
        self._of = json.dumps([asdict(options), [[m.name, m.sha256, len(m.windows)] for m in motions]])
        self._draws = Draws.of(motions, pull=options.pulled, seed=options.seed)
        held = Draws.of(motions, pull=options.pulled, seed=options.seed + 1, held=True)
        self._scale = _scale(motions) if options.start == "solved" else torch.ones(POSE)
        self._network = _made(options)
        if options.start == "solved":
            solve_start(self._network, *self._scaled(self._draws.batch(0, _START_DRAWS)))
        self._held = self._scaled(held.batch(0, _HELD_DRAWS))
        self._optimizer = _optimizer(self._network, options)
        self.steps, self._best_step, self._history = 0, 0, list[tuple[int, float]]()
        self._look()

    @property
    def best_loss(self) -> float:
        """The least objective of what was held out."""
        return min(loss for _, loss in self._history)

    @property
    def is_checked(self) -> bool:
        """Whether what was held out was looked at after this step."""
        return self._history[-1][0] == self.steps

    @property
    def is_over(self) -> bool:
        """All steps are done, or the last looks brought nothing better."""
        waited = (self.steps - self._best_step) // self._options.check_every
        return self.steps >= self._options.steps or waited >= self._options.patience

    def step(self) -> None:
        """One step of the optimiser, and a look where one is due."""
        past, fresh, target = self._scaled(self._draws.batch(self.steps + 1, self._options.batch))
        for group in self._optimizer.param_groups:
            group["lr"] = self._options.lr_at(self.steps)
        self._optimizer.zero_grad()
        self._objective(past, fresh, target).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.steps += 1
        if self.steps % self._options.check_every == 0 or self.steps == self._options.steps:
            self._look()

    def fitted(self) -> Fitted:
        """The best weights, in units of the motion."""
        return Fitted(_folded(self._best, self._scale), self._best_step, self.steps, tuple(self._history))

    def keep(self, path: Path) -> None:
        """Write all that is needed to go on."""
        tensors = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for index, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
        numbers = {"steps": self.steps, "best_step": self._best_step, "history": self._history}
        write_whole(path, save(tensors, metadata={"fit": self._of, "numbers": json.dumps(numbers)}))

    def resume(self, path: Path) -> None:
        """Go on from what `keep` wrote.

        Raises:
            CalibrationError: it did not, or in another fit.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CalibrationError(f"{path} is no state of a fit. Remove it, or give another --output.") from error
        if metadata.get("fit") != self._of:
            raise CalibrationError(
                f"{path} is of a fit that was interrupted, with other options or motion. Repeat that one to go on with "
                "it, remove the file to begin anew, or give another --output."
            )
        try:
            self._take(json.loads(metadata["numbers"]), tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CalibrationError(f"{path} is damaged. Remove it to begin anew, or give another --output.") from error

    def _take(self, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.steps, self._best_step = int(numbers["steps"]), int(numbers["best_step"])
        self._history = [(int(step), float(loss)) for step, loss in numbers["history"]]
        self._network.load_state_dict(_below(tensors, "network"))
        self._best = _below(tensors, "best")
        _require_alike(self._best, self._network.state_dict())
        self._load_optimizer(_below(tensors, "optimizer"))

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        for number, value in enumerate(self._network.parameters()):
            moments = {key: each for key, each in state.get(number, {}).items() if each.ndim}
            _require_alike(moments, dict.fromkeys(moments, value))
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _objective(self, past: Tensor, fresh: Tensor, target: Tensor) -> Tensor:
        new = self._network.new_pose(past[:, -1], fresh)
        return self._options.objective(torch.cat((past, new), dim=1) * self._scale, target * self._scale)

    def _look(self) -> None:
        with torch.no_grad():
            loss = float(self._objective(*self._held))
        if not math.isfinite(loss):
            raise CalibrationError(
                f"The fit diverged: after {self.steps} steps the objective is {loss}. Give a smaller --lr than "
                f"{self._options.lr:g}."
            )
        if not self._history or loss < self.best_loss:
            self._best_step = self.steps
            self._best = {name: value.clone() for name, value in self._network.state_dict().items()}
        self._history.append((self.steps, loss))

    def _scaled(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        past, fresh, target = (torch.from_numpy(part) / self._scale for part in (batch.past, batch.fresh, batch.target))
        return past, fresh, target


def joined(state_dict: dict[str, Tensor], segments: Array) -> Array:
    """What a PosNet makes of segments [n, slide, 6] in a row, as the runtime runs it."""
    network = PosNet(segments.shape[1], state_dict["fc2.weight"].shape[0])
    network.load_state_dict(state_dict)

    def join(last_pose: Array, fresh: Array) -> Array:
        poses = (torch.from_numpy(np.asarray(values[None], np.float32)) for values in (last_pose, fresh))
        with torch.inference_mode():
            return np.asarray(network.new_pose(*poses)[0].numpy())

    return online(segments, join)


def save_posnet(path: Path, state_dict: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write weights that `pflx export --posnet` takes, with the facts of their making as JSON under `pflx`.

    Raises:
        OutputError: they cannot be written.
    """
    tensors = {name: value.contiguous() for name, value in state_dict.items()}
    write_whole(path, save(tensors, metadata={"pflx": json.dumps(facts)}))  # one entry: several get no order


def _made(options: FitOptions) -> PosNet:
    """A network with seeded weights; PyTorch's own, as the released code begins."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return PosNet(options.slide, options.hidden)


def _optimizer(network: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    weights = network.parameters()
    if options.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)
    return torch.optim.Adam(weights, lr=options.lr, betas=(0.9, 0.99), weight_decay=options.weight_decay)


def _scale(motions: Sequence[Motion]) -> Tensor:
    """Standard deviation of each number over all that is fitted to, float32 [6]."""
    values = np.concatenate([motion.windows.reshape(-1, POSE) for motion in motions])
    return torch.from_numpy(np.asarray(values.std(axis=0), np.float32))


def _folded(weights: dict[str, Tensor], scale: Tensor) -> dict[str, Tensor]:
    """The network that takes and gives poses in their own units."""
    folded = dict(weights)
    folded["encoder.0.weight"] = weights["encoder.0.weight"] / scale[None, :, None]
    folded["fc1.weight"] = torch.cat((weights["fc1.weight"][:, :POSE] / scale, weights["fc1.weight"][:, POSE:]), dim=1)
    rows = scale.repeat(len(weights["fc3.bias"]) // POSE)
    folded["fc3.weight"], folded["fc3.bias"] = weights["fc3.weight"] * rows[:, None], weights["fc3.bias"] * rows
    return folded


def _require_alike(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    if {name: each.shape for name, each in found.items()} != {name: each.shape for name, each in wanted.items()}:
        raise ValueError("tensors of other shapes")


def _below(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}
