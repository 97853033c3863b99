"""Building blocks that the networks share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def time_embedding(t: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of times (Vaswani et al. 2017, section 3.5).

    Args:
        t: (N,) times.
        width: Even number of channels: cosines first, then sines.

    Returns:
        (N, width) float32.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeMLP(nn.Module):
    """Times (N,) to features (N, features)."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.width = width
        self.inner = nn.Linear(width, features)
        self.outer = nn.Linear(features, features)

    def forward(self, t: Tensor) -> Tensor:
        embedded = time_embedding(t, self.width).to(self.inner.weight.dtype)
        features: Tensor = self.outer(functional.silu(self.inner(embedded)))
        return features


class ResidualBlock(nn.Module):
    """Normalise, SiLU, convolve, add the time, and again; plus the input (He et al. 2016; Ho et al. 2020).

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        time_features: Width of the time features.
        groups: Groups of the group normalisation.
        dropout: Share of the inner features that training drops.
    """

    def __init__(self, inputs: int, outputs: int, time_features: int, groups: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_features, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # the block starts as its shortcut
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.time(functional.silu(time))[:, :, None, None]
        h = self.conv2(self.dropout(functional.silu(self.norm2(h))))
        out: Tensor = h + self.shortcut(x)
        return out


class SpaceToDepth(nn.Module):
    """(N, C, H, W) to (N, outputs, H / factor, W / factor): every pixel is kept as a channel, then mixed."""

    def __init__(self, inputs: int, outputs: int, factor: int = 2, kernel: int = 1) -> None:
        super().__init__()
        self.factor = factor
        self.mix = nn.Conv2d(inputs * factor**2, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mix(functional.pixel_unshuffle(x, self.factor))
        return out


def upsample(x: Tensor) -> Tensor:
    """Twice the size by repeating pixels."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
