"""Tumours transplanted between patients: a donor's tumour slice in a host's slice, with its labels and its enhancement.

After TumorCP (Yang et al. 2021), for synthesis: each contrast is matched to the host's normal brain by median and
quartile range, T1c goes along as T1 plus enhancement, and the edge is soft. [ours]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from d3m_training.data.cache import Entry

TRIES = 6
"""Hosts that are tried before the slice stays where it is."""
SHIFT_SLICES, SHIFT_PIXELS = 5.0, 5.0
"""Standard deviations of the tumour's place in the host against the donor's."""
LEAST_TUMOUR, LEAST_INSIDE = 30, 0.93
"""Pixels of the tumour, and share of them that must lie in the host's brain."""
LEAST_BRAIN = 2000
SAMPLED_SLICES = 24
TARGET = 3
"""Channel of the target in an entry of the cache."""
EDGE_PIXELS, EDGE_SIGMA = 2, 1.2


@dataclass(frozen=True)
class SliceStack:
    """A slice of a patient with the neighbours that the network sees."""

    planes: np.ndarray
    """(C, 4 + further + maps, H, W) float32: t1, t2, flair, the target t1c, further contrasts and the maps of each
    slice of the context."""
    regions: np.ndarray
    """(C, 2, H, W) uint8: brain and label."""


def contrasts_in(further: int) -> list[int]:
    """Where the contrasts stand among an entry's channels: those before the target, and so many after it."""
    return [*range(TARGET), *range(TARGET + 1, TARGET + 1 + further)]


def gather(entry: Entry, z: int, context: Sequence[int]) -> SliceStack:
    """The slices of an entry around `z`; the outermost repeat beyond the ends."""
    index = np.clip([z + offset for offset in context], 0, len(entry.scans) - 1)
    return SliceStack(
        np.stack([np.asarray(entry.scans[k], np.float32) for k in index]),
        np.stack([np.asarray(entry.regions[k]) for k in index]),
    )


@dataclass(frozen=True)
class NormalBrain:
    """What the normal brain of a patient looks like in each contrast."""

    median: np.ndarray
    """(3 + further,) of t1, t2, flair and further contrasts."""
    quartile_range: np.ndarray
    """(3 + further,), at least 0.001."""
    present: np.ndarray
    """(3 + further,) bool: whether the contrast is there; a missing one is 0 everywhere."""

    @staticmethod
    def of(entry: Entry) -> NormalBrain:
        """Measured on some slices, away from the tumour."""
        index = np.unique(np.linspace(0, len(entry.scans) - 1, SAMPLED_SLICES).astype(int))
        regions = np.asarray(entry.regions[index])
        normal = (regions[:, 0] > 0) & ~ndimage.binary_dilation(regions[:, 1] > 0, np.ones((1, 5, 5)))
        scans = np.asarray(entry.scans[index], np.float32)[:, contrasts_in(entry.further)]
        quartiles = np.stack([np.percentile(scan[normal], (25, 50, 75)) for scan in scans.swapaxes(0, 1)])
        spread = np.maximum(quartiles[:, 2] - quartiles[:, 0], 1e-3)
        return NormalBrain(quartiles[:, 1], spread, np.asarray(scans.any(axis=(0, 2, 3))))


