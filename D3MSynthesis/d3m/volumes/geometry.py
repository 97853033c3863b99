"""Sizes and places that follow from an affine; `nibabel.affines` computes them."""

from __future__ import annotations

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from d3m.volumes.types import Affine, Mask


def spacing_mm(affine: Affine) -> NDArray[np.float64]:
    """(3,), millimetres between neighbours along each voxel axis of an affine (4, 4)."""
    sizes: NDArray[np.float64] = voxel_sizes(affine)
    return sizes


def voxel_mm3(affine: Affine) -> float:
    """Cubic millimetres of a voxel of an affine (4, 4), whatever its handedness."""
    return abs(float(np.linalg.det(affine[:3, :3])))


def volume_ml(mask: Mask, affine: Affine) -> float:
    """Millilitres of a mask (X, Y, Z) on the grid of an affine (4, 4)."""
    return float(np.count_nonzero(mask)) * voxel_mm3(affine) / 1000


def box_of(mask: Mask, margin: int | NDArray[np.int64] = 0) -> tuple[slice, ...] | None:
    """The box that holds all of a mask (X, Y, Z), with a margin of so many voxels as far as there are any.

    Args:
        mask: Any.
        margin: Voxels, or (3,) for each axis.

    Returns:
        A slice for each axis; None of an empty mask.
    """
    found = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not all(len(f) for f in found):
        return None
    around = np.broadcast_to(margin, 3)
    return tuple(
        slice(max(0, int(f[0] - by)), min(size, int(f[-1] + by) + 1))
        for f, by, size in zip(found, around, mask.shape, strict=True)
    )


def middle_of_largest_slice(mask: Mask) -> tuple[int, int, int]:
    """A voxel in the middle of a mask (X, Y, Z), not empty: in the slice of the last axis that has most of it."""
    z = int(mask.sum(axis=(0, 1)).argmax())
    x, y = np.median(np.argwhere(mask[:, :, z]), axis=0).astype(int)
    return int(x), int(y), z
