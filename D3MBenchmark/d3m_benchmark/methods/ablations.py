"""D3M itself, its ablations, and the controls that ask what its parts are worth.

- `d3m-no-mssdm`: without the deformation module. `d3m-no-mssdm-no-dsimd`: also with one decoder instead of two.
- `d3m-residual`: the deformation module's network adds to the image instead of moving it.
- `d3m-blur`: a fixed 3 x 3 mean in the place of the warp: what blurring alone would gain.
- `regression`: the same network in one step, without noise and without deformation: the conditional mean.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.recipe import DiffusionRecipe, NetworkSizes
from d3m.diffusion.sampler import Condition, Estimate, State
from d3m.diffusion.schedule import Noise
from d3m.models.recipes import DEFAULT, PAPER
from d3m_benchmark.methods.networks import OneDecoder, PublishedOneDecoder, Undeformed
from d3m_training.data.cache import TARGET_UPPER
from d3m_training.train.d3m import DROPOUT, NetworkWithLoss
from d3m_training.train.method import Size
from d3m_training.train.published import VelocityLoss
from d3m_training.train.rolled import RolledLoss

PUBLISHED_STEPS = 250
RESIDUAL_SCALE = 0.1
"""One unit of the network's output changes the image by this much of its range [-1, 1]; as a field it is a pixel."""


def _sizes(size: Size, context: tuple[int, ...]) -> NetworkSizes:
    if size == "small":
        return replace(DEFAULT.network, context=context)
    return replace(PAPER.network, context=context)


def _recipe(size: Size) -> DiffusionRecipe:
    """The published equations work on the cache's scale, whose upper end is not 1."""
    return DEFAULT.diffusion if size == "small" else replace(PAPER.diffusion, image_upper=TARGET_UPPER)


def _loss(size: Size) -> RolledLoss | VelocityLoss:
    return RolledLoss() if size == "small" else VelocityLoss()


def _steps(size: Size) -> int:
    return DEFAULT.quality("preview").steps if size == "small" else PUBLISHED_STEPS


def build_d3m(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> NetworkWithLoss:
    """D3M: recipe `default` for "small", recipe `paper`'s network, equations and loss for "published"."""
    network = build_network(_sizes(size, context), DROPOUT)
    return NetworkWithLoss(network, _recipe(size), _loss(size), dtype, _steps(size))


def build_without_mssdm(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> NetworkWithLoss:
    """Both decoders, nothing is moved."""
    network = Undeformed(build_network(_sizes(size, context), DROPOUT))  # type: ignore[arg-type]
    return NetworkWithLoss(network, _recipe(size), _loss(size), dtype, _steps(size))


def build_without_both(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> NetworkWithLoss:
    """One decoder for image and mask, nothing is moved."""
    sizes = _sizes(size, context)
    network = OneDecoder(sizes, DROPOUT) if size == "small" else PublishedOneDecoder(sizes)
    return NetworkWithLoss(Undeformed(network), _recipe(size), _loss(size), dtype, _steps(size))


def add_residual(e: Estimate, state: State, _condition: Condition, noise: Noise, _recipe: DiffusionRecipe) -> Estimate:
    """The first output of the deformation module's network is added to the data prediction; nothing is moved."""
    inside = e.x0 > -1  # outside the brain the data prediction is exactly -1
    x0 = torch.where(inside, e.x0.clamp(-1, 1) + RESIDUAL_SCALE * e.displacement[:, :1], e.x0)
    return _corrected(e, x0, state, noise)


def blur(e: Estimate, state: State, _condition: Condition, noise: Noise, _recipe: DiffusionRecipe) -> Estimate:
    """A 3 x 3 mean of the data prediction, borders repeated; nothing is moved."""
    padded = functional.pad(e.x0.clamp(-1, 1), (1, 1, 1, 1), mode="replicate")
    return _corrected(e, functional.avg_pool2d(padded, 3, 1), state, noise)


def _corrected(e: Estimate, x0: Tensor, state: State, noise: Noise) -> Estimate:
    """As the warp of the data prediction: the noise follows from x_t and it."""
    eps = (state.x - noise.signal * x0) / noise.noise
    return replace(e, x0=x0, eps=eps, displacement=torch.zeros_like(e.displacement))


def build_residual(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> NetworkWithLoss:
    """As D3M, with a correction of equal size in the warp's place."""
    network = build_network(_sizes(size, context), DROPOUT)
    return NetworkWithLoss(network, _recipe(size), _loss(size), dtype, _steps(size), add_residual)


def build_blur(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> NetworkWithLoss:
    """As D3M, with a fixed blur in the warp's place."""
    network = Undeformed(build_network(_sizes(size, context), DROPOUT))  # type: ignore[arg-type]
    return NetworkWithLoss(network, _recipe(size), _loss(size), dtype, _steps(size), blur)


class Regression(NetworkWithLoss):
    """One step from nothing: without noise, what is learnt is the conditional mean."""

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Zeros."""
        return torch.zeros(shape)


def build_regression(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> NetworkWithLoss:
    """The same network and loss on the data predictions, trained for the one step that it takes."""
    network = Undeformed(build_network(_sizes(size, context), DROPOUT))  # type: ignore[arg-type]
    loss = RolledLoss(rolled_steps=(1,), regions=_loss(size).regions)
    recipe = replace(_recipe(size), warp="x0", training_warp="x0")
    return Regression(network, recipe, loss, dtype, steps=1)
