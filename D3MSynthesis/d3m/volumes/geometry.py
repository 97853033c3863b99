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
