"""Displacement fields on the slices' grid: the warp, and how smooth they are."""

from __future__ import annotations

import torch
from torch import Tensor


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Backward-warp: the value at p is `image` at p + displacement(p).

    Bilinear, border padding, align_corners; coordinates in float32 (float64 for a float64 image).

    Args:
        image: (N, C, H, W), floating point, any range.
        displacement: (N, 2, H, W), pixels; channel 0 is x (along W), channel 1 is y (along H).

    Returns:
        (N, C, H, W), dtype of `image`; a zero field is the identity (to rounding).

    Raises:
        ValueError: N, H or W differ, or the field has not two channels; both shapes are named.

    Source: Jaderberg et al. 2015, arXiv:1506.02025 (bilinear sampler).
    """
    n, channels, height, width = image.shape
    if displacement.shape != (n, 2, height, width):
        raise ValueError(f"displacement {tuple(displacement.shape)} does not fit the image {tuple(image.shape)}")
    precision = torch.float64 if image.dtype == torch.float64 else torch.float32
    u = displacement.to(precision)
    # not grid_sample: its normalised coordinates are rounded, so that a zero field would not be the identity
    x = torch.arange(width, device=image.device, dtype=precision) + u[:, 0]
    y = torch.arange(height, device=image.device, dtype=precision)[:, None] + u[:, 1]
    left, right, across = _neighbours(x, width)
    upper, lower, down = _neighbours(y, height)
    flat = image.to(precision).flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = (row * width + column).flatten(1)[:, None].expand(n, channels, height * width)
        return flat.gather(2, index).view(n, channels, height, width)

    top = torch.lerp(at(upper, left), at(upper, right), across)
    bottom = torch.lerp(at(lower, left), at(lower, right), across)
    return torch.lerp(top, bottom, down).to(image.dtype)


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices before and after positions (N, H, W) that are kept inside, and the share (N, 1, H, W) of the latter."""
    inside = position.clamp(0, size - 1)
    before = inside.detach().floor().long()
    return before, (before + 1).clamp(max=size - 1), (inside - before)[:, None]


def smoothness(displacement: Tensor) -> Tensor:
    """S(u): the mean squared forward difference along x and y, halved; (N,) (Balakrishnan et al. 2019, eq. 8)."""
    dx = (displacement[..., :, 1:] - displacement[..., :, :-1]).square().mean(dim=(1, 2, 3))
    dy = (displacement[..., 1:, :] - displacement[..., :-1, :]).square().mean(dim=(1, 2, 3))
    return (dx + dy) / 2
