"""Training of D3M: one module whose forward pass is a batch's losses; the loss itself is one of three.

`rolled.RolledLoss` (recipe `default`): the network is trained at the times that sampling uses, mostly on its own
estimates, so that what it learns to correct is its own error. `published.VelocityLoss` (recipe `paper`) and
`published.StepLoss` (recipe `step-warp`) follow the published equations, at uniform times on the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.precision import MixedPrecision
from d3m.diffusion.recipe import DiffusionRecipe
from d3m.diffusion.sampler import (
    Condition,
    Correction,
    Estimate,
    State,
    estimate_from_outputs,
    reverse,
    to_intensity,
    to_model_range,
    to_probability,
)
from d3m.diffusion.schedule import Schedule, make_schedule, time_pairs
from d3m_training.data.batches import Batch
from d3m_training.data.cache import ENHANCING
from d3m_training.train import losses
from d3m_training.train.displaced import displaced_loss
from d3m_training.train.method import Prediction

DROPOUT = 0.2
"""Of the compact network in training."""


@dataclass(frozen=True)
class Drawn:
    """A batch in the diffusion's terms, with the noise that was drawn for it."""

    recipe: DiffusionRecipe
    schedule: Schedule
    batch: Batch
    condition: Condition
    x0: Tensor
    """(N, 1, H, W) the image in the model's range."""
    m0: Tensor
    """(N, 1, H, W) the mask likewise."""
    enhancing: Tensor
    """(N, 1, H, W) 0 or 1."""
    eps: Tensor
    """(N, 1, H, W) the image's noise."""
    eps_mask: Tensor
    """(N, 1, H, W) the mask's."""


class Roll(Protocol):
    """The network as its own sampler."""

    def __call__(self, state: State, condition: Condition, pairs: list[tuple[int, int]]) -> State:
        """The state after the reverse steps between the pairs of times, without a gradient."""


class Loss(Protocol):
    """What a recipe is trained with."""

    @property
    def regions(self) -> float:
        """Weight of the auxiliary regions; 0: the network is not asked for them."""

    @property
    def displaced(self) -> float:
        """Weight of `displaced_loss`; 0: nothing is displaced."""

    def state(self, drawn: Drawn, roll: Roll, generator: torch.Generator) -> tuple[Tensor, State]:
        """Times (N,) and the state there that the network is given."""

    def terms(self, drawn: Drawn, t: Tensor, e: Estimate, regions: Tensor | None) -> Terms:
        """The terms of what it made of that state; `regions` are logits."""


@dataclass(frozen=True)
class Terms:
    """Mean loss terms of a batch, scalars; `total` is what is minimised, the others are logged."""

    total: Tensor
    image_before: Tensor
    image_after: Tensor
    mask: Tensor
    dice: Tensor
    regions: Tensor
    displacement: Tensor
    """Mean length of the field in the brain, pixels."""
    blur_gain: Tensor
    """Error before minus after a fixed blur in the place of the warp: what the warp must beat."""
    displaced_left: Tensor
    """See `Displaced.left`; 0 where nothing is displaced."""


def terms_of(
    drawn: Drawn, e: Estimate, weight: Tensor, total: Tensor, before: Tensor, after: Tensor, mask: Tensor,
    dice: Tensor | None = None, regions: Tensor | None = None,
) -> Terms:  # fmt: skip
    """The terms with what is logged beside them: the field's length, and what a blur would have gained."""
    zero = torch.zeros((), device=drawn.x0.device)
    with torch.no_grad():
        length = losses.mean_over(e.displacement.norm(dim=1, keepdim=True), drawn.batch.brain)
        blurred = functional.avg_pool2d(functional.pad(e.x0_before, (1, 1, 1, 1), mode="replicate"), 3, 1)
        gain = losses.mean_over((e.x0_before - drawn.x0).square(), weight) - losses.mean_over(
            (blurred - drawn.x0).square(), weight
        )
    dice, regions = zero if dice is None else dice, zero if regions is None else regions
    return Terms(losses.finite(total), *(v.detach() for v in (before, after, mask, dice, regions, length, gain, zero)))


