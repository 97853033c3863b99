"""Pix2Pix: a U-Net against a discriminator of patches, cross-entropy plus 100 times the absolute error.

Source: Isola et al. 2017, arXiv:1611.07004; sizes of the public code (junyanz/pytorch-CycleGAN-and-pix2pix): eight
levels of 4 x 4 convolutions with stride 2, width 64 doubling to 512, batch norm, dropout on the three inner levels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d3m.diffusion.recipe import CONDITION_CHANNELS
from d3m_benchmark.methods.adversarial import SHARED_OUTPUTS, Adversarial
from d3m_training.train.method import Size
from d3m_training.train.trainer import TrainSettings

WIDTHS: dict[Size, tuple[int, ...]] = {
    "published": (64, 128, 256, 512, 512, 512, 512, 512),
    "small": (32, 64, 128, 256, 256),
}
DROPOUT_LEVELS = 3


class UNetGenerator(nn.Module):
    """U-Net of strided convolutions; the last convolution has no activation.

    Args:
        inputs: Channels.
        outputs: Channels.
        widths: From the outermost level to the innermost.
    """

    def __init__(self, inputs: int, outputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = 2 ** len(widths)
        levels, inner = len(widths), len(widths) - 1
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(0.2) if k else nn.Identity(),
                nn.Conv2d(widths[k - 1] if k else inputs, widths[k], 4, 2, 1, bias=k in (0, inner)),
                nn.BatchNorm2d(widths[k]) if 0 < k < inner else nn.Identity(),
            )
            for k in range(levels)
        )
        # the inner levels below 512 channels have dropout in the published network: the second to fourth innermost
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.ConvTranspose2d(
                    widths[k] * (1 if k == inner else 2), widths[k - 1] if k else outputs, 4, 2, 1, bias=k == 0
                ),
                nn.BatchNorm2d(widths[k - 1]) if k else nn.Identity(),
                nn.Dropout(0.5) if levels > 5 and inner - DROPOUT_LEVELS <= k < inner else nn.Identity(),
            )
            for k in range(levels)
        )
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        skips: list[Tensor] = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        for k in range(len(skips) - 1, -1, -1):
            x = self.up[k](x if k == len(skips) - 1 else torch.cat([skips[k], x], dim=1))
        return x


def _initialise(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for the norms' scales, as published."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def build_pix2pix(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> Adversarial:
    """Pix2Pix, see `d3m_training.train.method.Method`."""
    generator = UNetGenerator(CONDITION_CHANNELS * len(context), SHARED_OUTPUTS, WIDTHS[size])
    width = 64 if size == "published" else 32
    return Adversarial(generator, generator.stride, context, "bce", dtype, width)


def adversarial_settings(size: Size) -> TrainSettings:
    """The published rate and momentum for batches of one slice; a higher rate where the budget is short.

    The published linear decay to 0 is the cosine's here. Nothing is averaged in the published training.
    """
    rate, ema = (2e-4, 0.0) if size == "published" else (5e-4, 0.99)
    return TrainSettings(learning_rate=rate, betas=(0.5, 0.999), weight_decay=0.0, clip=1e9, ema=ema)
