"""Training volumes of the whole-brain stage: drawn, transplanted, augmented; each a function of seed and number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from d3m.diffusion.networks.whole_brain import middle_of, network_input
from d3m_training.data.drawing import Source, Tensors
from d3m_training.data.whole_brain import CoarsePatient

COARSE_SPACING = (2.0, 2.0, 2.0)
MULTIPLE = 16
"""Voxels that each axis of a training volume is a multiple of."""


@dataclass(frozen=True)
class WholeBrainBatchSettings:
    """How training volumes are drawn."""

    labelled_share: float = 0.6
    """Share of draws from patients whose labels say what enhances."""
    little_weight: float = 2.0
    """A labelled patient with little enhancement is drawn this often against one with more."""
    little_ml: float = 5.0
    slab_weight: float = 0.4
    """The same for a slab of a few slices."""
    transplant_share: float = 0.45
    """Share of draws in which the tumour is put into another patient's brain."""
    shift_voxels: float = 3.0
    """Standard deviation of the transplanted tumour's place against the donor's."""
    crop: tuple[int, int, int] = (48, 64, 48)
    """Slices, rows and columns that are cut out, most often at the tumour; the last iterations see whole brains."""
    rotation_degrees: float = 8.0
    scaling: float = 0.08
    elastic: float = 0.03
    """Standard deviation of the smooth random displacement, in half sizes of the volume."""
    gamma: float = 0.15
    bias_field: float = 0.07
    gain: float = 0.08
    noise: float = 0.02
    thick_share: float = 0.35
    """Share of draws blurred along one axis, as thick slices are."""
    no_t2_share: float = 0.4
    no_flair_share: float = 0.05
    """Shares of draws in which a contrast that is there is left out; never both. Patients without enhancement who have
    no T2 teach that no T2 means no enhancement, unless the others often lack it too: with 0.15 a member found nothing
    in any of 23 held-out patients once T2 was taken away."""


@dataclass(frozen=True)
class CoarseBatch(Tensors):
    """One augmented volume."""

    seen: Tensor
    """(1, C, s, h, w) from `network_input`."""
    regions: Tensor
    """(3, s, h, w)."""
    known: Tensor
    """(3, s, h, w) 0 or 1."""
    enhancement: Tensor
    """(1, s, h, w)."""
    brain: Tensor
    """(1, s, h, w)."""


class WholeBrainBatches(Source[CoarseBatch]):
    """Draws training volumes; each is a function of the settings, the seed and its number alone.

    Args:
        patients: From `read_coarse`.
        settings: How.
        seed: Decides every draw.
        cropped: Numbers below this are crops, those from it on whole brains.

    Raises:
        ValueError: no patient is labelled.
    """

    def __init__(
        self, patients: Sequence[CoarsePatient], settings: WholeBrainBatchSettings, seed: int, cropped: int
    ) -> None:
        self.settings, self.seed, self.cropped = settings, seed, cropped
        self._labelled = [p for p in patients if p.labelled]
        self._others = [p for p in patients if not p.labelled]
        if not self._labelled:
            raise ValueError("no patient's labels say what enhances")
        weights = np.array([self._weight(p) for p in self._labelled])
        self._weights = weights / weights.sum()

    def _weight(self, patient: CoarsePatient) -> float:
        if patient.partial:
            return self.settings.slab_weight
        return self.settings.little_weight if patient.enhancing_ml < self.settings.little_ml else 1.0

    def draw(self, number: int) -> CoarseBatch:
        """The volume of this number, always the same."""
        rng = np.random.default_rng((self.seed, number))
        patient = self._pick(rng)
        if rng.random() < self.settings.transplant_share:
            host = self._pick(rng)
            if host is not patient and not host.partial:
                patient = transplant(host, patient, self.settings.shift_voxels, rng) or patient
        return augment(patient, self.settings, rng, self.settings.crop if number < self.cropped else None)

    def _pick(self, rng: np.random.Generator) -> CoarsePatient:
        if not self._others or rng.random() < self.settings.labelled_share:
            return self._labelled[int(rng.choice(len(self._labelled), p=self._weights))]
        return self._others[int(rng.integers(len(self._others)))]