class NetworkWithLoss(nn.Module):
    """Network, schedule and loss in one module, so that data-parallel wrappers see a single forward pass.

    Args:
        network: From `build_network`.
        recipe: The model's equations.
        loss: One of the three.
        dtype: Number format of the network's convolutions.
        steps: Reverse steps of `predict`.
        correct: In the place of the warp, for controls; see `d3m.diffusion.sampler.estimate`.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: DiffusionRecipe,
        loss: Loss,
        dtype: torch.dtype,
        steps: int = 1,
        correct: Correction | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.stride: int = network.stride  # type: ignore[assignment]
        self.sampling_recipe = recipe
        self.recipe = replace(recipe, warp=recipe.training_warp)
        self.loss = loss
        self.steps = steps
        self.correct = correct
        self.schedule = make_schedule(recipe.schedule, recipe.timesteps)
        self.dtype = dtype

    def forward(self, batch: Batch, generator: torch.Generator) -> Terms:
        """Losses of one batch.

        Args:
            batch: On the network's device.
            generator: On the CPU; decides times and noise.
        """
        x0 = to_model_range(batch.target, self.recipe)
        enhancing = (batch.label == ENHANCING).float()
        m0 = (2 * enhancing - 1) * self.recipe.mask_amplitude
        eps, eps_mask = self.draw_noise((2, *x0.shape), generator).to(x0.device)
        condition = Condition(batch.condition, batch.t1, batch.brain > 0)
        drawn = Drawn(self.recipe, self.schedule, batch, condition, x0, m0, enhancing, eps, eps_mask)
        t, state = self.loss.state(drawn, self._roll, generator)
        estimated, regions = self._estimate(state, condition, t)
        terms = self.loss.terms(drawn, t, estimated, regions)
        if self.loss.displaced == 0:
            return terms
        t1 = to_model_range(batch.t1, self.recipe)
        known = batch.brain * batch.labelled[:, None, None, None]
        displaced = displaced_loss(self.network.deform, x0, t1, enhancing, known, generator)  # type: ignore[arg-type]
        return replace(terms, total=terms.total + self.loss.displaced * displaced.loss, displaced_left=displaced.left)

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard normal noise on the CPU."""
        return torch.randn(shape, generator=generator)

    @torch.inference_mode()
    def predict(self, condition: Condition, seed: int) -> Prediction:
        """Image and mask after `steps` reverse steps, see `d3m_training.train.method.Method`."""
        recipe, (height, width) = self.sampling_recipe, condition.t1.shape[2:]
        generator = torch.Generator().manual_seed(seed)
        x, m = self.draw_noise((2, 1, 1, height, width), generator).to(condition.t1.device)
        state = State(x.expand(condition.t1.shape), m.expand(condition.t1.shape))
        pairs = time_pairs(recipe.timesteps, self.steps, recipe.time_spacing)
        network = MixedPrecision(self.network, self.dtype)
        *_, last = reverse(network, state, condition, pairs, self.schedule, recipe, correct=self.correct)
        image, probability = to_intensity(last.estimate.x0, recipe), to_probability(last.estimate.m0, recipe)
        return Prediction(image * condition.brain, probability * condition.brain)

    @torch.no_grad()
    def _roll(self, state: State, condition: Condition, pairs: list[tuple[int, int]]) -> State:
        network = MixedPrecision(self.network, self.dtype)
        for step in reverse(network, state, condition, pairs, self.schedule, self.recipe, correct=self.correct):
            state = step.state
        return state

    def _estimate(self, state: State, condition: Condition, t: Tensor) -> tuple[Estimate, Tensor | None]:
        """The sampler's estimate, with the auxiliary regions where the network has them."""
        network = MixedPrecision(self.network, self.dtype)
        regions = None
        with network.autocast(state.x.device):
            if self.loss.regions > 0:
                image, mask, regions = self.network.outputs(state.x, state.m, condition.slices, t)  # type: ignore[operator]
            else:
                image, mask = self.network(state.x, state.m, condition.slices, t)
        noise = self.schedule.at(t)
        estimated = estimate_from_outputs(
            network, image.float(), mask.float(), state, condition, noise, self.recipe, self.correct
        )
        return estimated, regions
