"""True enhancement displaced by known fields: what the deformation module learns its job from.

Image and mask of one estimate come from one network and err together, so that nothing tells the module where to move
what. Here the mask is right, the enhancement lies beside it by a known field, and the way back is known. [ours]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from d3m.diffusion.sampler import move_enhancement
from d3m.diffusion.warp import warp
from d3m_training.train import losses

LENGTH_PIXELS = 5.0
"""Longest root mean square of a field."""
SPACINGS = (16, 32, 64)
"""Pixels between the nodes that a field is interpolated from."""
INVERSE_STEPS = 12
BLUR_PIXELS = 2.5
"""Estimates are softer than the truth: largest standard deviation that the enhancement is blurred with."""
LEAST_SHARE = 0.2
"""Estimates are fainter, too: least factor on the enhancement."""
SOFT_SHARE = 0.5
"""Share of batches whose mask is soft as a prediction; in the others it is as sharp as one that a person gives."""
LEAST_PROBABILITY = 0.6
NEAR_PIXELS = 5
WEIGHT_NEAR = 5.0
"""Of the enhancing tumour with its surroundings; 1 elsewhere in the brain."""
INVERSE_WEIGHT = 0.0025
"""Of the squared distance to the known way back, against the squared error of the image."""


@dataclass(frozen=True)
class Displaced:
    """How well known displacements are undone, scalars."""

    loss: Tensor
    """Squared error of the image after the warp, with the squared distance to the known way back."""
    left: Tensor
    """Share of the displacement's squared error that the warp leaves; 1: it does nothing."""


def displaced_loss(
    deform: Callable[[Tensor, Tensor, Tensor], Tensor], image: Tensor, t1: Tensor, enhancing: Tensor, brain: Tensor,
    generator: torch.Generator,
) -> Displaced:  # fmt: skip
    """mean(w (T1 + phi_u(e_v) - T1 - e)^2) + lambda mean_near |u - v^-1|^2, e_v = phi_v e, u = U(m, T1 + e_v, T1).

    Args:
        deform: The network's deformation module (`D3MNetwork.deform`), which is trained; nothing else of it is asked.
        image: (N, 1, H, W), the true T1c in the model's range.
        t1: Likewise.
        enhancing: (N, 1, H, W) 0 or 1.
        brain: (N, 1, H, W) 0 or 1; 0 everywhere in slices without labels.
        generator: On the CPU; decides fields, blur and strength.
    """
    count, _, height, width = image.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(image.device)

    spacing = SPACINGS[int(torch.randint(len(SPACINGS), (), generator=generator))]
    field = random_field(count, (height, width), spacing, generator).to(image.device)
    field = field * LENGTH_PIXELS * uniform(count, 1, 1, 1)
    strength = LEAST_SHARE + (1 - LEAST_SHARE) * uniform(count, 1, 1, 1)
    wanted = blurred(image - t1, BLUR_PIXELS * float(uniform())) * strength
    beside = warp(wanted, field)
    mask = enhancing
    if float(uniform()) < SOFT_SHARE:
        mask = blurred(enhancing, 2 * float(uniform()))
        mask = mask * (LEAST_PROBABILITY + (1 - LEAST_PROBABILITY) * uniform(count, 1, 1, 1))
    seen = (t1 + beside).clamp(-1, 1)
    displacement = deform(2 * mask - 1, seen, t1)
    near = losses.dilate(enhancing, NEAR_PIXELS) * brain
    weight = brain * (1 + (WEIGHT_NEAR - 1) * near)
    made = move_enhancement(seen, t1, displacement) - t1
    error = losses.mean_over((made - wanted).square(), weight)
    away = losses.mean_over((displacement - inverse(field)).square().sum(dim=1, keepdim=True), near)
    untouched = losses.mean_over((beside - wanted).square(), weight)
    return Displaced(error + INVERSE_WEIGHT * away, (error / untouched.clamp(min=losses.EPSILON)).detach())


def random_field(count: int, size: tuple[int, int], spacing: int, generator: torch.Generator) -> Tensor:
    """Smooth random displacements (count, 2, H, W) whose root mean square length is 1 pixel.

    Args:
        count: Fields.
        size: (H, W).
        spacing: Pixels between the nodes of the bicubic interpolation.
        generator: On the CPU.
    """
    nodes = torch.randn(count, 2, size[0] // spacing + 4, size[1] // spacing + 4, generator=generator)
    smooth = functional.interpolate(nodes, size=size, mode="bicubic", align_corners=True)
    length = smooth.square().sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True).sqrt()
    return smooth / length


def inverse(field: Tensor) -> Tensor:
    """The field w with w(p) = -v(p + w(p)): warping by v and then by w gives back what was there.

    By fixed-point iteration (Chen et al. 2008, doi:10.1118/1.2816107), which converges where v does not fold.

    Args:
        field: (N, 2, H, W), pixels.
    """
    found = -field
    for _ in range(INVERSE_STEPS):
        found = -warp(field, found)
    return found


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur in the plane; borders are repeated.

    Args:
        image: (N, 1, H, W).
        sigma: Standard deviation in pixels; next to 0 nothing is blurred.
    """
    reach = round(3 * sigma)
    if reach == 0:
        return image
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(image, (reach, reach, reach, reach), mode="replicate")
    rows = functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return functional.conv2d(rows, kernel.view(1, 1, -1, 1))
