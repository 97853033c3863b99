"""ResViT: a convolutional encoder and decoder around aggregated residual transformer (ART) blocks.

Source: Dalmaz et al. 2022, arXiv:2106.16031; sizes of the public code (icon-lab/ResViT). Two of nine blocks hold a
transformer, and both share its layers. The original first trains without transformers and then starts them from
ImageNet weights; here everything is trained from scratch in one stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.recipe import CONDITION_CHANNELS
from d3m_benchmark.methods.adversarial import SHARED_OUTPUTS, Adversarial
from d3m_training.train.method import Size

POSITIONS = 16
"""Side of the grid of tokens that positions are learnt for; other sizes interpolate them."""
WITH_TRANSFORMER = (0, 5)
BLOCKS = 9


@dataclass(frozen=True)
class ResViTSizes:
    """Widths of the convolutions and of the transformer."""

    width: int
    """Of the first convolution; twice and four times that after each halving."""
    hidden: int
    feed_forward: int
    heads: int
    layers: int


SIZES: dict[Size, ResViTSizes] = {
    "published": ResViTSizes(64, 768, 3072, 12, 12),
    "small": ResViTSizes(24, 192, 384, 6, 4),
}


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    reflect = stride == 1 and kernel > 1
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect" if reflect else "zeros"),
        nn.BatchNorm2d(outputs),
        nn.ReLU() if relu else nn.Identity(),
    )


class ResidualConvolutions(nn.Module):
    """Two 3 x 3 convolutions and the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(width, width, 3), _convolution(width, width, 3, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class Compression(nn.Module):
    """Residual block that halves the channels; its shortcut is a 1 x 1 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(2 * width, width, 3), _convolution(width, width, 3, relu=False))
        self.shortcut = _convolution(2 * width, width, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class TransformerPath(nn.Module):
    """A block's way through the shared transformer: halve twice, tokens, positions, layers, and back.

    Args:
        width: Channels of the block.
        sizes: Of the transformer.
    """

    def __init__(self, width: int, sizes: ResViTSizes) -> None:
        super().__init__()
        self.halve = nn.Sequential(_convolution(width, 2 * width, 3, 2), _convolution(2 * width, 4 * width, 3, 2))
        self.embed = nn.Conv2d(4 * width, sizes.hidden, 1)
        self.positions = nn.Parameter(torch.zeros(1, sizes.hidden, POSITIONS, POSITIONS))
        self.widen = nn.Sequential(_doubled(sizes.hidden, 2 * width), _doubled(2 * width, width))
        self.compress = Compression(width)

    def forward(self, x: Tensor, transformer: nn.Module) -> Tensor:
        tokens = self.embed(self.halve(x))
        positions = functional.interpolate(self.positions, tokens.shape[2:], mode="bicubic", align_corners=False)
        seen = (tokens + positions).flatten(2).transpose(1, 2)
        out = transformer(seen).transpose(1, 2).reshape(tokens.shape)
        joined: Tensor = self.compress(torch.cat([x, self.widen(out)], dim=1))
        return joined


def _doubled(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class ResViTGenerator(nn.Module):
    """Encoder, nine ART blocks, decoder; the last convolution has no activation.

    Args:
        inputs: Channels.
        outputs: Channels.
        sizes: Widths.
    """

    stride = 16

    def __init__(self, inputs: int, outputs: int, sizes: ResViTSizes) -> None:
        super().__init__()
        w = sizes.width
        self.encoder = nn.Sequential(
            _convolution(inputs, w, 7), _convolution(w, 2 * w, 3, 2), _convolution(2 * w, 4 * w, 3, 2)
        )
        layer = nn.TransformerEncoderLayer(
            sizes.hidden, sizes.heads, sizes.feed_forward, dropout=0.1, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.transformer = nn.TransformerEncoder(
            layer, sizes.layers, nn.LayerNorm(sizes.hidden), enable_nested_tensor=False
        )
        self.paths = nn.ModuleDict({str(k): TransformerPath(4 * w, sizes) for k in WITH_TRANSFORMER})
        self.blocks = nn.ModuleList(ResidualConvolutions(4 * w) for _ in range(BLOCKS))
        self.decoder = nn.Sequential(
            _doubled(4 * w, 2 * w), _doubled(2 * w, w), nn.Conv2d(w, outputs, 7, padding=3, padding_mode="reflect")
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        h = self.encoder(x)
        for k, block in enumerate(self.blocks):
            if str(k) in self.paths:
                h = self.paths[str(k)](h, self.transformer)
            h = block(h)
        out: Tensor = self.decoder(h)
        return out


def build_resvit(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> Adversarial:
    """ResViT, see `d3m_training.train.method.Method`."""
    generator = ResViTGenerator(CONDITION_CHANNELS * len(context), SHARED_OUTPUTS, SIZES[size])
    width = 64 if size == "published" else 32
    return Adversarial(generator, generator.stride, context, "least_squares", dtype, width)
