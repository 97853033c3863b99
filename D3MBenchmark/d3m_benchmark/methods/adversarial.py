"""What Pix2Pix and ResViT share: a generator, and a discriminator that looks at patches.

One total for one optimiser: the generator's loss goes through a discriminator whose parameters are held fixed, the
discriminator's loss through an image that is cut off from the generator; no gradient reaches the other's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from d3m.diffusion.precision import autocast
from d3m.diffusion.recipe import CONDITION_CHANNELS
from d3m.diffusion.sampler import Condition
from d3m_training.data.batches import Batch
from d3m_training.train import losses
from d3m_training.train.method import Prediction, mask_term, to_prediction, to_range

PIXEL_WEIGHT = 100.0
"""Of the absolute error, in both papers."""
MASK_WEIGHT = 20.0
"""Of the auxiliary mask: it then has about the share of the loss that it has in D3M's. With 1 the pixels drown it, and
ResViT's mask does not begin to learn."""
SHARED_OUTPUTS = 2
"""Image and the logits of the mask."""


@dataclass(frozen=True)
class AdversarialTerms:
    """Mean loss terms of a batch."""

    total: Tensor
    pixel: Tensor
    """Mean absolute error in the brain, range [-1, 1]."""
    deceive: Tensor
    """The generator's adversarial term."""
    tell: Tensor
    """The discriminator's."""
    mask: Tensor


class AdversarialNetworks(nn.Module):
    """Both networks, so that one checkpoint holds both.

    Args:
        generator: (N, 3 * context, H, W) to (N, 2, H, W): image in [-1, 1] by tanh, and mask logits.
        widths: Of the discriminator's first convolution.
    """

    def __init__(self, generator: nn.Module, widths: int) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = PatchDiscriminator(2, widths, CONDITION_CHANNELS + 1, num_layers_d=3)


class Adversarial(nn.Module):
    """A generator that is trained against a discriminator; see `d3m_training.train.method.Method`.

    Args:
        generator: See `AdversarialNetworks`.
        stride: Of the generator; slices of any size are padded with background to a multiple of it.
        context: Slices of the condition.
        criterion: "bce" (Pix2Pix) or "least_squares" (ResViT).
        dtype: Number format of the convolutions.
        discriminator_width: Of its first convolution.
    """

    steps = 1

    def __init__(
        self,
        generator: nn.Module,
        stride: int,
        context: tuple[int, ...],
        criterion: Literal["bce", "least_squares"],
        dtype: torch.dtype,
        discriminator_width: int = 64,
    ) -> None:
        super().__init__()
        self.network = AdversarialNetworks(generator, discriminator_width)
        self.stride = stride
        self.middle = CONDITION_CHANNELS * context.index(0)
        # the network's own numbers, without an activation: both papers' criteria take them so
        self.criterion = PatchAdversarialLoss(criterion=criterion, no_activation_leastsq=True)
        self.dtype = dtype

    def forward(self, batch: Batch, generator: torch.Generator) -> AdversarialTerms:  # noqa: ARG002 - nothing is drawn
        """Loss terms of a batch; the adversarial ones see the slice's own contrasts."""
        real = to_range(batch.target)
        made, logits = self._generate(batch.condition)
        made = torch.where(batch.brain > 0, made, -1.0)
        own = batch.condition[:, self.middle : self.middle + CONDITION_CHANNELS]
        pixel = losses.mean_over((made - real).abs(), batch.brain)
        fixed = {name: value.detach() for name, value in self.network.discriminator.named_parameters()}
        deceive = self._judge(own, made, fixed, real=True, discriminator=False)
        tell = 0.5 * (
            self._judge(own, real, None, real=True, discriminator=True)
            + self._judge(own, made.detach(), None, real=False, discriminator=True)
        )
        mask = mask_term(logits, batch)
        total = losses.finite(PIXEL_WEIGHT * pixel + deceive + tell + MASK_WEIGHT * mask)
        return AdversarialTerms(total, pixel.detach(), deceive.detach(), tell.detach(), mask.detach())

    @torch.inference_mode()
    def predict(self, condition: Condition, seed: int) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """Image and mask, see `d3m_training.train.method.Method`."""
        made, logits = self._generate(condition.slices)
        return to_prediction(made, logits, condition.brain)

    def _generate(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        height, width = condition.shape[2:]
        # Pix2Pix's eight levels ask for multiples of 256, which neither crops nor the cache's slices are
        padded = functional.pad(condition, (0, -width % self.stride, 0, -height % self.stride))
        with autocast(self.dtype, condition.device):
            out = self.network.generator(padded.contiguous(memory_format=torch.channels_last))
        made, logits = out[:, :, :height, :width].float().chunk(2, dim=1)
        return torch.tanh(made), logits

    def _judge(
        self, own: Tensor, image: Tensor, fixed: dict[str, Tensor] | None, *, real: bool, discriminator: bool
    ) -> Tensor:
        seen = torch.cat([2 * own - 1, image], dim=1).contiguous(memory_format=torch.channels_last)
        with autocast(self.dtype, seen.device):
            network = self.network.discriminator
            judged = network(seen) if fixed is None else functional_call(network, fixed, (seen,))
        loss: Tensor = self.criterion(judged[-1].float(), target_is_real=real, for_discriminator=discriminator)
        return loss
