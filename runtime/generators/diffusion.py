"""Samplers for diffusion models that predict clean data: which timesteps, and what an update is made of.

Everything here is float64 numpy; a graph is given three float32 numbers per step.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from pflx.engines import Array, FeedError

Solver: TypeAlias = Literal["ddim", "dpm++"]
SOLVERS: tuple[Solver, ...] = ("ddim", "dpm++")

N_TRAINED = 1000
"""Noise levels that the models were trained on."""

TIMESTEPS = tuple(range(980, -1, -20))
"""The 50 timesteps at which the reference calls its denoiser, first to last ("leading" spacing)."""

N_STEPS = len(TIMESTEPS) - 1
"""Calls that change anything. The reference's 50th goes from noise level 0 to noise level 0."""

_OFFSET = 0.008
_LARGEST_BETA = 0.999


class Update(NamedTuple):
    """One step of a sampler: x' = weights[0]·x0 + weights[1]·x + weights[2]·x0 of the step before.

    Attributes:
        row: which of `TIMESTEPS` the denoiser is called at.
        weights: float32 [3].
    """

    row: int
    weights: Array


def signal_share() -> Array:
    """Share of the signal's power left at each noise level, float64 [1000]; the literature's "alpha bar".

    Source: Nichol and Dhariwal 2021, equation 17 and the clipping below it.
    """
    level = (np.arange(N_TRAINED + 1) / N_TRAINED + _OFFSET) / (1 + _OFFSET)
    kept = np.cos(level * np.pi / 2) ** 2
    beta = np.minimum(1 - kept[1:] / np.maximum(1e-5, kept[:-1]), _LARGEST_BETA)
    return np.asarray(np.cumprod(1 - beta))


def updates(n_steps: int = N_STEPS, solver: Solver = "ddim") -> tuple[Update, ...]:
    """The steps from noise to data.

    Fewer steps than 49 are spread evenly over the reference's timesteps: they start at its first and end at its last.

    Args:
        n_steps: calls of the denoiser, 1 to 49.
        solver: `ddim` (Song et al. 2021, equation 12 with eta 0), or `dpm++` (Lu et al. 2022, DPM-Solver++, algorithm
            2, 2M in data prediction), whose first step is of first order.

    Raises:
        FeedError: another number or another solver.
    """
    check_sampler(n_steps, solver)
    rows = np.linspace(0, N_STEPS, n_steps + 1).round().astype(int)
    share = signal_share()[list(TIMESTEPS)][rows]
    signal, noise = np.sqrt(share), np.sqrt(1 - share)
    gain = np.diff(np.log(signal / noise))  # per step, in half log signal-to-noise ratio
    steps = []
    for step in range(n_steps):
        fresh = -signal[step + 1] * np.expm1(-gain[step])
        is_second_order = solver == "dpm++" and 0 < step < n_steps - 1
        trend = fresh * gain[step] / gain[step - 1] / 2 if is_second_order else 0.0
        weights = np.array([fresh + trend, noise[step + 1] / noise[step], -trend], np.float32)
        steps.append(Update(int(rows[step]), weights))
    return tuple(steps)


def check_sampler(n_steps: int, solver: str) -> None:
    """Check what a user chose.

    Raises:
        FeedError: naming the value and what there is.
    """
    if solver not in SOLVERS:
        raise FeedError(f"solver is '{solver}'; give {' or '.join(SOLVERS)}.")
    if not isinstance(n_steps, int) or isinstance(n_steps, bool) or not 1 <= n_steps <= N_STEPS:
        raise FeedError(f"steps is {n_steps}; give 1 to {N_STEPS}, the trained sampler's number.")
