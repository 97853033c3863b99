"""Networks that several methods of the comparison share, made of the engine's own blocks."""

from __future__ import annotations

from typing import cast

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.networks.blocks import TimeMLP
from d3m.diffusion.networks.published import PublishedNetwork
from d3m.diffusion.networks.slice import CompactNetwork, Decoder, Encoder
from d3m.diffusion.precision import autocast
from d3m.diffusion.recipe import CONDITION_CHANNELS, NetworkSizes
from d3m_training.train.method import Size

WIDTHS = NetworkSizes().widths
"""As wide as the compact D3M network, so that budgets match."""


class SingleDecoder(nn.Module):
    """The compact D3M network's encoder with one decoder for all outputs.

    Args:
        inputs: Channels.
        outputs: Channels.
        widths: From the highest resolution to the innermost, multiples of 8.
        blocks: Residual blocks on each level.
        dropout: Share of inner features that training drops.
    """

    def __init__(
        self, inputs: int, outputs: int, widths: tuple[int, ...] = WIDTHS, blocks: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.stride = 2 ** len(widths)
        self.time = TimeMLP(widths[0], 4 * widths[0])
        self.encoder = Encoder(inputs, widths, blocks, 4 * widths[0], dropout)
        self.decoder = Decoder(widths, blocks, 4 * widths[0], dropout)
        self.head = nn.Conv2d(widths[0], 4 * outputs, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(N, outputs, H, W) float32 from x (N, inputs, H, W) and times t (N,)."""
        time = self.time(t)
        features = self.encoder(x.contiguous(memory_format=torch.channels_last), time)
        return functional.pixel_shuffle(self.head(self.decoder(features, time)), 2).float()


class PublishedUNet(nn.Module):
    """A diffusion U-Net of the size that Palette's re-implementation has, from MONAI: image and mask logits.

    Width 64, multipliers 1-2-4-8, two residual blocks a level, attention in the middle alone.

    Args:
        inputs: Channels.
    """

    stride = 8

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.inner = DiffusionModelUNet(
            2, inputs, 2, num_res_blocks=2, channels=(64, 128, 256, 512), attention_levels=(False,) * 4,
            num_head_channels=32,
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(N, 2, H, W) float32 from x (N, inputs, H, W) and times t (N,)."""
        out: Tensor = self.inner(x, timesteps=t)
        return out.float()


def diffusion_network(size: Size, context: tuple[int, ...]) -> nn.Module:
    """For Palette and I2SB: called with (x, t), x the noisy image and the condition; two channels; has `stride`."""
    inputs = 1 + CONDITION_CHANNELS * len(context)
    return SingleDecoder(inputs, 2) if size == "small" else PublishedUNet(inputs)


def image_and_mask(
    network: nn.Module, x: Tensor, condition: Tensor, t: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What such a network says of the image, and mask logits, (N, 1, H, W) float32 each.

    Args:
        network: From `diffusion_network`.
        x: (N, 1, H, W) the noisy image in [-1, 1].
        condition: (N, 3 * context, H, W) in [0, 1].
        t: (N,) times.
        dtype: Number format of the convolutions.
    """
    with autocast(dtype, x.device):
        out = network(torch.cat([x, 2 * condition - 1], dim=1), t)
    image, logits = out.float().chunk(2, dim=1)
    return image, logits


class OneDecoder(CompactNetwork):
    """The compact network with one decoder from which both heads read."""

    def __init__(self, sizes: NetworkSizes, dropout: float = 0.0) -> None:
        super().__init__(sizes, dropout)
        del self.mask_decoder

    def outputs(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As the compact network's."""
        time = self.time(t)
        seen = torch.cat([x_t, m_t, condition], dim=1).contiguous(memory_format=torch.channels_last)
        both = self.image_decoder(self.encoder(seen, time), time)
        return self.heads(both, both)


class PublishedOneDecoder(PublishedNetwork):
    """The published network with one decoder that has two outputs."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__(sizes)
        del self.mask_decoder
        self.image_decoder.final = nn.Conv2d(sizes.widths[0], 2, 1)

    def forward(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Velocities of image and mask, (N, 1, H, W) float32."""
        h, skips, stem, time = self.encode(x_t, m_t, condition, t)
        image, mask = self.image_decoder(h, skips, stem, time).float().chunk(2, dim=1)
        return image, mask


class Undeformed(nn.Module):
    """A D3M network without its deformation module: nothing is moved. Satisfies `D3MNetwork`.

    Args:
        network: Its deformation module is taken away.
    """

    def __init__(self, network: CompactNetwork | PublishedNetwork) -> None:
        super().__init__()
        del network.deformation
        self.inner = network
        self.stride = network.stride

    def forward(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """As the network's."""
        image, mask = self.inner(x_t, m_t, condition, t)
        return image, mask

    def outputs(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As the compact network's."""
        return cast(CompactNetwork, self.inner).outputs(x_t, m_t, condition, t)

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:  # noqa: ARG002 - the interface's
        """No displacement, (N, 2, H, W)."""
        return mask.new_zeros(len(mask), 2, *mask.shape[2:])
