"""What a model was trained as: sizes of its network and the equations it follows. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["sigmoid", "cosine", "linear"]
Velocity = Literal["v", "v_step"]
WarpPlacement = Literal["step", "velocity", "x0", "enhancement"]
Solver = Literal["ddim", "dpmpp_2m"]
DeformationInput = Literal["mask", "image", "t1"]

CONDITION_CHANNELS = 3
"""Channels of one slice of the condition in every model: t1, t2, flair."""
REGIONS = ("whole_tumour", "core", "enhancing")
"""Maps of the whole-brain stage, each region within the one before it."""


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of the encoder, the dual-stream decoder (DSIMD) and the deformation module (MSSDM)."""

    architecture: Literal["compact", "published"] = "compact"
    """"compact" works on space-to-depth slices and suits two CPU cores; "published" is the paper's U-Net."""
    widths: tuple[int, ...] = (32, 64, 128, 192, 256)
    """Channels from the highest resolution to the innermost."""
    blocks_per_level: int = 1
    """Residual blocks on each level of encoder and decoders."""
    context: tuple[int, ...] = (0,)
    """Slices of the condition, relative to the one synthesised; must contain 0."""
    further: int = 0
    """Contrasts in the condition of each slice after t1, t2 and flair; the card names them."""
    maps: int = 0
    """Probability maps of the whole-brain stage in the condition of each slice, beside the contrasts: none or all."""
    auxiliary_regions: int = 0
    """Tumour regions predicted beside the mask in training; not used, and not shipped, for synthesis."""
    deformation_widths: tuple[int, ...] = (16, 32, 32)
    """Channels of the compact deformation module, from high to low resolution."""
    deformation_inputs: tuple[DeformationInput, ...] = ("mask", "image", "t1")
    """What the deformation module sees besides nothing else; the paper's sees the mask alone."""
    max_displacement: float | None = 4.0
    """Displacement is bounded by this many pixels (tanh), or unbounded."""

    @property
    def condition_channels(self) -> int:
        """Channels of the condition, those of all slices of the context."""
        return (CONDITION_CHANNELS + self.further + self.maps) * len(self.context)

    @property
    def stride(self) -> int:
        """Multiple that rows and columns of a slice must have."""
        if self.architecture == "compact":
            return int(2 ** len(self.widths))  # the first level works on space-to-depth slices
        return int(2 ** max(len(self.widths) - 2, len(self.deformation_widths)))


@dataclass(frozen=True)
class WholeBrainSizes:
    """Sizes of one member of the whole-brain stage."""

    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Channels from 2 mm voxels to the innermost, each level half as fine as the one before."""

    @property
    def least_size(self) -> int:
        """Least voxels along an axis: of fewer nothing is left at the innermost level."""
        return int(2 ** (len(self.widths) - 1))


@dataclass(frozen=True)
class DiffusionRecipe:
    """The equations a model was trained with; they cannot be chosen at synthesis."""

    timesteps: int = 1000
    """T."""
    schedule: ScheduleName = "sigmoid"
    image_velocity: Velocity = "v"
    """Of the image; the mask's is always "v"."""
    warp: WarpPlacement = "x0"
    """Where the warp acts in a reverse step of synthesis."""
    training_warp: WarpPlacement = "x0"
    """Where it acted in training; differs from `warp` in recipe "paper" alone."""
    warp_mask: bool = False
    """Whether the mask is warped with the image."""
    image_upper: float = 2.0
    """Scaled intensity that becomes +1 in the model's range; 0 becomes -1."""
    mask_amplitude: float = 0.3
    """Enhancing tumour is drawn as +amplitude, everything else as -amplitude."""
    image_skip: bool = True
    """The network predicts the difference to T1 instead of the whole image."""
    blank_outside: bool = True
    """Outside the brain the data prediction is background before it is warped: nothing is moved in from there."""
    time_spacing: float = 2.0
    """Reverse times are T (1 - (k/K)^spacing): 1 is even, larger keeps more steps near pure noise."""


@dataclass(frozen=True)
class Sampling:
    """How much sampling one quality pays for."""

    steps: int
    """Reverse steps for each sample."""
    samples: int = 1
    """Samples that are averaged."""
    solver: Solver = "ddim"
    slice_interval: int = 1
    """Every how many slices are computed; between them the difference from T1 is interpolated."""
    mirrored: bool = False
    """Whether every other sample is one of the mirror image, turned back: left and right know nothing of each other's
    errors, and the mean costs no more."""

    @property
    def work(self) -> float:
        """What the network has to do, in passes over a whole volume."""
        return self.steps * self.samples / self.slice_interval
