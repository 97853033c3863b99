"""Training of D3M: one module whose forward pass is a batch's losses, for each of the recipes.

"rolled" (recipe `default`): the network is trained at the times that sampling uses, mostly on its own estimates, so
that what it learns to correct is its own error. "velocity" (recipe `paper`) and "step" (recipe `step-warp`) follow the
published equations, at uniform times on the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

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
from d3m.diffusion.schedule import diffuse, make_schedule, time_pairs, velocity
from d3m_training.data.batches import Batch
from d3m_training.data.cache import ENHANCING, NECROSIS
from d3m_training.train import losses
from d3m_training.train.method import Prediction

DROPOUT = 0.2
"""Of the compact network in training."""


@dataclass(frozen=True)
class LossSettings:
    """Weights and switches of the loss; each names its term's equation in `d3m_training.train.losses`."""

    kind: Literal["rolled", "velocity", "step"] = "rolled"
    enhancing_weight: float = 2.0
    """w in the enhancing tumour and its surroundings (`tumour_weight`)."""
    smoothness: float = 0.02
    """lambda of `weighted_smoothness`."""
    field_outside: float = 0.02
    """Weight of `field_outside`."""
    mask: float = 1.0
    """Weight of `hinge_squared` ("rolled") or of the mask's mean squared velocity error."""
    dice: float = 0.05
    """Weight of `soft_dice` on the mask's data prediction; 0 switches it off."""
    regions: float = 0.03
    """Weight of `region_cross_entropy` of the auxiliary regions; 0 switches it off."""
    image_before: float = 0.5
    """Share of the image term that is taken before the warp; the rest after it. "rolled" only."""
    rolled_steps: tuple[int, ...] = (1, 2)
    """Numbers of sampling steps that training prepares for. "rolled" only."""
    truth_share: float = 0.2
    """Share of later steps that start from the truth instead of the model's own estimate. "rolled" only."""
    given_mask_share: float = 0.0
    """Share of later steps in which the mask's stream is at the truth and the image's where sampling left it, so that
    the image learns to follow a mask that is given. "rolled" only."""
    snr_weight: bool = False
    """Weight snr / (snr + 1) = alpha_bar for each sample, on image, mask and field. "velocity" and "step" only."""


PUBLISHED_LOSS = LossSettings(
    "velocity", enhancing_weight=1.0, smoothness=1.0, field_outside=0.0, dice=0.0, regions=0.0, snr_weight=True
)
"""The authors' public code: equal weights in the image, weight alpha_bar, lambda 1."""
STEP_WARP_LOSS = LossSettings("step", enhancing_weight=5.0, smoothness=0.1, field_outside=0.0, dice=0.0, regions=0.0)
"""w * mean((phi_u(x_s_hat) - x_s)^2) + lambda * S(u), and the mask's velocity."""


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


