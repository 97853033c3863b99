"""The deformation module (MSSDM): from the mask's estimate to a displacement field."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.networks.blocks import SpaceToDepth, upsample


class CompactDeformation(nn.Module):
    """A small U-Net on half-resolution slices; its field is smooth by construction and bounded.

    The last layer starts at zero, so that training starts from the identity.

    Args:
        inputs: Channels that it sees.
        widths: Channels from high to low resolution, at least two.
        max_displacement: Bound of the displacement in pixels, reached smoothly (tanh); None for no bound.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], max_displacement: float | None) -> None:
        super().__init__()
        self.max_displacement = max_displacement
        self.stem = SpaceToDepth(inputs, widths[0], 2, kernel=3)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.inner = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.up = nn.ModuleList(
            nn.Conv2d(a + b, a, 3, padding=1) for a, b in zip(widths[:-1][::-1], widths[1:][::-1], strict=True)
        )
        self.flow = nn.Conv2d(widths[0], 2, 3, padding=1)
        nn.init.zeros_(self.flow.weight)
        nn.init.zeros_(self.flow.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to a displacement (N, 2, H, W) in pixels, float32."""
        h = functional.leaky_relu(self.stem(x), 0.2)
        skips = []
        for down in self.down:
            skips.append(h)
            h = functional.leaky_relu(down(h), 0.2)
        h = functional.leaky_relu(self.inner(h), 0.2)
        for up in self.up:
            h = functional.leaky_relu(up(torch.cat([upsample(h), skips.pop()], dim=1)), 0.2)
        half = self.flow(h).float()
        flow = functional.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
        if self.max_displacement is None:
            return flow
        return self.max_displacement * torch.tanh(flow / self.max_displacement)


class PublishedDeformation(nn.Module):
    """The published deformation module: a registration U-Net in the plane that sees the mask's estimate alone.

    Encoder 16-32-32-32 with 4 x 4 convolutions of stride 2, decoder 32-32-32-32 with skips, then 32-16-16 at full
    resolution; leaky ReLU 0.2; the flow starts at N(0, 1e-5); unbounded.
    Sources: Balakrishnan et al. 2019, arXiv:1809.05231; github.com/PangHaowen-hub/D3M.

    Args:
        inputs: Channels that it sees.
        widths: Channels of the four encoder levels.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        channels = (inputs, *widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(channels))
        inner = widths[-1]
        skip_widths = channels[-2::-1]
        self.up = nn.ModuleList(
            nn.Conv2d(inner + (0 if level == 0 else skip_widths[level - 1]), inner, 3, padding=1)
            for level in range(len(widths))
        )
        last = inner + skip_widths[len(widths) - 1]
        self.full = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((last, inner), (inner, widths[0]), (widths[0], widths[0]))
        )
        self.flow = nn.Conv2d(widths[0], 2, 3, padding=1)
        nn.init.normal_(self.flow.weight, std=1e-5)
        nn.init.zeros_(self.flow.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to a displacement (N, 2, H, W) in pixels, float32."""
        skips = [x]
        for down in self.down:
            skips.append(functional.leaky_relu(down(skips[-1]), 0.2))
        h = skips.pop()
        for up in self.up:
            h = functional.leaky_relu(up(h), 0.2)
            h = torch.cat([upsample(h), skips.pop()], dim=1)
        for conv in self.full:
            h = functional.leaky_relu(conv(h), 0.2)
        flow: Tensor = self.flow(h)
        return flow.float()
