"""The whole-brain stage: 3-D networks at 2 mm say where tumour, core and enhancement are. Tensors only.

Slices do not show what a volume shows. Each member is a small 3-D U-Net over the whole brain, trained on other patients
than its fellows; each sees the brain and its mirror image. [ours]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.alone import each_alone
from d3m.diffusion.recipe import CONDITION_CHANNELS, REGIONS, WholeBrainSizes

POOLING = 2
"""Voxels of the model's grid along each axis that become one."""
OUTPUTS = len(REGIONS) + 1
"""Logits of the regions, and the enhancement on T1's scale."""
RARE_LOGITS = (-3.0, -4.2, -5.0)
"""What training starts from: the regions take some 5, 1.5 and 0.7 per cent of a brain."""
POSITIONS = 3
INPUTS = CONDITION_CHANNELS + 1 + POSITIONS + (CONDITION_CHANNELS - 1)
"""Channels: the contrasts, the brain, the position, and for each contrast but T1 whether it is there."""
POSITION_UNIT_MM = 80.0
"""The position is 1 so far from the middle of the brain's box."""
INSIDE_SHARE = 0.3
"""A coarse voxel is brain if more of it than this is."""
_LEAST_SHARE = 0.2


class InstanceNorm(nn.Module):
    """Each channel of each volume to mean 0 and deviation 1, then scaled and shifted.

    torch's own instance norm leaves the layout `channels_last_3d`, which makes a step of training half as long again;
    its batch norm of a single volume is the same and does not.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, S, H, W) to the same."""
        normed = [functional.batch_norm(one, None, None, self.weight, self.bias, training=True) for one in x.split(1)]
        return normed[0] if len(normed) == 1 else torch.cat(normed)


class Block(nn.Module):
    """Two convolutions beside a skip.

    Args:
        inputs: Channels.
        width: Channels that it makes.
        dropout: Share of channels that training drops.
    """

    def __init__(self, inputs: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, width, 3, padding=1, bias=False)
        self.norm1 = InstanceNorm(width)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.norm2 = InstanceNorm(width)
        self.skip = nn.Conv3d(inputs, width, 1) if inputs != width else nn.Identity()
        self.drop = nn.Dropout3d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, H, W) to (N, width, S, H, W)."""
        h = functional.silu(self.norm1(self.conv1(x)))
        return functional.silu(self.norm2(self.conv2(self.drop(h))) + self.skip(x))


class WholeBrainNetwork(nn.Module):
    """One member: a 3-D U-Net on voxels of 2 mm.

    Args:
        sizes: Widths.
        dropout: For training.
    """

    def __init__(self, sizes: WholeBrainSizes, dropout: float = 0.0) -> None:
        super().__init__()
        pairs = list(pairwise(sizes.widths))
        self.encoder = nn.ModuleList(
            [Block(INPUTS, sizes.widths[0])] + [Block(a, b, dropout) for a, b in pairs],
        )
        self.reduce = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in reversed(pairs))
        self.decoder = nn.ModuleList(Block(2 * a, a, dropout) for a, _ in reversed(pairs))
        self.out = nn.Conv3d(sizes.widths[0], OUTPUTS, 1)
        nn.init.normal_(self.out.weight, std=0.05)
        self.out.bias = nn.Parameter(torch.tensor([*RARE_LOGITS, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `REGIONS` and the enhancement.

        Args:
            x: (N, `INPUTS`, S, H, W) from `network_input`.

        Returns:
            (N, `OUTPUTS`, S, H, W).
        """
        x = x.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else functional.max_pool3d(x, 2))
            skips.append(x)
        x = skips.pop()
        for reduce, block in zip(self.reduce, self.decoder, strict=True):
            skip = skips.pop()
            raised = functional.interpolate(reduce(x), size=skip.shape[2:])
            x = block(torch.cat([raised, skip], dim=1))
        out: Tensor = self.out(x)
        return out