class Transplanter:
    """Finds hosts and puts tumours into them.

    Args:
        entries: Patients; only labelled ones are hosts, since what the others have is not known.
        context: Slices of the condition, relative to the one synthesised.
        target_upper: Upper clip of the target.
    """

    def __init__(self, entries: Sequence[Entry], context: Sequence[int], target_upper: float) -> None:
        self._context, self._target_upper = tuple(context), target_upper
        self._hosts = [entry for entry in entries if entry.labelled]
        self._normal = {entry.id: NormalBrain.of(entry) for entry in self._hosts}

    def __call__(self, donor: Entry, z: int, rng: np.random.Generator) -> SliceStack | None:
        """The donor's tumour of slice `z` in a host at about the same height, or None where no host fits.

        Args:
            donor: A labelled patient.
            z: A slice with tumour.
            rng: Decides host, place and mirroring.
        """
        if len(self._hosts) < 2:
            return None
        given = gather(donor, z, self._context)
        for _ in range(TRIES):
            host = self._hosts[int(rng.integers(len(self._hosts)))]
            height = round(z * len(host.scans) / len(donor.scans) + rng.normal(0, SHIFT_SLICES))
            at = int(np.clip(height, 0, len(host.scans) - 1))
            flip, shift = rng.random() < 0.5, rng.normal(0, SHIFT_PIXELS, 2).round().astype(int)
            if host.id == donor.id or host.brain_voxels[at] < LEAST_BRAIN or host.enhancing_voxels[at] > 0:
                continue
            into = gather(host, at, self._context)
            moved = _moved(given, into.planes.shape[2:], flip, shift)
            middle = self._context.index(0)
            tumour = int((given.regions[middle, 1] > 0).sum())
            inside = int(((moved.regions[middle, 1] > 0) & (into.regions[middle, 0] > 0)).sum())
            if tumour >= LEAST_TUMOUR and inside >= LEAST_INSIDE * tumour:
                return self._blended(moved, into, self._normal[donor.id], self._normal[host.id])
        return None

    def _blended(self, donor: SliceStack, host: SliceStack, theirs: NormalBrain, own: NormalBrain) -> SliceStack:
        gain = (own.quartile_range / theirs.quartile_range)[:, None, None]
        planes, regions = host.planes.copy(), host.regions.copy()
        contrasts = contrasts_in(len(own.median) - TARGET)
        maps = donor.planes.shape[1] - len(contrasts) - 1
        for c in range(len(planes)):
            brain = (donor.regions[c, 0] > 0) & (host.regions[c, 0] > 0)
            tumour = (donor.regions[c, 1] > 0) & brain
            if not tumour.any():
                continue
            wide = ndimage.binary_dilation(tumour, iterations=EDGE_PIXELS).astype(np.float32)
            share = np.where(brain, ndimage.gaussian_filter(wide, EDGE_SIGMA), 0)
            scans = (donor.planes[c, contrasts] - theirs.median[:, None, None]) * gain + own.median[:, None, None]
            enhancement = (donor.planes[c, TARGET] - donor.planes[c, 0]) * gain[0]
            seen = donor.planes[c, donor.planes.shape[1] - maps :]
            new = np.concatenate([np.insert(scans, TARGET, scans[0] + enhancement, axis=0), seen])
            planes[c] = (1 - share) * host.planes[c] + share * new
            kept = np.where(share > 0.5, 0, host.regions[c, 1])
            regions[c, 1] = np.where(tumour, donor.regions[c, 1], kept)
        planes[:, contrasts] = planes[:, contrasts].clip(0, 1) * (theirs.present & own.present)[:, None, None]
        planes[:, TARGET] = planes[:, TARGET].clip(0, self._target_upper)
        return SliceStack((planes * (regions[:, :1] > 0)).astype(np.float32), regions)


def _moved(stack: SliceStack, size: tuple[int, ...], flip: bool, shift: np.ndarray) -> SliceStack:
    """The slices in the middle of others' size, perhaps mirrored, moved by some pixels; 0 around them."""
    planes, regions = stack.planes, stack.regions
    if flip:
        planes, regions = planes[..., ::-1], regions[..., ::-1]
    source: list[slice] = []
    target: list[slice] = []
    for own, room, by in zip(planes.shape[2:], size, shift, strict=True):
        start = (room - own) // 2 + int(by)
        first, last = max(0, start), max(0, min(room, start + own))
        target.append(slice(first, last))
        source.append(slice(first - start, last - start))
    made = []
    for values in (planes, regions):
        out = np.zeros((*values.shape[:2], *size), values.dtype)
        out[:, :, target[0], target[1]] = values[:, :, source[0], source[1]]
        made.append(out)
    return SliceStack(made[0], made[1])
