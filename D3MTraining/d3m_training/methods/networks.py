"""Networks that several methods of the comparison share, made of the engine's own blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.blocks import TimeMLP
from d3m.diffusion.network import CompactNetwork, Decoder, Encoder
from d3m.diffusion.recipe import CONTRASTS, NetworkSizes

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


class Undeformed(CompactNetwork):
    """D3M without its deformation module: nothing is moved."""

    def __init__(self, sizes: NetworkSizes, dropout: float = 0.0) -> None:
        super().__init__(sizes, dropout)
        del self.deformation

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:  # noqa: ARG002 - the interface's
        """No displacement, (N, 2, H, W)."""
        return mask.new_zeros(len(mask), 2, *mask.shape[2:])


class UndeformedSingle(nn.Module):
    """D3M without its deformation module and with one decoder instead of two; satisfies `D3MNetwork`.

    Args:
        sizes: Those of the compact network.
        dropout: As there.
    """

    def __init__(self, sizes: NetworkSizes, dropout: float = 0.0) -> None:
        super().__init__()
        inputs = 2 + CONTRASTS * len(sizes.context)
        self.both = SingleDecoder(
            inputs, 2 + sizes.auxiliary_regions, sizes.widths, sizes.blocks_per_level, dropout
        )
        self.stride = self.both.stride

    def forward(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs for image and mask, (N, 1, H, W) float32."""
        image, mask, _ = self.outputs(x_t, m_t, condition, t)
        return image, mask

    def outputs(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and logits (N, regions, H, W) of the auxiliary tumour regions."""
        out = self.both(torch.cat([x_t, m_t, condition], dim=1), t)
        return out[:, :1], out[:, 1:2], out[:, 2:]

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:  # noqa: ARG002 - the interface's
        """No displacement, (N, 2, H, W)."""
        return mask.new_zeros(len(mask), 2, *mask.shape[2:])
