"""The loss of recipe `default`: at the times that sampling uses, on the network's own estimates and on the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d3m.diffusion.sampler import Estimate, State
from d3m.diffusion.schedule import diffuse, time_pairs
from d3m_training.data.cache import ENHANCING, NECROSIS
from d3m_training.train import losses
from d3m_training.train.d3m import Drawn, Roll, Terms, terms_of


@dataclass(frozen=True)
class RolledLoss:
    """Weighted squared errors of the data predictions before and after the warp, mask, field and regions.

    Each weight names its term's equation in `d3m_training.train.losses`.
    """

    enhancing_weight: float = 2.0
    """w in the enhancing tumour and its surroundings (`tumour_weight`)."""
    smoothness: float = 0.02
    """lambda of `weighted_smoothness`."""
    field_outside: float = 0.02
    """Weight of `field_outside`."""
    mask: float = 1.0
    """Weight of `hinge_squared`."""
    dice: float = 0.05
    """Weight of `soft_dice` on the mask's data prediction."""
    regions: float = 0.03
    """Weight of `region_cross_entropy` of the auxiliary regions; 0 switches it off."""
    displaced: float = 0.0
    """Weight of `displaced.displaced_loss`, which gives the deformation module known displacements to undo."""
    image_before: float = 0.5
    """Share of the image term that is taken before the warp; the rest after it."""
    rolled_steps: tuple[int, ...] = (1, 2)
    """Numbers of sampling steps that training prepares for."""
    truth_share: float = 0.2
    """Share of later steps that start from the truth instead of the model's own estimate."""
    given_mask_share: float = 0.0
    """Share of later steps in which the mask's stream is at the truth and the image's where sampling left it, so that
    the image learns to follow a mask that is given."""

    def state(self, drawn: Drawn, roll: Roll, generator: torch.Generator) -> tuple[Tensor, State]:
        """A time that sampling uses, and the state there: reached by sampling itself, or made from the truth."""
        steps = self.rolled_steps[int(torch.randint(len(self.rolled_steps), (), generator=generator))]
        pairs = time_pairs(drawn.recipe.timesteps, steps, drawn.recipe.time_spacing)
        done = int(torch.randint(steps, (), generator=generator))
        from_truth = float(torch.rand((), generator=generator)) < self.truth_share
        t = torch.full((len(drawn.x0),), pairs[done][0], device=drawn.x0.device)
        state = State(drawn.eps, drawn.eps_mask)
        if done and from_truth:
            noise = drawn.schedule.at(t)
            state = State(diffuse(drawn.x0, drawn.eps, noise), diffuse(drawn.m0, drawn.eps_mask, noise))
        elif done:
            state = roll(state, drawn.condition, pairs[:done])
        if done:  # at the first time the mask's stream is noise alone
            state = self._with_given_mask(state, t, drawn, generator)
        return t, state

    def _with_given_mask(self, state: State, t: Tensor, drawn: Drawn, generator: torch.Generator) -> State:
        """The mask's stream at the truth in the stated share of later steps, where the truth is known."""
        if self.given_mask_share == 0 or float(torch.rand((), generator=generator)) >= self.given_mask_share:
            return state
        true = diffuse(drawn.m0, drawn.eps_mask, drawn.schedule.at(t))
        known = drawn.batch.labelled[:, None, None, None] > 0
        return replace(state, m=torch.where(known, true, state.m))

    def terms(self, drawn: Drawn, t: Tensor, e: Estimate, regions: Tensor | None) -> Terms:  # noqa: ARG002
        """See the class; all times count alike."""
        batch, x0, enhancing = drawn.batch, drawn.x0, drawn.enhancing
        labelled = batch.labelled[:, None, None, None]
        weight = losses.tumour_weight(enhancing, batch.brain, self.enhancing_weight)
        before = losses.mean_over((e.x0_before - x0).square(), weight)
        after = losses.mean_over((e.x0 - x0).square(), weight)
        probability = (e.m0_before / drawn.recipe.mask_amplitude + 1) / 2  # not clamped, see `losses.hinge_squared`
        known = batch.brain * labelled
        mask = losses.mean_over(losses.hinge_squared(probability, enhancing), known)
        dice = losses.soft_dice(losses.clamp_right(probability, enhancing), enhancing, known)
        near = losses.dilate(enhancing, 5)
        outside = losses.field_outside(e.displacement, near, labelled)
        smooth = losses.weighted_smoothness(e.displacement, torch.ones(len(x0), device=x0.device))
        total = (
            self.image_before * before + (1 - self.image_before) * after + self.mask * mask + self.dice * dice
            + self.smoothness * smooth + self.field_outside * outside
        )  # fmt: skip
        region = None
        if regions is not None:
            nested = torch.cat([batch.label > 0, (batch.label == ENHANCING) | (batch.label == NECROSIS)], dim=1)
            region = losses.region_cross_entropy(regions, nested.float(), known)
            total = total + self.regions * region
        return terms_of(drawn, e, weight, total, before, after, mask, dice, region)
