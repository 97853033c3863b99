"""Which slices a batch is made of, and how they are augmented.

A batch is a function of the settings, the seed and its number alone: nothing has to be saved to resume exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from d3m_training.data.cache import ENHANCING, TARGET_UPPER, Entry
from d3m_training.data.drawing import Source, Tensors
from d3m_training.data.transplant import SliceStack, Transplanter, gather


@dataclass(frozen=True)
class BatchSettings:
    """How batches are drawn."""

    size: int = 16
    """Slices in a batch."""
    crop: int = 128
    """Side of the square that is cut out, in pixels."""
    context: tuple[int, ...] = (0,)
    """Slices of the condition, relative to the one synthesised."""
    shares: tuple[float, float, float] = (0.4, 0.28, 0.32)
    """Share of slices with enhancing tumour, with tumour alone, and of any other."""
    min_brain_voxels: int = 100
    """Slices with less brain are not drawn."""
    centred: bool = False
    """The crop lies on the slice's middle, as published, instead of at the tumour or anywhere in the brain."""
    flip: bool = True
    """Left and right are exchanged in half of the slices."""
    rotation_degrees: float = 20.0
    scaling: float = 0.16
    """Sizes vary by this share; so do width and height against each other, by half of it."""
    elastic_pixels: float = 3.0
    """Standard deviation of the smooth random displacement."""
    gamma: float = 0.3
    """Standard deviation of the logarithm of each contrast's exponent."""
    gain: float = 0.12
    """Standard deviation of the logarithm of each contrast's gain."""
    bias_field: float = 0.12
    """Standard deviation of the logarithm of a smooth gain."""
    noise: float = 0.02
    """Largest standard deviation of added noise."""
    blur_share: float = 0.15
    """Share of slices in which one contrast is blurred, as thick slices are."""
    transplant_share: float = 0.0
    """Share of labelled tumour slices whose tumour is put into another patient."""
    missing_shares: tuple[float, float] = (0.0, 0.0)
    """Shares of slices in which T2, and in which FLAIR, is left out: 0 everywhere, as synthesis gives a contrast that
    is missing. Never both."""
    further_missing_share: float = 0.3
    """Share of slices in which each further contrast (ADC, SWI) is left out."""


@dataclass(frozen=True)
class Batch(Tensors):
    """Augmented slices."""

    condition: Tensor
    """(N, channels, H, W) in [0, 1]."""
    t1: Tensor
    """(N, 1, H, W) in [0, 1]."""
    target: Tensor
    """(N, 1, H, W) scaled intensity of t1c."""
    brain: Tensor
    """(N, 1, H, W) 0 or 1."""
    label: Tensor
    """(N, 1, H, W) int64, see `d3m_training.data.cache`."""
    labelled: Tensor
    """(N,) 1 where the label is known, else 0."""


