"""The compact D3M network: a shared encoder and two decoders (DSIMD) with a deformation module (MSSDM)."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.networks.blocks import ResidualBlock, SpaceToDepth, TimeMLP, upsample
from d3m.diffusion.networks.deformation import CompactDeformation
from d3m.diffusion.networks.published import PublishedNetwork
from d3m.diffusion.recipe import NetworkSizes


class D3MNetwork(Protocol):
    """What the sampler and the training need of a network; scaling and equations live outside."""

    stride: int
    """H and W must be multiples of it."""

    def __call__(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs for image and mask, each (N, 1, H, W), from both at time t (N,) and the condition."""

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:
        """Displacement (N, 2, H, W) in pixels from the estimates (mask in [-1, 1]) and T1, each (N, 1, H, W)."""


class Encoder(nn.Module):
    """Space-to-depth stem, then residual levels; yields the skips from high to low resolution and the innermost."""

    def __init__(self, inputs: int, widths: tuple[int, ...], blocks: int, time: int, dropout: float) -> None:
        super().__init__()
        self.stem = SpaceToDepth(inputs, widths[0], 2, kernel=3)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResidualBlock(width, width, time, dropout=dropout) for _ in range(blocks))
            for width in widths[:-1]
        )
        self.down = nn.ModuleList(SpaceToDepth(a, b) for a, b in pairwise(widths))
        self.inner = nn.ModuleList(ResidualBlock(widths[-1], widths[-1], time, dropout=dropout) for _ in range(2))

    def forward(self, x: Tensor, time: Tensor) -> list[Tensor]:
        h = self.stem(x)
        features = []
        for level, down in zip(self.levels, self.down, strict=True):
            for block in cast(nn.ModuleList, level):
                h = block(h, time)
            features.append(h)
            h = down(h)
        for block in self.inner:
            h = block(h, time)
        return [*features, h]


class Decoder(nn.Module):
    """From the encoder's features back to the stem's resolution; `head` maps them to pixels."""

    def __init__(self, widths: tuple[int, ...], blocks: int, time: int, dropout: float) -> None:
        super().__init__()
        pairs = list(pairwise(widths))[::-1]
        self.up = nn.ModuleList(nn.Conv2d(low, high, 1) for high, low in pairs)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ResidualBlock(2 * high if k == 0 else high, high, time, dropout=dropout) for k in range(blocks)
            )
            for high, _ in pairs
        )
        self.norm = nn.GroupNorm(8, widths[0], eps=1e-6)

    def forward(self, features: list[Tensor], time: Tensor) -> Tensor:
        h = features[-1]
        for up, level, skip in zip(self.up, self.levels, features[-2::-1], strict=True):
            h = torch.cat([upsample(up(h)), skip], dim=1)
            for block in cast(nn.ModuleList, level):
                h = block(h, time)
        return functional.silu(self.norm(h))


class CompactNetwork(nn.Module):
    """Space-to-depth U-Net with two decoders, a few million parameters, for two CPU cores.

    Args:
        sizes: Widths, blocks, context; `architecture` is "compact".
        dropout: Share of inner features that training drops.
    """

    def __init__(self, sizes: NetworkSizes, dropout: float = 0.0) -> None:
        super().__init__()
        widths, blocks = sizes.widths, sizes.blocks_per_level
        self.stride = sizes.stride
        self.deformation_inputs = sizes.deformation_inputs
        time = 4 * widths[0]
        self.time = TimeMLP(widths[0], time)
        self.encoder = Encoder(2 + sizes.condition_channels, widths, blocks, time, dropout)
        self.image_decoder = Decoder(widths, blocks, time, dropout)
        self.mask_decoder = Decoder(widths, blocks, time, dropout)
        self.image_head = _zero(nn.Conv2d(widths[0], 4, 3, padding=1))
        self.mask_head = _zero(nn.Conv2d(widths[0], 4, 3, padding=1))
        self.auxiliary = (
            _zero(nn.Conv2d(widths[0], 4 * sizes.auxiliary_regions, 1)) if sizes.auxiliary_regions else None
        )
        self.deformation = CompactDeformation(
            len(sizes.deformation_inputs), sizes.deformation_widths, sizes.max_displacement
        )

    def forward(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs for image and mask, (N, 1, H, W) float32."""
        image, mask, _ = self.outputs(x_t, m_t, condition, t)
        return image, mask

    def outputs(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `forward`, and logits (N, regions, H, W) of the auxiliary tumour regions where the network has them."""
        time = self.time(t)
        features = self.encoder(
            torch.cat([x_t, m_t, condition], dim=1).contiguous(memory_format=torch.channels_last), time
        )
        return self.heads(self.image_decoder(features, time), self.mask_decoder(features, time))

    def heads(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """From what the two decoders made, at half resolution, to pixels."""
        regions = None if self.auxiliary is None else functional.pixel_shuffle(self.auxiliary(mask), 2).float()
        return (
            functional.pixel_shuffle(self.image_head(image), 2).float(),
            functional.pixel_shuffle(self.mask_head(mask), 2).float(),
            regions,
        )

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:
        """Displacement (N, 2, H, W) in pixels."""
        seen = {"mask": mask, "image": image, "t1": t1}
        displacement: Tensor = self.deformation(torch.cat([seen[name] for name in self.deformation_inputs], dim=1))
        return displacement


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    """A head that starts at zero: the first estimate is the skip alone."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def build_network(sizes: NetworkSizes, dropout: float = 0.0) -> nn.Module:
    """The network of these sizes, with fresh weights; it satisfies `D3MNetwork`.

    Args:
        sizes: From a recipe or a card.
        dropout: For training; the compact network alone has it.
    """
    if sizes.architecture == "published":
        return PublishedNetwork(sizes)
    return CompactNetwork(sizes, dropout)


def together_on_cpu(sizes: NetworkSizes) -> int:
    """Slices that a CPU computes in one call of the network.

    Two take a sixth less time than one by one in the compact network, whose inner maps are small against its weights,
    and more gain little; the published one has the work of many in one slice, and its memory.
    """
    return 2 if sizes.architecture == "compact" else 1


def slice_memory_mb(sizes: NetworkSizes, pixels: int) -> float:
    """Memory of one slice in the network: what its feature maps take at their peak.

    32 maps as wide as the first level in float32, a quarter of it for the compact network, which halves its maps at
    once. Measured on a CPU: 10 to 25 MB against 30 MB here for the compact network at 192 x 160, 350 to 540 MB against
    512 MB for the published one at 256 x 256.

    Args:
        sizes: The network's.
        pixels: Of a slice.
    """
    return 32 * sizes.widths[0] * pixels * 4 / 2**20 / (4 if sizes.architecture == "compact" else 1)
