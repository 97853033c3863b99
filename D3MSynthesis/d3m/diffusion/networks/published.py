"""The published D3M network: the widely used DDPM U-Net with two decoders, for recipes "paper" and "step-warp".

Sources: Ho et al. 2020, arXiv:2006.11239; Nichol and Dhariwal 2021, arXiv:2102.09672 (scale-shift time embedding);
Shen et al. 2021, arXiv:1812.01243 (linear attention); sizes from github.com/PangHaowen-hub/D3M.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.networks.blocks import SpaceToDepth, TimeMLP, upsample
from d3m.diffusion.networks.deformation import PublishedDeformation
from d3m.diffusion.recipe import NetworkSizes

HEADS, HEAD_WIDTH = 4, 32


class RMSNorm(nn.Module):
    """x / |x| over the channels, times sqrt(channels) and a learnt gain (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=1) * self.gain * x.shape[1] ** 0.5


class PublishedBlock(nn.Module):
    """Two 3 x 3 convolutions, each with RMS norm and SiLU; the time scales and shifts the first; plus the input."""

    def __init__(self, inputs: int, outputs: int, time_features: int) -> None:
        super().__init__()
        self.time = nn.Linear(time_features, 2 * outputs)
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, padding=1), RMSNorm(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, padding=1), RMSNorm(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(functional.silu(time))[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(self.norm1(self.conv1(x)) * (scale + 1) + shift)
        h = functional.silu(self.norm2(self.conv2(h)))
        out: Tensor = h + self.shortcut(x)
        return out


class LinearAttention(nn.Module):
    """Attention whose cost grows with the number of pixels: softmax over keys' positions and queries' channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1), RMSNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = (part.reshape(n, HEADS, HEAD_WIDTH, h * w) for part in self.to_qkv(self.norm(x)).chunk(3, dim=1))
        q = q.softmax(dim=2) * HEAD_WIDTH**-0.5
        context = torch.einsum("nhdp,nhep->nhde", k.softmax(dim=3), v)
        mixed = torch.einsum("nhde,nhdp->nhep", context, q).reshape(n, -1, h, w)
        out: Tensor = x + self.to_out(mixed)
        return out


class FullAttention(nn.Module):
    """Multi-head self-attention over all pixels (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        parts = self.to_qkv(self.norm(x)).chunk(3, dim=1)
        q, k, v = (part.reshape(n, HEADS, HEAD_WIDTH, h * w).transpose(2, 3) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, -1, h, w)
        out: Tensor = x + self.to_out(mixed)
        return out


class _Level(nn.Module):
    """Two residual blocks and an attention."""

    def __init__(self, inputs: int, width: int, time: int, full: bool) -> None:
        super().__init__()
        self.block1 = PublishedBlock(inputs, width, time)
        self.block2 = PublishedBlock(inputs, width, time)
        self.attention: nn.Module = FullAttention(width) if full else LinearAttention(width)


class PublishedDecoder(nn.Module):
    """One complete decoder with its own final block and one output channel."""

    def __init__(self, widths: tuple[int, ...], time: int) -> None:
        super().__init__()
        pairs = list(pairwise(widths))[::-1]
        self.levels = nn.ModuleList(_Level(high + low, low, time, full=k == 0) for k, (high, low) in enumerate(pairs))
        self.up = nn.ModuleList(nn.Conv2d(low, high, 3, padding=1) for high, low in pairs)
        self.final_block = PublishedBlock(2 * widths[0], widths[0], time)
        self.final = nn.Conv2d(widths[0], 1, 1)

    def forward(self, h: Tensor, skips: list[Tensor], stem: Tensor, time: Tensor) -> Tensor:
        skips = list(skips)
        for number, (level, up) in enumerate(zip(self.levels, self.up, strict=True)):
            level = cast(_Level, level)
            h = level.block1(torch.cat([h, skips.pop()], dim=1), time)
            h = level.block2(torch.cat([h, skips.pop()], dim=1), time)
            h = level.attention(h)
            h = up(upsample(h) if number < len(self.levels) - 1 else h)
        out: Tensor = self.final(self.final_block(torch.cat([h, stem], dim=1), time))
        return out


class PublishedNetwork(nn.Module):
    """The published size: 256 x 256 slices, width 64, multipliers 1-2-4-8. Satisfies `D3MNetwork`.

    Args:
        sizes: `widths` are the stem's and the four levels' outputs.
    """

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        widths = sizes.widths
        time = 4 * widths[0]
        # the deformation module halves the slices more often than the network does
        self.stride = sizes.stride
        self.deformation_inputs = sizes.deformation_inputs
        self.stem = nn.Conv2d(2 + sizes.condition_channels, widths[0], 7, padding=3)
        self.time = TimeMLP(widths[0], time)
        pairs = list(pairwise(widths))
        self.levels = nn.ModuleList(_Level(a, a, time, full=k == len(pairs) - 1) for k, (a, _) in enumerate(pairs))
        self.down = nn.ModuleList(
            SpaceToDepth(a, b) if k < len(pairs) - 1 else nn.Conv2d(a, b, 3, padding=1)
            for k, (a, b) in enumerate(pairs)
        )
        self.middle = _Level(widths[-1], widths[-1], time, full=True)
        self.image_decoder = PublishedDecoder(widths, time)
        self.mask_decoder = PublishedDecoder(widths, time)
        self.deformation = PublishedDeformation(len(sizes.deformation_inputs), sizes.deformation_widths)

    def forward(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Velocities of image and mask, (N, 1, H, W) float32."""
        h, skips, stem, time = self.encode(x_t, m_t, condition, t)
        image = self.image_decoder(h, skips, stem, time)
        mask = self.mask_decoder(h, skips, stem, time)
        return image.float(), mask.float()

    def encode(
        self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """What the decoders read: innermost features, skips, the first convolution's output and the time."""
        time = self.time(t)
        stem = h = self.stem(torch.cat([x_t, m_t, condition], dim=1))
        skips = []
        for level, down in zip(self.levels, self.down, strict=True):
            level = cast(_Level, level)
            h = level.block1(h, time)
            skips.append(h)
            h = level.attention(level.block2(h, time))
            skips.append(h)
            h = down(h)
        return self.middle.block2(self.middle.attention(self.middle.block1(h, time)), time), skips, stem, time

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:
        """Displacement (N, 2, H, W) in pixels."""
        seen = {"mask": mask, "image": image, "t1": t1}
        displacement: Tensor = self.deformation(torch.cat([seen[name] for name in self.deformation_inputs], dim=1))
        return displacement