class NetworkWithLoss(nn.Module):
    """Network, schedule and loss in one module, so that data-parallel wrappers see a single forward pass.

    Args:
        network: From `build_network`.
        recipe: The model's equations.
        settings: The loss.
        dtype: Number format of the network's convolutions.
        steps: Reverse steps of `predict`.
        correct: In the place of the warp, for controls; see `d3m.diffusion.sampler.estimate`.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: DiffusionRecipe,
        settings: LossSettings,
        dtype: torch.dtype,
        steps: int = 1,
        correct: Correction | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.stride: int = network.stride  # type: ignore[assignment]
        self.sampling_recipe = recipe
        self.recipe = replace(recipe, warp=recipe.training_warp)
        self.settings = settings
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
        if self.settings.kind == "rolled":
            t, state = self._rolled_state(x0, m0, eps, eps_mask, condition, generator)
            state = self._with_given_mask(state, t, m0, eps_mask, batch.labelled, generator)
        else:
            t = torch.randint(1, self.recipe.timesteps + 1, (len(x0),), generator=generator).to(x0.device)
            noise = self.schedule.at(t)
            state = State(diffuse(x0, eps, noise), diffuse(m0, eps_mask, noise))
        estimated, regions = self._estimate(state, condition, t)
        if self.settings.kind == "rolled":
            return self._data_terms(batch, x0, enhancing, estimated, regions)
        return self._published_terms(batch, x0, m0, eps, eps_mask, enhancing, t, estimated)

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

    def _rolled_state(
        self, x0: Tensor, m0: Tensor, eps: Tensor, eps_mask: Tensor, condition: Condition, generator: torch.Generator
    ) -> tuple[Tensor, State]:
        """A time that sampling uses, and the state there: reached by sampling itself, or made from the truth."""
        choices = self.settings.rolled_steps
        steps = choices[int(torch.randint(len(choices), (), generator=generator))]
        pairs = time_pairs(self.recipe.timesteps, steps, self.recipe.time_spacing)
        done = int(torch.randint(steps, (), generator=generator))
        from_truth = float(torch.rand((), generator=generator)) < self.settings.truth_share
        t = torch.full((len(x0),), pairs[done][0], device=x0.device)
        state = State(eps, eps_mask)
        if from_truth or done == 0:
            noise = self.schedule.at(t)
            if done:
                state = State(diffuse(x0, eps, noise), diffuse(m0, eps_mask, noise))
            return t, state
        with torch.no_grad():
            network = MixedPrecision(self.network, self.dtype)
            for step in reverse(
                network, state, condition, pairs[:done], self.schedule, self.recipe, correct=self.correct
            ):
                state = step.state
        return t, state

    def _with_given_mask(
        self, state: State, t: Tensor, m0: Tensor, eps_mask: Tensor, labelled: Tensor, generator: torch.Generator
    ) -> State:
        """The mask's stream at the truth in the settings' share of later steps, where the truth is known."""
        share = self.settings.given_mask_share
        if share == 0 or bool((t == self.recipe.timesteps).any()):  # at the first time it is noise alone
            return state
        if float(torch.rand((), generator=generator)) >= share:
            return state
        true = diffuse(m0, eps_mask, self.schedule.at(t))
        return replace(state, m=torch.where(labelled[:, None, None, None] > 0, true, state.m))

    def _estimate(self, state: State, condition: Condition, t: Tensor) -> tuple[Estimate, Tensor | None]:
        """The sampler's estimate, with the auxiliary regions where the network has them."""
        network = MixedPrecision(self.network, self.dtype)
        regions = None
        with network.autocast(state.x.device):
            if self.settings.regions > 0:
                image, mask, regions = self.network.outputs(state.x, state.m, condition.slices, t)  # type: ignore[operator]
            else:
                image, mask = self.network(state.x, state.m, condition.slices, t)
        noise = self.schedule.at(t)
        estimated = estimate_from_outputs(
            network, image.float(), mask.float(), state, condition, noise, self.recipe, self.correct
        )
        return estimated, regions

    def _data_terms(self, batch: Batch, x0: Tensor, enhancing: Tensor, e: Estimate, regions: Tensor | None) -> Terms:
        """Weighted squared errors of the data predictions before and after the warp, mask, field and regions."""
        s = self.settings
        labelled = batch.labelled[:, None, None, None]
        weight = losses.tumour_weight(enhancing, batch.brain, s.enhancing_weight)
        before = losses.mean_over((e.x0_before - x0).square(), weight)
        after = losses.mean_over((e.x0 - x0).square(), weight)
        probability = (e.m0_before / self.recipe.mask_amplitude + 1) / 2  # not clamped, see `losses.hinge_squared`
        known = batch.brain * labelled
        mask = losses.mean_over(losses.hinge_squared(probability, enhancing), known)
        dice = losses.soft_dice(losses.clamp_right(probability, enhancing), enhancing, known)
        near = losses.dilate(enhancing, 5)
        outside = losses.field_outside(e.displacement, near, labelled)
        smooth = losses.weighted_smoothness(e.displacement, torch.ones(len(x0), device=x0.device))
        total = (
            s.image_before * before + (1 - s.image_before) * after + s.mask * mask + s.dice * dice
            + s.smoothness * smooth + s.field_outside * outside
        )  # fmt: skip
        region = torch.zeros((), device=x0.device)
        if regions is not None:
            nested = torch.cat([batch.label > 0, (batch.label == ENHANCING) | (batch.label == NECROSIS)], dim=1)
            region = losses.region_cross_entropy(regions, nested.float(), known)
            total = total + s.regions * region
        return self._terms(total, before, after, mask, dice, region, e, x0, weight, batch.brain)

    def _published_terms(
        self,
        batch: Batch,
        x0: Tensor,
        m0: Tensor,
        eps: Tensor,
        eps_mask: Tensor,
        enhancing: Tensor,
        t: Tensor,
        e: Estimate,
    ) -> Terms:
        """The published losses: on warped velocities ("velocity") or on the warped sum x_s ("step")."""
        s, recipe = self.settings, self.recipe
        noise = self.schedule.at(t)
        alpha_bar = noise.signal.square() if s.snr_weight else torch.ones_like(noise.signal)
        weight = (1 + (s.enhancing_weight - 1) * losses.dilate(enhancing, 3)) * alpha_bar
        labelled = batch.labelled[:, None, None, None]
        if s.kind == "velocity":
            after = ((e.velocity_image - velocity(x0, eps, noise, recipe.image_velocity)).square() * weight).mean()
        else:
            earlier = self.schedule.at((t - 1).clamp(min=0))
            predicted, wanted = diffuse(e.x0, e.eps, earlier), diffuse(x0, eps, earlier)
            after = ((predicted - wanted).square() * weight).mean()
        wanted_mask = velocity(m0, eps_mask, noise, "v")
        mask = losses.mean_over((e.velocity_mask - wanted_mask).square() * alpha_bar, labelled.expand_as(x0))
        smooth = losses.weighted_smoothness(e.displacement, alpha_bar.flatten())
        before = ((e.x0_before - x0).square() * weight).mean().detach()
        total = after + s.mask * mask + s.smoothness * smooth
        zero = torch.zeros((), device=x0.device)
        return self._terms(total, before, after, mask, zero, zero, e, x0, weight, batch.brain)

    def _terms(
        self,
        total: Tensor,
        before: Tensor,
        after: Tensor,
        mask: Tensor,
        dice: Tensor,
        regions: Tensor,
        e: Estimate,
        x0: Tensor,
        weight: Tensor,
        brain: Tensor,
    ) -> Terms:
        with torch.no_grad():
            length = losses.mean_over(e.displacement.norm(dim=1, keepdim=True), brain)
            blurred = functional.avg_pool2d(functional.pad(e.x0_before, (1, 1, 1, 1), mode="replicate"), 3, 1)
            gain = losses.mean_over((e.x0_before - x0).square(), weight) - losses.mean_over(
                (blurred - x0).square(), weight
            )
        return Terms(losses.finite(total), *(v.detach() for v in (before, after, mask, dice, regions, length, gain)))
