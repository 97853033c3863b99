"""The loss terms, each with its equation. Images are in the model's range, masks in [-1, 1], fields in pixels."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from d3m.diffusion.warp import smoothness
from d3m.errors import D3MError

EPSILON = 1e-6


class LossTerms(Protocol):
    """A data class of scalars; `total` is what is minimised, whatever else it has is logged."""

    @property
    def total(self) -> Tensor: ...


def mean_over(values: Tensor, weight: Tensor) -> Tensor:
    """sum(weight * values) / sum(weight); 0 where nothing weighs.

    Args:
        values: (N, C, H, W).
        weight: Same shape, or broadcasting to it; at least 0.
    """
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=EPSILON)


def tumour_weight(enhancing: Tensor, inside: Tensor, weight: float, margin: int = 3) -> Tensor:
    """w = inside + (weight - 1) * dilate(enhancing, margin): the enhancing tumour and its surroundings count more.

    Args:
        enhancing: (N, 1, H, W) 0 or 1.
        inside: (N, 1, H, W) 0 or 1; the brain.
        weight: Of the enhancing tumour, at least 1.
        margin: Dilation in pixels.
    """
    near = functional.max_pool2d(enhancing, 2 * margin + 1, 1, margin)
    return inside * (1 + (weight - 1) * near)


def soft_dice(probability: Tensor, enhancing: Tensor, weight: Tensor) -> Tensor:
    """1 - (2 sum(w p g) + 1) / (sum(w p) + sum(w g) + 1), over the batch (Milletari et al. 2016).

    Over the batch, not a slice: slices without enhancement then have a gradient and no degenerate Dice.
    """
    overlap = (weight * probability * enhancing).sum()
    return 1 - (2 * overlap + 1) / ((weight * probability).sum() + (weight * enhancing).sum() + 1)


def hinge_squared(probability: Tensor, enhancing: Tensor) -> Tensor:
    """max(p, 0)^2 where there is nothing, max(1 - p, 0)^2 in the enhancing tumour; of the same shape.

    As the squared error inside [0, 1]. Beyond it, what is right costs nothing, so that noise left in the mask can be
    put where the sampler's clamp removes it; what is wrong keeps its gradient. The squared error of the clamped
    probability has none there: what was missed once stayed missed.

    Args:
        probability: (N, 1, H, W), not clamped.
        enhancing: Same shape, 0 or 1.
    """
    wrong = torch.where(enhancing > 0, 1 - probability, probability)
    return wrong.clamp(min=0).square()


def clamp_right(probability: Tensor, enhancing: Tensor) -> Tensor:
    """`probability` clamped to [0, 1]; beyond it there is a gradient where it is wrong, none where it is right."""
    clamped = probability.clamp(0, 1)
    wrong = torch.where(enhancing > 0, probability < 0, probability > 1)
    return torch.where(wrong, probability + (clamped - probability).detach(), clamped)


def field_outside(displacement: Tensor, near: Tensor, labelled: Tensor) -> Tensor:
    """mean over pixels away from the enhancing tumour of |u|^2: without it the field learns to blur everything.

    Args:
        displacement: (N, 2, H, W).
        near: (N, 1, H, W) 1 near the enhancing tumour.
        labelled: (N, 1, 1, 1) 1 where the label is known.
    """
    return mean_over(displacement.square().sum(dim=1, keepdim=True), (1 - near) * labelled)


def weighted_smoothness(displacement: Tensor, weight: Tensor) -> Tensor:
    """mean_n w_n S(u_n), S as in `d3m.diffusion.warp.smoothness`.

    Args:
        displacement: (N, 2, H, W).
        weight: (N,).
    """
    return (weight * smoothness(displacement)).mean()


def region_cross_entropy(logits: Tensor, regions: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy of nested tumour regions, (N, R, H, W) each, averaged where `weight` (N, 1, H, W) is."""
    values = functional.binary_cross_entropy_with_logits(logits, regions, reduction="none")
    return mean_over(values, weight)


def dilate(mask: Tensor, margin: int) -> Tensor:
    """Square dilation of a 0/1 mask (N, 1, H, W) by `margin` pixels."""
    out: Tensor = functional.max_pool2d(mask, 2 * margin + 1, 1, margin)
    return out


def finite(loss: Tensor) -> Tensor:
    """`loss`, or an error that says that training has diverged.

    Raises:
        D3MError: it is NaN or infinite.
    """
    if not torch.isfinite(loss):
        raise D3MError(
            "Training has diverged: its loss is not finite.",
            "Start it again: it resumes from its last checkpoint. If it happens again, lower the learning rate.",
        )
    return loss
