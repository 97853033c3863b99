"""What every method of the comparison has in common: how it is trained, and how it predicts.

A method is one module: its forward pass gives a batch's loss terms (so that the trainer and data-parallel wrappers see
a single forward pass), and `predict` turns conditions into an image and a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from d3m.diffusion.sampler import Condition
from d3m_training.data.batches import Batch
from d3m_training.data.cache import ENHANCING, TARGET_UPPER
from d3m_training.train import losses

Size = Literal["small", "published"]
"""Budget-matched for two CPU cores, or as published."""


@dataclass(frozen=True)
class Prediction:
    """What a method makes of slices."""

    image: Tensor
    """(N, 1, H, W) scaled intensity of t1c on T1's scale, in [0, TARGET_UPPER]; 0 outside the brain."""
    probability: Tensor
    """(N, 1, H, W) of enhancing tumour, in [0, 1]; 0 outside the brain."""


class Method(Protocol):
    """A module that can be trained and that predicts."""

    @property
    def network(self) -> nn.Module:
        """All that is trained and saved, a discriminator included."""

    @property
    def stride(self) -> int:
        """H and W must be multiples of it."""

    @property
    def steps(self) -> int:
        """Passes through the network that one prediction takes."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> losses.LossTerms:
        """Loss terms of a batch on the network's device; the generator, on the CPU, decides times and noise."""

    def predict(self, condition: Condition, seed: int) -> Prediction:
        """Image and mask of slices. The initial noise depends on the seed alone and is the same for every slice."""


def to_range(intensity: Tensor) -> Tensor:
    """Scaled intensity in [0, TARGET_UPPER] to [-1, 1]."""
    return 2 * intensity / TARGET_UPPER - 1


def to_prediction(image: Tensor, logits: Tensor, brain: Tensor) -> Prediction:
    """A network's image in [-1, 1] and mask logits as a `Prediction`.

    Args:
        image: (N, 1, H, W).
        logits: (N, 1, H, W).
        brain: (N, 1, H, W) bool.
    """
    scaled = ((image.float() + 1) * TARGET_UPPER / 2).clamp(0, TARGET_UPPER)
    return Prediction(scaled * brain, torch.sigmoid(logits.float()) * brain)


def mask_term(logits: Tensor, batch: Batch) -> Tensor:
    """The auxiliary task that all methods share, as in the paper: where the tumour enhances.

    Binary cross-entropy over the brain plus a tenth of the soft Dice, over slices whose label is known.

    Args:
        logits: (N, 1, H, W).
        batch: Its labels are compared with.
    """
    enhancing = (batch.label == ENHANCING).float()
    known = batch.brain * batch.labelled[:, None, None, None]
    dice = losses.soft_dice(torch.sigmoid(logits), enhancing, known)
    return losses.region_cross_entropy(logits, enhancing, known) + 0.1 * dice