def transplant(
    host: CoarsePatient, donor: CoarsePatient, shift_voxels: float, rng: np.random.Generator
) -> CoarsePatient | None:
    """The donor's tumour in the host's brain, or None where it would not lie inside.

    Each contrast is matched by median and quartile range of normal brain; the enhancement goes along on T1's scale, and
    the edge is soft. A contrast is there if both have it. The idea is TumorCP's (Yang et al. 2021), for T1c. [ours]
    """
    shape = tuple(host.brain.shape[1:])
    gain = (host.quartile_range / donor.quartile_range).clamp(0.4, 2.5)
    flip = rng.random() < 0.5
    shift = rng.normal(0, shift_voxels, 3).round().astype(int)

    def moved(values: Tensor) -> Tensor:
        return _fitted(values.flip(-1) if flip else values, shape, shift)

    scans = moved((donor.scans - donor.median) * gain + host.median)
    enhancement, regions, known, brain = (
        moved(v) for v in (donor.enhancement * gain[:1], donor.regions, donor.known, donor.brain)
    )
    tumour = (regions[0] > 0.3) & (brain[0] > 0) & (host.brain[0] > 0)
    if int(tumour.sum()) < max(20, 0.9 * int((donor.regions[0] > 0.3).sum())):
        return None
    soft = ndimage.gaussian_filter(ndimage.binary_dilation(tumour.numpy()).astype(np.float32), 0.8)
    share = torch.from_numpy(soft) * host.brain[0] * brain[0]
    both = [a and b for a, b in zip(host.present, donor.present, strict=True)]
    there = torch.tensor(both, dtype=torch.float32).view(3, 1, 1, 1)
    return replace(
        host,
        scans=((1 - share) * host.scans + share * scans).clamp(0, 1) * host.brain * there,
        enhancement=(1 - share) * host.enhancement + share * enhancement,
        regions=torch.where(tumour, regions, host.regions * (1 - share)),
        known=torch.where(tumour, known, host.known),
        present=(both[0], both[1], both[2]),
    )


def _fitted(values: Tensor, shape: tuple[int, ...], shift: np.ndarray) -> Tensor:
    """`values` in the middle of a volume of another shape, moved by some voxels; 0 around it."""
    out = torch.zeros(values.shape[0], *shape)
    source, target = [], []
    for own, size, by in zip(values.shape[1:], shape, shift, strict=True):
        start = (size - own) // 2 + int(by)
        first, last = max(0, start), min(size, start + own)
        if last <= first:
            return out
        target.append(slice(first, last))
        source.append(slice(first - start, last - start))
    out[(slice(None), *target)] = values[(slice(None), *source)]
    return out


def augment(
    patient: CoarsePatient,
    settings: WholeBrainBatchSettings,
    rng: np.random.Generator,
    crop: tuple[int, int, int] | None,
) -> CoarseBatch:
    """Turned, scaled, bent, mirrored, cut out, recoloured; perhaps with thick slices or without a contrast."""
    shape = tuple(patient.brain.shape[1:])
    grid = _grid(shape, settings, rng)
    start, size = [0, 0, 0], list(shape)
    if crop is not None:
        start, size = _crop(patient, grid, crop, rng)
        grid = grid[:, start[0] : start[0] + size[0], start[1] : start[1] + size[1], start[2] : start[2] + size[2]]
    stacked = torch.cat([patient.scans, patient.brain, patient.regions, patient.enhancement, patient.known])
    moved = functional.grid_sample(stacked[None], grid, align_corners=False)[0]
    scans, regions, enhancement = moved[:3], moved[4:7], moved[7:8]
    brain, known = (moved[3:4] > 0.5).float(), (moved[8:] > 0.99).float()
    # outside of what is known nothing is known; outside of the volume there is no brain
    scans = _thick(_recoloured(scans, size, settings, rng), settings, rng).clamp(0, 1) * brain
    present = _left_out(patient.present, settings, rng)
    middle = middle_of(patient.brain) - torch.tensor(start).float()
    seen = network_input(scans, brain, present, COARSE_SPACING, middle)
    parts = (seen, regions * brain, known * brain, enhancement * brain, brain)
    seen, regions, known, enhancement, brain = (_filled_up(part) for part in parts)
    return CoarseBatch(seen[None], regions, known, enhancement, brain)