class Batches(Source[Batch]):
    """Draws batches from cached patients.

    Args:
        entries: Patients.
        settings: How.
        seed: Decides every batch.
        target_upper: Upper clip of the target.

    Raises:
        ValueError: no entry has a slice with enough brain.
    """

    def __init__(
        self, entries: Sequence[Entry], settings: BatchSettings, seed: int, target_upper: float = TARGET_UPPER
    ) -> None:
        self.entries = list(entries)
        self.settings = settings
        self.seed = seed
        self.target_upper = target_upper
        usable = [np.flatnonzero(e.brain_voxels >= settings.min_brain_voxels) for e in self.entries]
        enhancing = [s[e.enhancing_voxels[s] > 0] for e, s in zip(self.entries, usable, strict=True)]
        tumour = [
            s[(e.tumour_voxels[s] > 0) & (e.enhancing_voxels[s] == 0)]
            for e, s in zip(self.entries, usable, strict=True)
        ]
        other = [s[e.tumour_voxels[s] == 0] for e, s in zip(self.entries, usable, strict=True)]
        self._groups = [enhancing, tumour, other]
        if not any(len(slices) for slices in usable):
            raise ValueError("no patient has a slice with enough brain")
        self._transplanter = (
            Transplanter(self.entries, settings.context, target_upper) if settings.transplant_share > 0 else None
        )

    def draw(self, number: int) -> Batch:
        """The batch of this number, always the same."""
        rng = np.random.default_rng((self.seed, number))
        picks = [self._pick(rng) for _ in range(self.settings.size)]
        return self._augment(picks, rng)

    def _pick(self, rng: np.random.Generator) -> tuple[Entry, int]:
        """A patient with such slices, evenly, then one of them: a large tumour is not seen more often."""
        shares = [
            share if any(len(s) for s in group) else 0.0
            for share, group in zip(self.settings.shares, self._groups, strict=True)
        ]
        group = self._groups[rng.choice(3, p=np.array(shares) / sum(shares))]
        patient = rng.choice([k for k, slices in enumerate(group) if len(slices)])
        return self.entries[patient], int(rng.choice(group[patient]))

    def _augment(self, picks: list[tuple[Entry, int]], rng: np.random.Generator) -> Batch:
        context, crop, n = self.settings.context, self.settings.crop, len(picks)
        middle = context.index(0)
        stacks = [self._transplanted(entry, z, rng) or gather(entry, z, context) for entry, z in picks]
        height = max(stack.planes.shape[2] for stack in stacks)
        width = max(stack.planes.shape[3] for stack in stacks)
        contrasts = 3 + picks[0][0].further
        channels = stacks[0].planes.shape[1] - 1
        images = np.zeros((n, channels * len(context) + 1, height, width), np.float32)
        regions = np.zeros((n, 2, height, width), np.float32)
        centres = np.zeros((n, 2), np.float32)
        for k, stack in enumerate(stacks):
            h, w = stack.planes.shape[2:]
            images[k, :-1, :h, :w] = np.delete(stack.planes, 3, axis=1).reshape(-1, h, w)
            images[k, -1, :h, :w] = stack.planes[middle, 3]
            regions[k, :, :h, :w] = stack.regions[middle]
            centres[k] = self._centre(regions[k], rng)
        grid = self._grid(centres, (height, width), crop, rng)
        moved = functional.grid_sample(torch.from_numpy(images), grid, align_corners=False)
        region = functional.grid_sample(torch.from_numpy(regions), grid, mode="nearest", align_corners=False)
        brain = region[:, :1]
        stacked, seen = moved[:, :-1].unflatten(1, (-1, channels)).split((contrasts, channels - contrasts), dim=2)
        stacked, target = self._recolour(stacked, moved[:, -1:], brain, rng)
        if any(self.settings.missing_shares):
            stacked = self._with_missing(stacked, rng)
        stacked[:, :, 3:] *= self._further_there(n, contrasts - 3, rng)
        condition = (torch.cat([stacked, seen], dim=2) * brain[:, None]).flatten(1, 2)
        labelled = torch.tensor([float(entry.labelled) for entry, _ in picks])
        t1 = condition[:, channels * middle :][:, :1]
        return Batch(condition, t1, target, brain, region[:, 1:].long(), labelled)

    def _transplanted(self, entry: Entry, z: int, rng: np.random.Generator) -> SliceStack | None:
        """The slice's tumour in another patient, in the settings' share of labelled tumour slices."""
        if self._transplanter is None or not entry.labelled or entry.tumour_voxels[z] == 0:
            return None
        return self._transplanter(entry, z, rng) if rng.random() < self.settings.transplant_share else None

    def _with_missing(self, stacked: Tensor, rng: np.random.Generator) -> Tensor:
        """Leave T2 or FLAIR out of some slices, in all of their context."""
        without_t2, without_flair = self.settings.missing_shares
        for k, drawn in enumerate(rng.random(len(stacked))):
            if drawn < without_t2 + without_flair:
                left_out = 1 if drawn < without_t2 else 2
                if stacked[k, :, 3 - left_out].any():  # a patient may lack the other one anyway
                    stacked[k, :, left_out] = 0
        return stacked

    def _further_there(self, slices: int, further: int, rng: np.random.Generator) -> Tensor:
        """(N, 1, further, 1, 1): 0 where a further contrast is left out of a slice, else 1; draws nothing for none."""
        there = rng.random((slices, 1, further, 1, 1)) >= self.settings.further_missing_share
        return torch.from_numpy(there.astype(np.float32))

    def _centre(self, regions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(x, y) of a crop: often at the tumour, else anywhere in the brain."""
        if self.settings.centred:
            return (np.array(regions.shape[:0:-1]) - 1) / 2
        wanted = regions[1] == ENHANCING
        if not wanted.any() or rng.random() < 0.3:
            wanted = regions[0] > 0
        y, x = np.nonzero(wanted)
        k = rng.integers(len(x))
        spread = self.settings.crop / 6
        return np.array([x[k], y[k]]) + rng.normal(0, spread, 2)

    def _grid(self, centres: np.ndarray, size: tuple[int, int], crop: int, rng: np.random.Generator) -> Tensor:
        """(N, crop, crop, 2) sampling positions in [-1, 1]: crop, flip, rotation, scaling and elastic displacement."""
        s, n = self.settings, len(centres)
        angle = np.deg2rad(rng.uniform(-s.rotation_degrees, s.rotation_degrees, n))
        scale = np.exp(rng.normal(0, s.scaling / 2, (n, 1)) + rng.normal(0, s.scaling / 4, (n, 2)))
        flip = np.where(s.flip & (rng.random(n) < 0.5), -1.0, 1.0)
        matrix = np.empty((n, 2, 2))
        matrix[:, 0, 0], matrix[:, 0, 1] = np.cos(angle) * scale[:, 0] * flip, -np.sin(angle) * scale[:, 1]
        matrix[:, 1, 0], matrix[:, 1, 1] = np.sin(angle) * scale[:, 0] * flip, np.cos(angle) * scale[:, 1]
        span = torch.arange(crop, dtype=torch.float32) - (crop - 1) / 2
        pixels = torch.stack(torch.meshgrid(span, span, indexing="xy"), dim=-1)  # (crop, crop, 2): x, y
        position = torch.einsum("nij,hwj->nhwi", torch.from_numpy(matrix).float(), pixels)
        if s.elastic_pixels > 0:
            coarse = torch.from_numpy(rng.normal(0, s.elastic_pixels, (n, 2, crop // 32 + 3, crop // 32 + 3))).float()
            smooth = functional.interpolate(coarse, size=(crop, crop), mode="bicubic", align_corners=True)
            position = position + smooth.permute(0, 2, 3, 1)
        position = position + torch.from_numpy(centres)[:, None, None, :]
        extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
        return (2 * position + 1) / extent - 1

    def _recolour(
        self, stacked: Tensor, target: Tensor, brain: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Gamma, gain, bias field, noise and blur; T1 and T1c change together, since one is the other's scale.

        What a patient lacks stays 0 everywhere.
        """
        s, (n, _, contrasts) = self.settings, stacked.shape[:3]
        there = stacked.ne(0).any(-1, keepdim=True).any(-2, keepdim=True).any(1, keepdim=True)
        gamma = torch.from_numpy(np.exp(rng.normal(0, s.gamma, (n, 1, contrasts, 1, 1)))).float()
        gain = torch.from_numpy(np.exp(rng.normal(0, s.gain, (n, 1, contrasts, 1, 1)))).float()
        if s.bias_field > 0:
            coarse = torch.from_numpy(rng.normal(0, s.bias_field, (n, contrasts, 4, 4))).float()
            field = functional.interpolate(coarse, size=stacked.shape[3:], mode="bicubic", align_corners=True).exp()
            gain = gain * field[:, None]
        stacked = stacked.clamp(0, 1).pow(gamma) * gain
        upper = self.target_upper
        # T1c follows T1's curve up to 1; beyond it the curve goes on with gamma's slope there, so that rims stay rims
        bright = target.clamp(min=0)
        curve = torch.where(bright <= 1, bright.clamp(max=1).pow(gamma[:, 0, :1]), 1 + (bright - 1))
        target = curve * gain[:, 0, :1]
        if s.noise > 0:
            sigma = torch.from_numpy(rng.uniform(0, s.noise, (n, 1, contrasts, 1, 1))).float()
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            stacked = stacked + sigma * torch.randn(stacked.shape, generator=generator)
        for k, contrast in zip(*np.nonzero(rng.random((n, contrasts)) < s.blur_share / 3), strict=True):
            stacked[k, :, contrast] = functional.avg_pool2d(stacked[k, :, contrast], 3, 1, 1)
        return stacked.clamp(0, 1) * there, target.clamp(0, upper) * brain
