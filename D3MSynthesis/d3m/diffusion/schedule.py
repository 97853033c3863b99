"""Noise schedules, velocities with their exact inverses, and the times of the reverse process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from d3m.diffusion.recipe import ScheduleName, Velocity

ALPHA_BAR_MIN = 1e-8
"""`alpha_bar` never falls below it, so that every quotient of the reverse process is finite."""


@dataclass(frozen=True)
class Schedule:
    """Noise parameters for the times 0 (clean) to T (noise)."""

    alpha_bar: Tensor
    """(T + 1,) float64, cumulative; `alpha_bar[0]` is 1."""
    alpha: Tensor
    """(T + 1,) float64, per training step: `alpha_bar[t] / alpha_bar[t - 1]`; `alpha[0]` is 1."""

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.alpha_bar) - 1

    def at(self, t: Tensor) -> Noise:
        """Parameters at the integer times `t` (N,), shaped (N, 1, 1, 1) float32 on the device of `t`."""
        index = t.cpu()
        alpha_bar = self.alpha_bar[index]

        def shaped(values: Tensor) -> Tensor:
            return values.float().to(t.device)[:, None, None, None]

        return Noise(shaped(alpha_bar.sqrt()), shaped((1 - alpha_bar).sqrt()), shaped(self.alpha[index].sqrt()))


@dataclass(frozen=True)
class Noise:
    """Square roots of a schedule's parameters at some times, ready to be multiplied with images."""

    signal: Tensor
    """sqrt(alpha_bar)."""
    noise: Tensor
    """sqrt(1 - alpha_bar)."""
    step: Tensor
    """sqrt(alpha), of the single training step."""


def make_schedule(name: ScheduleName, timesteps: int) -> Schedule:
    """A schedule by its name.

    Sources: "sigmoid" Jabri et al. 2023, arXiv:2212.11972 (start -3, end 3, tau 1); "cosine" Nichol and Dhariwal 2021,
    arXiv:2102.09672 (s = 0.008); "linear" Ho et al. 2020, arXiv:2006.11239 (beta 1e-4 to 0.02 over 1000 steps,
    scaled to T).

    Args:
        name: "sigmoid", "cosine" or "linear".
        timesteps: T, at least 1.
    """
    time = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    if name == "sigmoid":
        start, end = torch.sigmoid(torch.tensor((-3.0, 3.0), dtype=torch.float64))
        alpha_bar = (end - torch.sigmoid(6 * time - 3)) / (end - start)
    elif name == "cosine":
        alpha_bar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
        alpha_bar = alpha_bar / alpha_bar[0]
    else:
        scale = 1000 / timesteps
        beta = torch.linspace(1e-4 * scale, min(0.02 * scale, 0.999), timesteps, dtype=torch.float64)
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])
    alpha_bar = alpha_bar.clamp(min=ALPHA_BAR_MIN)
    alpha_bar[0] = 1.0
    alpha = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[1:] / alpha_bar[:-1]])
    return Schedule(alpha_bar, alpha)


def diffuse(x0: Tensor, eps: Tensor, noise: Noise) -> Tensor:
    """x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps; all (N, C, H, W) (Ho et al. 2020, eq. 4)."""
    return noise.signal * x0 + noise.noise * eps


def velocity(x0: Tensor, eps: Tensor, noise: Noise, kind: Velocity) -> Tensor:
    """What the network is to predict, from the clean image and its noise.

    "v" is sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022, arXiv:2202.00512);
    "v_step" has sqrt(alpha), of the single step, in the place of sqrt(alpha_bar).
    """
    return (noise.signal if kind == "v" else noise.step) * eps - noise.noise * x0


def split_velocity(x_t: Tensor, v: Tensor, noise: Noise, kind: Velocity) -> tuple[Tensor, Tensor]:
    """(x0, eps) from x_t and its velocity: the exact inverse of `diffuse` and `velocity` together.

    For "v_step": x0 = (sqrt(alpha) x_t - sqrt(1 - alpha_bar) v) / D and eps = (sqrt(1 - alpha_bar) x_t +
    sqrt(alpha_bar) v) / D with D = sqrt(alpha alpha_bar) + 1 - alpha_bar; for "v" alpha is alpha_bar and D is 1.
    """
    if kind == "v":
        return noise.signal * x_t - noise.noise * v, noise.noise * x_t + noise.signal * v
    scale = noise.step * noise.signal + noise.noise**2
    return (noise.step * x_t - noise.noise * v) / scale, (noise.noise * x_t + noise.signal * v) / scale


def time_pairs(timesteps: int, steps: int, spacing: float = 1.0) -> list[tuple[int, int]]:
    """The reverse process as explicit pairs (t, s): from T to 0 in `steps` steps.

    t_k = T (1 - (k / steps)^spacing), rounded; 1 is even, larger values stay longer near T.

    Raises:
        ValueError: `steps` is not between 1 and T.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps must lie between 1 and {timesteps}, not {steps}")
    times = [round(timesteps * (1 - (k / steps) ** spacing)) for k in range(steps + 1)]
    for k in range(1, steps + 1):  # rounding must not let two times fall together
        times[k] = min(times[k], times[k - 1] - 1)
    times[-1] = 0
    for k in range(steps - 1, 0, -1):
        times[k] = max(times[k], times[k + 1] + 1)
    return list(pairwise(times))