def _filled_up(values: Tensor) -> Tensor:
    """With zeros behind, so that every level of the network halves evenly.

    On other sizes the gradient in bfloat16 of torch 2.13 (oneDNN, AMX) now and then reads beyond its memory.
    """
    short = [-n % MULTIPLE for n in values.shape[1:]]
    return functional.pad(values, (0, short[2], 0, short[1], 0, short[0]))


def _grid(shape: tuple[int, ...], settings: WholeBrainBatchSettings, rng: np.random.Generator) -> Tensor:
    """(1, s, h, w, 3) sampling positions in [-1, 1]: columns, rows, slices."""
    a, b, c = np.deg2rad(rng.normal(0, settings.rotation_degrees, 3))
    rotation = (
        np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        @ np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        @ np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    )
    matrix = rotation @ np.diag(np.exp(rng.normal(0, settings.scaling, 3)))
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    extent = np.array(shape[::-1], float)
    matrix = np.diag(1 / extent) @ matrix @ np.diag(extent)  # a turn in millimetres, not in shares of the volume
    theta = torch.from_numpy(np.c_[matrix, rng.normal(0, 0.03, 3)]).float()[None]
    straight = functional.affine_grid(theta, [1, 1, *shape], align_corners=False)
    coarse = torch.from_numpy(rng.normal(0, settings.elastic, (1, 3, 6, 7, 6))).float()
    bent = functional.interpolate(coarse, shape, mode="trilinear", align_corners=True)
    return straight + bent.permute(0, 2, 3, 4, 1)


def _crop(
    patient: CoarsePatient, grid: Tensor, crop: tuple[int, int, int], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """First voxel and size of a crop at the tumour (seven of ten) or anywhere in the brain, in the moved volume."""
    shape = patient.brain.shape[1:]
    tumour = patient.regions[0] > 0.5
    inside = tumour if rng.random() < 0.7 and bool(tumour.any()) else patient.brain[0] > 0.5
    places = torch.nonzero(inside)
    place = places[int(rng.integers(len(places)))]
    wanted = (2 * place.flip(0) + 1) / torch.tensor(shape[::-1]) - 1
    nearest = int((grid[0] - wanted).square().sum(-1).argmin())
    size = [min(own, most) for own, most in zip(shape, crop, strict=True)]
    start = [
        int(np.clip(at - n // 2 + rng.integers(-n // 5, n // 5 + 1), 0, own - n))
        for at, n, own in zip(np.unravel_index(nearest, tuple(shape)), size, shape, strict=True)
    ]
    return start, size


def _recoloured(scans: Tensor, size: list[int], settings: WholeBrainBatchSettings, rng: np.random.Generator) -> Tensor:
    gamma = torch.from_numpy(np.exp(rng.normal(0, settings.gamma, (3, 1, 1, 1)))).float()
    coarse = torch.from_numpy(rng.normal(0, settings.bias_field, (1, 3, 4, 4, 4))).float()
    bias = functional.interpolate(coarse, size, mode="trilinear", align_corners=True)[0].exp()
    gain = float(np.exp(rng.normal(0, settings.gain)))
    noise = torch.from_numpy(rng.standard_normal((3, *size), np.float32))
    return scans.clamp(0, 1) ** gamma * bias * gain + rng.uniform(0, settings.noise) * noise


def _thick(scans: Tensor, settings: WholeBrainBatchSettings, rng: np.random.Generator) -> Tensor:
    """All scans, or one, as if their slices were thick; mostly axial ones."""
    if rng.random() >= settings.thick_share:
        return scans
    chosen = range(3) if rng.random() < 0.6 else [int(rng.integers(3))]
    blurred = scans.numpy().copy()
    for channel in chosen:
        sigma = [0.0, 0.0, 0.0]
        sigma[0 if rng.random() < 0.8 else int(rng.integers(3))] = rng.uniform(0.4, 1.5)
        blurred[channel] = ndimage.gaussian_filter(blurred[channel], sigma)
    return torch.from_numpy(blurred)


def _left_out(
    present: tuple[bool, bool, bool], settings: WholeBrainBatchSettings, rng: np.random.Generator
) -> tuple[bool, bool, bool]:
    """What the network is given of the scans that are there."""
    drawn = rng.random()
    t1, t2, flair = present
    if not t2:
        return present
    if drawn < settings.no_t2_share:
        return t1, False, flair
    return t1, t2, flair and drawn >= settings.no_t2_share + settings.no_flair_share
