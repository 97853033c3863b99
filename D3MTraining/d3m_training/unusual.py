"""Unusual cases made from ordinary patients: what the input check must notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from d3m.volumes.types import CONTRASTS, Floats, Mask, Volume

Scans = dict[str, Volume]
THICK = 8
"""Millimetres of the slices of the thick ones."""
BIAS = 3.0
"""Sensitivity at one side of the brain over that at the other in a strong bias field."""
NOISE = 0.1
"""Standard deviation of strong noise, over the brightest values of the brain."""


@dataclass(frozen=True)
class Unusual:
    """One way in which a case can be unlike the training patients."""

    name: str
    change: Callable[[Scans, np.random.Generator], Scans]
    """t1, t2, flair and t1c of a stripped patient on one 1 mm grid, and a random generator, to what is given as
    t1, t2 and flair."""


def write_scans(folder: Path, scans: Mapping[str, Volume]) -> dict[str, Path]:
    """Write t1, t2 and flair as NIfTI files into an existing folder, so that they are read as any user's."""
    paths = {name: folder / f"{name}.nii" for name in CONTRASTS}
    for name, path in paths.items():
        nibabel.save(nibabel.Nifti1Image(scans[name].data, scans[name].affine), path)
    return paths


def _each(scans: Scans, change: Callable[[Floats, Mask], Floats]) -> Scans:
    """The scans after `change` of each one's values, which gets the brain too."""
    return {
        name: replace(scans[name], data=change(scans[name].data, scans["t1"].data != 0).astype(np.float32))
        for name in CONTRASTS
    }


def _give(t1: str, t2: str, flair: str) -> Callable[[Scans, np.random.Generator], Scans]:
    def change(scans: Scans, _: np.random.Generator) -> Scans:
        return {"t1": scans[t1], "t2": scans[t2], "flair": scans[flair]}

    return change


def _half_missing(scans: Scans, random: np.random.Generator) -> Scans:
    """One hemisphere is background in all three."""
    side = int(random.integers(2))

    def change(data: Floats, brain: Mask) -> Floats:
        cut = int(np.median(np.nonzero(brain)[0]))
        result = data.copy()
        result[slice(cut, None) if side else slice(0, cut)] = 0
        return result

    return _each(scans, change)


def _cut(scans: Scans, random: np.random.Generator) -> Scans:
    """The field of view of all three ends within the brain: its upper or lower third is not there."""
    occupied = np.flatnonzero((scans["t1"].data != 0).any(axis=(0, 1)))
    low, high = int(occupied[0]), int(occupied[-1]) + 1
    third = (high - low) // 3
    keep = slice(0, high - third) if random.integers(2) else slice(low + third, scans["t1"].data.shape[2])

    def cropped(volume: Volume) -> Volume:
        affine = volume.affine.copy()
        affine[:3, 3] += keep.start * affine[:3, 2]
        return replace(volume, data=volume.data[:, :, keep], affine=affine)

    return {name: cropped(scans[name]) for name in CONTRASTS}


def _scaled(scans: Scans, _: np.random.Generator, factor: float) -> Scans:
    """The brain is larger or smaller by `factor` along each axis, as with a wrong voxel size."""
    scaling = np.diag([factor, factor, factor, 1.0])
    return {name: replace(scans[name], affine=scaling @ scans[name].affine) for name in CONTRASTS}


def _thick(scans: Scans, _: np.random.Generator, back: bool) -> Scans:
    """Slices of `THICK` mm; `back`: interpolated to 1 mm again, so that the header does not tell."""

    def thicker(volume: Volume) -> Volume:
        blurred = ndimage.uniform_filter1d(volume.data, THICK, axis=2)[:, :, THICK // 2 :: THICK]
        affine = volume.affine @ np.diag([1.0, 1.0, THICK, 1.0])
        affine[:3, 3] += (THICK // 2 - 0.5) * volume.affine[:3, 2]  # an even filter reaches half a voxel more downwards
        if not back:
            return replace(volume, data=np.ascontiguousarray(blurred), affine=affine)
        index = (np.arange(volume.data.shape[2]) - (THICK // 2 - 0.5)) / THICK
        low = np.clip(np.floor(index).astype(int), 0, blurred.shape[2] - 2)
        weight = np.clip(index - low, 0, 1).astype(np.float32)
        data = (1 - weight) * blurred[:, :, low] + weight * blurred[:, :, low + 1]
        return replace(volume, data=np.where(volume.data != 0, data, 0).astype(np.float32))

    return {name: thicker(scans[name]) for name in CONTRASTS}


def _inverted(scans: Scans, random: np.random.Generator) -> Scans:
    """One contrast has dark for bright."""
    name = CONTRASTS[int(random.integers(3))]
    data = scans[name].data
    brain = data != 0
    return scans | {name: replace(scans[name], data=np.where(brain, data[brain].max() + 1 - data, 0))}


def _biased(scans: Scans, random: np.random.Generator) -> Scans:
    """The coil's sensitivity falls from one side of the head to the other, in all three alike."""
    axis = int(random.integers(3))

    def change(data: Floats, brain: Mask) -> Floats:
        occupied = np.flatnonzero(brain.any(axis=tuple(k for k in range(3) if k != axis)))
        place = (np.arange(data.shape[axis]) - occupied[0]) / (occupied[-1] - occupied[0])
        shape = [1, 1, 1]
        shape[axis] = -1
        return data * np.exp(np.log(BIAS) * (place.clip(0, 1) - 0.5)).reshape(shape)

    return _each(scans, change)


def _noisy(scans: Scans, random: np.random.Generator) -> Scans:
    """Rician noise in all three."""

    def change(data: Floats, brain: Mask) -> Floats:
        sigma = NOISE * np.percentile(data[brain], 99.5)
        real, imaginary = random.normal(0, sigma, (2, *data.shape))
        return np.where(brain, np.hypot(data + real, imaginary), 0)

    return _each(scans, change)


def _two_t2(scans: Scans, random: np.random.Generator) -> Scans:
    """FLAIR is another T2, such as the second echo: not the same values, the same contrast."""
    data = scans["t2"].data
    brain = data != 0
    top = float(data[brain].max())
    values = top * (data / top).clip(0) ** 0.6 + random.normal(0, 0.03 * top, data.shape)
    other = replace(scans["flair"], data=np.where(brain, np.maximum(values, 1), 0).astype(np.float32))
    return scans | {"flair": other}


KINDS = (
    Unusual("T1 that already shows contrast", _give("t1c", "t2", "flair")),
    Unusual("T2 and FLAIR exchanged", _give("t1", "flair", "t2")),
    Unusual("T1 and T2 exchanged", _give("t2", "t1", "flair")),
    Unusual("two T2, no FLAIR", _two_t2),
    Unusual("half of the brain missing", _half_missing),
    Unusual("a third of the brain cut off", _cut),
    Unusual("brain 0.7 times as large", partial(_scaled, factor=0.7)),
    Unusual("brain 1.35 times as large", partial(_scaled, factor=1.35)),
    Unusual(f"slices of {THICK} mm", partial(_thick, back=False)),
    Unusual(f"slices of {THICK} mm, interpolated to 1 mm", partial(_thick, back=True)),
    Unusual("one contrast inverted", _inverted),
    Unusual("strong bias field", _biased),
    Unusual("strong noise", _noisy),
)
