"""What each scan shows of the brain, and where it does not: there nothing may be synthesised, and it is said in mm.

A scan may end inside the brain, or be filled up with one value where it was not acquired. What a given mask leaves out
of the brain is found the same way.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from d3m.arrays import values_in
from d3m.errors import Notice
from d3m.volumes.geometry import box_of, spacing_mm, volume_ml, voxel_mm3
from d3m.volumes.grid import resample
from d3m.volumes.io.files import label
from d3m.volumes.types import Affine, Mask, Volume

BORDER_MM = 3.0
"""What a scan lacks up to this depth is an unequal border; deeper it is a gap."""
THICK_SHARE = 0.75
"""Of the thickest slice: a border is as unequal as slices are thick."""
THIN_MM = 2.0
"""Slices up to here show what lies on their middle plane."""
MIN_GAP_ML = 0.5
"""Smaller gaps are left out of the brain without a word."""
MIN_DEEP_ML = 0.4
"""What is deeper than a border is a gap if it hangs together to so much: a scan that was stripped by itself has a
ragged edge with pieces of up to 0.2 ml; one that ends 5 mm below the vertex lacks 0.9 ml there."""
WHOLE_SIDE = 0.7
"""Share of the brain beyond a plane that a gap takes up if the scan ends there."""
MIN_LEFT_OUT_ML = 2.0
"""Of brain that a mask leaves out, in one piece: less is a tight border or a vessel."""
MIN_FILLED_ML = 1.0
"""Of one dark value in one piece at the brain's surface, deeper than a border: a filling, since tissue has noise."""
DARK = 5
"""Percentile of a scan's values up to which one may be a filling: programs take zero or the lowest value."""
SAMPLES = 200_000
SIDES = (("left", "right"), ("back", "front"), ("bottom", "top"))
"""Names of the low and high end of the RAS axes."""


