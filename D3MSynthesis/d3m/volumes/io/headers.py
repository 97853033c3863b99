"""What every file format's header is turned into, and the checks that they share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from d3m.errors import D3MError, Notice
from d3m.volumes.geometry import spacing_mm
from d3m.volumes.io.files import damaged, label
from d3m.volumes.types import Affine

MIN_SLICES = 4
"""Fewer are a picture, not a volume."""
SPACING_RANGE_MM = (0.05, 30.0)
"""Voxel sizes outside it are no scan of a head but a wrong unit."""
MAX_SIDE_MM, MAX_LITRES = 1000.0, 200.0
"""No scanner sees more of a head; a box of half a metre has 125 litres."""
SILENT_SHEAR = 0.001
"""Cosine between two axes that is rounding (a tenth of a millimetre over a head)."""
MAX_SHEAR = 0.005
"""Up to here the nearest right-angled axes are used, with a notice; beyond, a file is refused."""
NO_ORIENTATION_HINT = (
    "Convert it from DICOM again, or copy the geometry from a scan on the same grid whose orientation is known "
    "(for instance with fslcpgeom)."
)


@dataclass(frozen=True)
class Header:
    """Geometry and layout of one image, checked."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    affine: Affine
    """(4, 4), voxel index to RAS millimetres; axes at right angles."""
    slope: float = 1.0
    intercept: float = 0.0
    qform_code: int = 1
    sform_code: int = 1
    notices: tuple[Notice, ...] = field(default=())
    qform: Affine | None = None
    """(4, 4), as `affine`, by a NIfTI file's quaternion; None if it has none."""


def three_axes(shape: tuple[int, ...], contrast: str) -> tuple[int, int, int]:
    """The three spatial sizes; further axes must have length one.

    Raises:
        D3MError: a single slice; a real fourth axis; sizes below one.
    """
    if any(n < 1 for n in shape) or not shape:
        raise damaged(contrast, f"its header declares {' x '.join(map(str, shape)) or 'no'} voxels")
    if any(n > 1 for n in shape[3:]):
        kind = "vectors or colours" if len(shape) == 5 and shape[3] == 1 else "a series of volumes"
        raise D3MError(
            f"{label(contrast)} is {len(shape)}-D ({' x '.join(map(str, shape))}: {kind}), not one volume.",
            "Save the one volume that you mean as a 3-D file (for instance with fslroi).",
        )
    sizes = (*shape[:3], 1, 1, 1)[:3]
    if min(sizes) < MIN_SLICES:
        few = "a single slice" if min(sizes) == 1 else f"only {min(sizes)} slices"
        raise D3MError(
            f"{label(contrast)} is {few} ({' x '.join(map(str, sizes))} voxels), not a volume.",
            "Give the file that holds the whole series.",
        )
    return sizes[0], sizes[1], sizes[2]


def check_affine(
    affine: Affine, shape: tuple[int, int, int], unit_mm: float, contrast: str
) -> tuple[Affine, tuple[Notice, ...]]:
    """An affine in millimetres with axes at right angles.

    Args:
        affine: (4, 4), index to RAS in the file's unit.
        shape: Size; the middle of the volume stays where it is when axes are straightened.
        unit_mm: Millimetres in the file's unit.
        contrast: For messages.

    Raises:
        D3MError: values that are not finite, axes of length zero or in one plane, absurd voxel sizes or extent, shear.
    """
    name = label(contrast)
    notices = []
    if not np.isfinite(affine).all():
        raise damaged(contrast, "its orientation in the header is not a number")
    affine = affine.astype(np.float64)
    spacing = spacing_mm(affine)
    low, high = SPACING_RANGE_MM
    if unit_mm != 1.0:
        if _within(spacing * unit_mm, low, high):
            affine = np.vstack([affine[:3] * unit_mm, affine[3:]])
            spacing = spacing * unit_mm
        elif _within(spacing, low, high):
            unit = "metres" if unit_mm > 1 else "micrometres"
            notices.append(
                Notice("unit", f"{name} declares {unit}, but its voxel size only makes sense in millimetres.", contrast)
            )
    if not _within(spacing, low, high):
        sizes = " x ".join(f"{s:.4g}" for s in spacing)
        raise D3MError(
            f"{name} has an impossible voxel size in its header: {sizes} mm.",
            "Correct the voxel size or the unit in the header, or convert the scan again.",
        )
    sides = np.array(shape) * spacing
    if sides.max() > MAX_SIDE_MM or sides.prod() > MAX_LITRES * 1e6:
        sizes = " x ".join(f"{side:.0f}" for side in sides)
        raise D3MError(
            f"{name} measures {sizes} mm by its header: no scan of a head is so large.",
            "Correct the voxel size in the header, or crop the scan to the head.",
        )
    axes = affine[:3, :3] / spacing
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > MAX_SHEAR:
        raise D3MError(
            f"{name} has axes that are not at right angles (sheared by {_degrees(shear):.2g} degrees).",
            "Resample it onto a right-angled grid (for instance in 3D Slicer: Harden transform, then Resample image).",
        )
    if shear > SILENT_SHEAR:
        notices.append(
            Notice("shear", f"{name} has axes not quite at right angles; the nearest right angles are used.", contrast)
        )
    if shear > 1e-6:
        left, _, right = np.linalg.svd(
            axes
        )  # polar decomposition: left @ right is the nearest rotation (or reflection)
        middle = (np.array(shape) - 1) / 2
        straight = affine.copy()
        straight[:3, :3] = (left @ right) * spacing
        straight[:3, 3] = affine[:3, :3] @ middle + affine[:3, 3] - straight[:3, :3] @ middle
        affine = straight
    return affine, tuple(notices)


def _degrees(cosine: float) -> float:
    """How far from a right angle two axes with this cosine stand."""
    return float(np.degrees(np.arcsin(min(cosine, 1.0))))


def _within(values: np.ndarray, low: float, high: float) -> bool:
    return bool((values >= low).all() and (values <= high).all())


def corner_distance(one: Affine, other: Affine, shape: tuple[int, ...]) -> float:
    """How far two affines place the corners of one volume apart, at most, in millimetres."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]])).reshape(3, -1)
    difference = one - other
    return float(np.linalg.norm(difference[:3, :3] @ corners + difference[:3, 3:], axis=0).max())