def pool(values: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Volumes on the model's grid at half its resolution; what is not brain does not count.

    Args:
        values: (C, S, H, W).
        brain: (S, H, W), 0 or 1.

    Returns:
        (C, s, h, w), 0 outside the coarse brain, and the coarse brain (1, s, h, w), 0 or 1.
    """
    inside = brain.float()[None]
    share = _mean_of_cells(inside)
    coarse = (share > INSIDE_SHARE).float()
    means = _mean_of_cells(values.float() * inside) / share.clamp(min=_LEAST_SHARE) * coarse
    return means, coarse


def _mean_of_cells(values: Tensor) -> Tensor:
    return functional.avg_pool3d(values[None], POOLING, POOLING, ceil_mode=True, count_include_pad=False)[0]


def contrasts_of(slices: Tensor) -> tuple[bool, bool, bool]:
    """Which of t1, t2 and flair are there, in slices (S, 3, H, W): a missing one is 0 everywhere."""
    t1, t2, flair = (bool(there) for there in slices.flatten(2).any(2).any(0))
    return t1, t2, flair


def middle_of(brain: Tensor) -> Tensor:
    """(3,) voxel in the middle of the box of a brain (1, s, h, w)."""
    inside = torch.nonzero(brain[0])
    return (inside.amin(0) + inside.amax(0)).float() / 2


def network_input(
    values: Tensor,
    brain: Tensor,
    present: tuple[bool, bool, bool],
    spacing: tuple[float, float, float],
    middle: Tensor | None = None,
) -> Tensor:
    """What a member sees.

    Args:
        values: (3, s, h, w) from `pool`: t1, t2, flair.
        brain: (1, s, h, w).
        present: Which of the contrasts are there; the others are blank, and the network is told.
        spacing: Millimetres along s, h and w.
        middle: (3,) voxel that the position is told from; None: the middle of the brain's box.

    Returns:
        (`INPUTS`, s, h, w).
    """
    there = torch.tensor(present, dtype=values.dtype, device=values.device).view(CONDITION_CHANNELS, 1, 1, 1)
    middle = middle_of(brain) if middle is None else middle
    shape = brain.shape[1:]
    axes = []
    for axis, count in enumerate(shape):
        place = torch.arange(count, device=values.device) - middle[axis]
        view = [-1 if k == axis else 1 for k in range(3)]
        axes.append((place * (spacing[axis] / POSITION_UNIT_MM)).view(view).expand(shape))
    position = torch.stack([axes[0], axes[1], axes[2].abs()])  # left and right are alike
    flags = [brain * there[channel] for channel in range(1, CONDITION_CHANNELS)]
    return torch.cat([values * there, brain, position * brain, *flags])


@dataclass(frozen=True)
class WholeBrainMaps:
    """What the members say together, on the CPU."""

    probability: Tensor
    """(3, S, H, W) of `REGIONS` on the model's grid, 0 to 1; 0 outside the brain."""
    enhancing_members: Tensor
    """(members, s, h, w) probability of enhancing tumour of each member on the coarse grid."""
    enhancement: Tensor
    """(S, H, W) expected T1c minus T1 on T1's scale; 0 outside the brain."""


class WholeBrainEnsemble(nn.Module):
    """Members that were trained apart.

    Args:
        sizes: Of each of them.
        members: How many.
    """

    def __init__(self, sizes: WholeBrainSizes, members: int) -> None:
        super().__init__()
        self.least_size = sizes.least_size
        self.members = nn.ModuleList(WholeBrainNetwork(sizes) for _ in range(members))

    def passes(self, members: int | None = None) -> int:
        """Runs of a network for one patient, with all members or the first few."""
        return 2 * (members or len(self.members))

    def predict(
        self,
        slices: Tensor,
        brain: Tensor,
        present: tuple[bool, bool, bool] = (True, True, True),
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        members: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        on_pass: Callable[[int], None] | None = None,
    ) -> WholeBrainMaps:
        """The mean over members and mirror images.

        On a CPU each run of a network is done by one thread, several at a time: the bits do not depend on the threads.

        Args:
            slices: (S, 3, H, W) in [0, 1] on the CPU; t1, t2, flair.
            brain: (S, H, W) bool, not empty.
            present: Which of the contrasts are there.
            spacing: Millimetres of the model's grid along S, H and W.
            members: Ask the first so many members alone, which is quicker; None: all.
            device: Where the members are; None: the CPU.
            dtype: Number format of the convolutions.
            on_pass: Called after each run with the number of runs done, out of `passes`; may raise to end everything.

        Raises:
            torch.OutOfMemoryError, RuntimeError: one run does not fit into memory.
        """
        device = device or torch.device("cpu")
        values, inside = pool(slices.transpose(0, 1), brain)
        coarse_spacing = cast(tuple[float, float, float], tuple(POOLING * one for one in spacing))
        seen = network_input(values, inside, present, coarse_spacing)[None].to(device)
        short = [max(0, self.least_size - n) for n in seen.shape[2:]]
        seen = functional.pad(seen, (0, short[2], 0, short[1], 0, short[0]))
        passes = self.passes(members)
        made: list[Tensor | None] = [None] * passes
        done = 0

        def one(item: int) -> Iterator[int]:
            mirrored = item % 2 == 1
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                out = self.members[item // 2](seen.flip(-1) if mirrored else seen)[0].float()
            out = out.flip(-1) if mirrored else out
            made[item] = torch.cat([out[:-1].sigmoid(), out[-1:]]).cpu()
            yield 1

        def tell(steps: int) -> None:
            nonlocal done
            done += steps
            if on_pass is not None:
                on_pass(done)

        if device.type == "cpu":
            each_alone(one, range(passes), torch.get_num_threads(), tell)
        else:
            for item in range(passes):
                for _ in one(item):
                    tell(1)
        s, h, w = inside.shape[1:]
        every = torch.stack([part for part in made if part is not None])[:, :, :s, :h, :w] * inside
        fine = functional.interpolate(every.mean(0)[None], scale_factor=POOLING, mode="trilinear", align_corners=False)
        size = brain.shape
        fine = fine[0, :, : size[0], : size[1], : size[2]] * brain
        return WholeBrainMaps(
            fine[: len(REGIONS)].contiguous(),
            every[:, REGIONS.index("enhancing")].unflatten(0, (-1, 2)).mean(1),
            fine[-1].contiguous(),
        )