def gap_of(brain: Mask, shown: Mask, volume: Volume, t1: Volume) -> Mask:
    """The parts of the brain that a scan has no data of.

    Args:
        brain: (X, Y, Z) on T1's grid.
        shown: (X, Y, Z) on T1's grid: what the scan shows.
        volume: The scan.
        t1: T1.

    Returns:
        (X, Y, Z): what lies outside of the scan's box, and what lies deeper beyond anything that it shows than borders
        are unequal, with what lies between.
    """
    gap = np.zeros_like(brain)
    missing = brain & ~shown
    found = [np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not missing.any():
        return gap
    box = tuple(slice(int(f[0]), int(f[-1]) + 1) for f in found)
    if not shown[box].any():
        return missing
    sizes = spacing_mm(t1.affine)
    thickest = max(float(sizes.max()), float(spacing_mm(volume.affine).max()))
    border = max(BORDER_MM, THICK_SHARE * thickest)
    deep = missing[box] & (ndimage.distance_transform_edt(~shown[box], sampling=sizes) > border)
    pieces, count = ndimage.label(deep)
    sizes_ml = np.bincount(pieces.ravel(), minlength=count + 1) * voxel_mm3(t1.affine) / 1000
    deep &= (sizes_ml >= MIN_DEEP_ML)[pieces]
    if deep.any():
        reach = border + BORDER_MM + float(sizes.max())
        gap[box] = missing[box] & (ndimage.distance_transform_edt(~deep, sampling=sizes) <= reach)
    if thickest <= BORDER_MM:
        for axis in range(3):  # whole planes of nothing
            empty = ~shown.any(axis=tuple(a for a in range(3) if a != axis))
            np.moveaxis(gap, axis, 0)[empty] |= np.moveaxis(missing, axis, 0)[empty]
    inside = reaching(np.ones(volume.data.shape, bool), volume, t1)
    return np.asarray(gap | (missing & ~inside))


def reaching(mask: Mask, volume: Volume, t1: Volume) -> Mask:
    """What a scan shows on T1's grid: voxels of T1 that hold any of it, since a thick slice shows what lies between its
    faces, not what lies on its middle plane.

    Args:
        mask: (X, Y, Z) on the scan's grid.
        volume: The scan.
        t1: For its grid.
    """
    shape = t1.data.shape
    if volume.data.shape == shape and np.array_equal(volume.affine, t1.affine):
        return mask
    sizes = spacing_mm(t1.affine)
    finest = float(spacing_mm(volume.affine).min())
    result: Mask = resample(mask, volume.affine, t1.affine, shape, order=0)
    for axis in np.flatnonzero(sizes > max(THIN_MM, 1.5 * finest)):
        count = int(np.ceil(sizes[axis] / max(finest, 1.0) - 1e-3))  # every slice of the scan within one of T1
        for part in (np.arange(count) + 0.5) / count - 0.5:
            moved = t1.affine.copy()
            moved[:3, 3] += part * t1.affine[:3, axis]
            result = result | resample(mask, volume.affine, moved, shape, order=0)
    return result


def without_filling(inside: Mask, volume: Volume) -> Mask:
    """What a stripped scan shows, without what a program filled with one value other than the background's.

    A slab that was resampled and then multiplied by the brain of another scan looks so: 0 around the brain, and a
    constant in it where nothing was acquired.

    Args:
        inside: (X, Y, Z), what is not background.
        volume: The scan.
    """
    box = box_of(inside)
    if box is None:
        return inside
    data, within, sizes = volume.data[box], inside[box], spacing_mm(volume.affine)
    values = values_in(data, within)[:: max(1, int(within.sum()) // SAMPLES)]
    if not np.isfinite(values).all():  # named by another check
        return inside
    dark, counts = np.unique(values[values <= np.percentile(values, DARK)], return_counts=True)
    filled = within & (data == dark[counts.argmax()])
    if volume_ml(filled, volume.affine) < MIN_FILLED_ML or (filled == within).all():
        return inside
    wide = 2 * np.ceil(BORDER_MM / sizes).astype(int) + 1  # cubes, which cost less than distances
    deep = filled & ndimage.minimum_filter(filled | ~within, wide, mode="constant", cval=1)
    if volume_ml(deep, volume.affine) < MIN_FILLED_ML:
        return inside
    pieces, count = ndimage.label(deep)
    sizes_ml = np.bincount(pieces.ravel(), minlength=count + 1) * voxel_mm3(volume.affine) / 1000
    at_surface = np.unique(pieces[ndimage.binary_dilation(~within, border_value=1)])
    large = [number for number in at_surface if number and sizes_ml[number] >= MIN_FILLED_ML]
    if not large:
        return inside
    away = ndimage.distance_transform_edt(~np.isin(pieces, large), sampling=sizes)
    shown = inside.copy()
    shown[box] &= ~(filled & (away <= np.linalg.norm(wide // 2 * sizes) + float(sizes.max())))
    return shown


def acquired(volume: Volume) -> Mask:
    """(X, Y, Z) of a whole head: all but the planes that hold a single value, where nothing was acquired."""
    data = volume.data
    result = np.isfinite(data)
    for axis in range(3):
        planes, shown = np.moveaxis(data, axis, 0), np.moveaxis(result, axis, 0)
        for number, plane in enumerate(planes):
            values = plane[shown[number]]
            if values.size and values.min() == values.max():
                shown[number] = False
    return result


def gap_notice(name: str, gap: Mask, brain: Mask, t1: Volume) -> Notice | None:
    """What is said of a gap; None if it is too small.

    Args:
        name: Contrast.
        gap: (X, Y, Z), part of `brain`.
        brain: (X, Y, Z), whole.
        t1: For where they lie.
    """
    millilitres = volume_ml(gap, t1.affine)
    if millilitres < MIN_GAP_ML:
        return None
    share = 100 * gap.sum() / brain.sum()
    percent = f"{share:.0f} %" if share >= 1 else f"{share:.1f} %" if share >= 0.1 else "less than 0.1 %"
    text = f"{label(name)} does not cover {place_of(gap, brain, t1.affine)} ({percent} of it, {millilitres:.1f} ml); "
    return Notice("gap", text + "nothing is synthesised there.", name)


def place_of(part: Mask, brain: Mask, affine: Affine) -> str:
    """Where a part of the brain lies, in millimetres: an end of it, a band across it, or a piece of it.

    Args:
        part: (X, Y, Z), part of `brain`.
        brain: (X, Y, Z).
        affine: (4, 4), index to RAS millimetres.
    """
    here = affine[:3, :3] @ np.array(np.nonzero(part)) + affine[:3, 3:]
    whole = affine[:3, :3] @ np.array(np.nonzero(brain)) + affine[:3, 3:]
    best, text = WHOLE_SIDE, ""
    for axis in (2, 1, 0):
        voxel = float(np.abs(affine[axis, :3]).sum())
        start, end = np.percentile(here[axis], (2, 98))
        low, high = whole[axis].min(), whole[axis].max()
        ends = ((SIDES[axis][1], whole[axis] >= start, high - start), (SIDES[axis][0], whole[axis] <= end, end - low))
        for side, beyond, size in ends:
            share = here.shape[1] / max(int(beyond.sum()), 1)
            if share > best:
                best, text = share, f"the {side} {size + voxel:.0f} mm of the brain"
        inside = (whole[axis] >= start) & (whole[axis] <= end)
        share = 0.9 * here.shape[1] / max(int(inside.sum()), 1)  # an end is said rather than a band
        if share > best:
            best, above = share, SIDES[axis][1]
            text = f"a band of {end - start + voxel:.0f} mm, {high - end:.0f} to {high - start:.0f} mm from the {above}"
            text += " of the brain"
    if text:
        return text
    from_top = whole[2].max() - here[2].mean()
    return f"a piece of the brain, {from_top:.0f} mm below its top"


def left_out(mask: Mask, shown: Mapping[str, Mask], t1: Volume) -> list[Notice]:
    """Compare a given brain mask with what the skull-stripped scans show.

    Args:
        mask: (X, Y, Z) on T1's grid.
        shown: The same for each stripped scan.
        t1: For voxel sizes.

    Returns:
        A notice if a piece of brain that all of them show is not in the mask: it may be the tumour.
    """
    if not shown:
        return []
    everywhere = np.logical_and.reduce(list(shown.values()))
    missing = everywhere & ~mask
    sizes = spacing_mm(t1.affine)
    deep = missing & (ndimage.distance_transform_edt(~mask, sampling=sizes) > BORDER_MM + float(sizes.max()))
    if not deep.any():
        return []
    away = ndimage.distance_transform_edt(~deep, sampling=sizes)
    pieces, count = ndimage.label(missing & (away <= 2 * BORDER_MM + float(sizes.max())))
    volumes = np.bincount(pieces.ravel(), minlength=count + 1)[1:] * voxel_mm3(t1.affine) / 1000
    large = np.flatnonzero(volumes >= MIN_LEFT_OUT_ML) + 1
    if not len(large):
        return []
    part = np.isin(pieces, large)
    names = ", ".join(map(label, shown))
    text = f"The brain mask leaves out {volumes[large - 1].sum():.0f} ml of brain that {names} show "
    text += f"({place_of(part, everywhere, t1.affine)}): nothing is synthesised there. A tumour may be in it."
    return [Notice("mask-leaves-out", text, "brain_mask")]
