"""The published losses: at uniform times on the truth, on warped velocities or on the warped sum x_s."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from d3m.diffusion.sampler import Estimate, State
from d3m.diffusion.schedule import diffuse, velocity
from d3m_training.train import losses
from d3m_training.train.d3m import Drawn, Roll, Terms, terms_of

MARGIN = 3
"""Pixels around the enhancing tumour that count as it does."""


@dataclass(frozen=True)
class VelocityLoss:
    """Recipe `paper`, the authors' public code: equal weights in the image, weight alpha_bar, lambda 1."""

    smoothness: float = 1.0
    """lambda of `weighted_smoothness`."""
    regions: float = 0.0
    """The published network has no auxiliary regions."""
    displaced: float = 0.0
    """Nothing is displaced."""

    def state(self, drawn: Drawn, roll: Roll, generator: torch.Generator) -> tuple[Tensor, State]:  # noqa: ARG002
        """The truth with noise, at a time of each slice's own."""
        return _noised_truth(drawn, generator)

    def terms(self, drawn: Drawn, t: Tensor, e: Estimate, regions: Tensor | None) -> Terms:  # noqa: ARG002
        """Squared errors of both velocities and the field's smoothness, each times alpha_bar = snr / (snr + 1)."""
        noise = drawn.schedule.at(t)
        alpha_bar = noise.signal.square()
        wanted = velocity(drawn.x0, drawn.eps, noise, drawn.recipe.image_velocity)
        after = ((e.velocity_image - wanted).square() * alpha_bar).mean()
        return _with_mask(drawn, t, e, alpha_bar, alpha_bar, after, self.smoothness)


@dataclass(frozen=True)
class StepLoss:
    """Recipe `step-warp`: w * mean((phi_u(x_s_hat) - x_s)^2) + lambda * S(u), and the mask's velocity."""

    enhancing_weight: float = 5.0
    """w in the enhancing tumour and `MARGIN` pixels around it; 1 elsewhere."""
    smoothness: float = 0.1
    """lambda."""
    regions: float = 0.0
    """It has no auxiliary regions."""
    displaced: float = 0.0
    """Nothing is displaced."""

    def state(self, drawn: Drawn, roll: Roll, generator: torch.Generator) -> tuple[Tensor, State]:  # noqa: ARG002
        """The truth with noise, at a time of each slice's own."""
        return _noised_truth(drawn, generator)

    def terms(self, drawn: Drawn, t: Tensor, e: Estimate, regions: Tensor | None) -> Terms:  # noqa: ARG002
        """The error is that of the warped sum one time earlier."""
        earlier = drawn.schedule.at((t - 1).clamp(min=0))
        weight = 1 + (self.enhancing_weight - 1) * losses.dilate(drawn.enhancing, MARGIN)
        predicted, wanted = diffuse(e.x0, e.eps, earlier), diffuse(drawn.x0, drawn.eps, earlier)
        after = ((predicted - wanted).square() * weight).mean()
        even = torch.ones_like(drawn.schedule.at(t).signal)
        return _with_mask(drawn, t, e, weight, even, after, self.smoothness)


def _noised_truth(drawn: Drawn, generator: torch.Generator) -> tuple[Tensor, State]:
    t = torch.randint(1, drawn.recipe.timesteps + 1, (len(drawn.x0),), generator=generator).to(drawn.x0.device)
    noise = drawn.schedule.at(t)
    return t, State(diffuse(drawn.x0, drawn.eps, noise), diffuse(drawn.m0, drawn.eps_mask, noise))


def _with_mask(
    drawn: Drawn, t: Tensor, e: Estimate, weight: Tensor, time_weight: Tensor, after: Tensor,
    smoothness: float,
) -> Terms:  # fmt: skip
    """The image's term with those that both have: the mask's velocity where it is known, and the field's smoothness."""
    labelled = drawn.batch.labelled[:, None, None, None]
    wanted = velocity(drawn.m0, drawn.eps_mask, drawn.schedule.at(t), "v")
    mask = losses.mean_over((e.velocity_mask - wanted).square() * time_weight, labelled.expand_as(drawn.x0))
    smooth = losses.weighted_smoothness(e.displacement, time_weight.flatten())
    before = ((e.x0_before - drawn.x0).square() * weight).mean().detach()
    return terms_of(drawn, e, weight, after + mask + smoothness * smooth, before, after, mask)
