"""Coarse pictures of scans in world space, and the search for the transform that makes two of them agree.

Mutual information (Mattes et al. 2003) over all voxels of a coarse picture, followed by ITK's regular step gradient
descent: no random samples and one thread, so that the same scans give the same transform. Transforms are RAS
millimetres throughout: ITK only ever sees pictures whose axes are the world's, so that its LPS does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from d3m.volumes.geometry import spacing_mm
from d3m.volumes.grid import resample
from d3m.volumes.types import Affine, Floats, Mask, Volume

BINS = 32
"""Of the joint histogram; more are noisy for the 20,000 voxels of a coarse picture."""
Kind = Literal["rigid", "similarity", "affine"]
SCALES: dict[Kind, tuple[int, ...]] = {
    "rigid": (1, 1, 1, 0, 0, 0),
    "similarity": (4, 4, 4, 0, 0, 0, 1),
    "affine": (1,) * 9 + (0,) * 3,
}
"""Squared motion of a place at the picture's radius by each of ITK's parameters, over the radius squared; 0 stands for
a translation. The parameters: angles; a versor (half angles), translation, factor; the matrix, translation."""


@dataclass(frozen=True)
class Picture:
    """A scan on a coarse lattice along the axes of the world."""

    data: Floats
    """(X, Y, Z)."""
    mask: Mask
    """(X, Y, Z), where the scan shows something that can be compared."""
    affine: Affine
    """(4, 4), diagonal but for the last column: index to RAS millimetres."""

    @property
    def spacing(self) -> float:
        """Millimetres along all axes."""
        return float(self.affine[0, 0])

    def places(self) -> np.ndarray:
        """(3, N) RAS millimetres of the voxels in the mask."""
        return self.affine[:3, :3] @ np.array(np.nonzero(self.mask)) + self.affine[:3, 3:]


@dataclass(frozen=True)
class Match:
    """What a search found."""

    transform: Affine
    """(4, 4), RAS millimetres: from places in the fixed picture to those in the moving one."""
    mutual_information: float
    """Mutual information in nats."""


def picture(volume: Volume, mask: Mask, spacing: float) -> Picture:
    """Average a scan to about `spacing` millimetres, along the axes of the world.

    Args:
        volume: Any orientation, any spacing.
        mask: (X, Y, Z) on the volume's grid: what is compared. Values that are not finite never are.
        spacing: Of the picture, in mm.
    """
    size = spacing_mm(volume.affine)
    factor = np.clip(np.floor(spacing / size + 0.3), 1, np.array(volume.data.shape)).astype(int)
    data, affine = _blocks(volume.data, volume.affine, factor)
    known, _ = _blocks(mask, volume.affine, factor)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in data.shape], indexing="ij")).reshape(3, -1)
    world = affine[:3, :3] @ corners + affine[:3, 3:]
    low, high = world.min(axis=1), world.max(axis=1)
    target = np.diag([spacing, spacing, spacing, 1.0])
    target[:3, 3] = low
    x, y, z = (int(n) + 1 for n in np.ceil((high - low) / spacing - 1e-6))
    finite = np.isfinite(data)
    chosen = data[finite & (known > 0.5)]
    lowest, highest = (float(v) for v in np.percentile(chosen, (0.5, 99.5))) if chosen.size else (0.0, 1.0)
    limited: Floats = np.where(finite, data, np.float32(lowest)).clip(lowest, highest).astype(np.float32)
    result: Floats = resample(limited, affine, target, (x, y, z), fill=lowest)
    seen = resample((known * finite).astype(np.float32), affine, target, (x, y, z)) > 0.5
    return Picture(result, seen, target)


def _blocks(data: np.ndarray, affine: Affine, factor: np.ndarray) -> tuple[Floats, Affine]:
    """Means over blocks of `factor` voxels, what is left over at the far ends dropped; and where they lie."""
    result: np.ndarray = data
    for axis, n in enumerate(factor):
        whole = result.shape[axis] // n * n
        # one block's planes are added one by one: much faster than a mean over a short axis
        parts = [result[(slice(None),) * axis + (slice(k, whole, int(n)),)] for k in range(int(n))]
        result = np.asarray(sum(parts) / n if n > 1 else parts[0], np.float32)
    moved = affine.copy()
    moved[:3, :3] = affine[:3, :3] * factor
    moved[:3, 3] += affine[:3, :3] @ ((factor - 1) / 2)
    return result, moved


def dilated(shown: Picture, millimetres: float) -> Picture:
    """The picture with a wider mask."""
    away = ndimage.distance_transform_edt(~shown.mask, sampling=shown.spacing)
    return Picture(shown.data, np.asarray(away <= millimetres), shown.affine)


def search(
    fixed: Picture,
    moving: Picture,
    start: Affine,
    *,
    kind: Kind = "rigid",
    step: float = 2.0,
    smallest: float = 0.02,
    iterations: int = 60,
    masked: bool = True,
) -> Match:
    """Climb from `start` to the nearest transform under which the pictures agree best.

    Args:
        fixed: Its mask says which voxels are compared.
        moving: With `masked` its mask counts as well; else all that lies in its box.
        start: (4, 4), RAS millimetres, fixed to moving.
        kind: Freedoms: 6, 7 or 12.
        step: First step in mm, halved whenever the direction turns.
        smallest: Step in mm at which the search ends.
        iterations: At most.
        masked: Whether what the moving picture does not show is left out.

    Returns:
        The match; its likeness is minus infinity where the pictures do not overlap.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricFixedMask(_image(fixed.mask.astype(np.uint8), fixed.affine))
    if masked:
        method.SetMetricMovingMask(_image(moving.mask.astype(np.uint8), moving.affine))
    method.SetOptimizerAsRegularStepGradientDescent(step, smallest, iterations, 0.6, 1e-8)
    places = fixed.places()
    centre = places.mean(axis=1)
    # a turn by one radian moves the picture by its radius; ITK's own estimates end millimetres away from the optimum
    radius = float(np.sqrt(((places - centre[:, None]) ** 2).sum(axis=0).mean()))
    method.SetOptimizerScales([scale * radius**2 if scale else 1.0 for scale in SCALES[kind]])
    transform = _transform(kind, start, centre)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(_image(fixed.data, fixed.affine), _image(moving.data, moving.affine))
    except RuntimeError:  # ITK's way to say that no voxel of one lies in the other
        return Match(start, -np.inf)
    return Match(_matrix(transform), -float(method.GetMetricValue()))


def _image(data: np.ndarray, affine: Affine) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    image.SetSpacing([float(s) for s in np.diag(affine)[:3]])
    image.SetOrigin([float(o) for o in affine[:3, 3]])
    return image


def _transform(kind: Kind, start: Affine, centre: np.ndarray) -> sitk.Transform:
    matrix = [float(v) for v in start[:3, :3].ravel()]
    transform: sitk.Transform
    if kind == "affine":
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(matrix)
    else:
        transform = sitk.Euler3DTransform() if kind == "rigid" else sitk.Similarity3DTransform()
        transform.SetMatrix(matrix, 1e-6)
    transform.SetCenter([float(c) for c in centre])
    transform.SetTranslation([float(v) for v in start[:3, 3] + start[:3, :3] @ centre - centre])
    return transform


def _matrix(transform: sitk.Transform) -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - matrix[:3, :3] @ centre
    return matrix


def rotation_about(centre: np.ndarray, degrees: tuple[float, float, float]) -> Affine:
    """A rotation about the x, then the y, then the z axis of the world through `centre`; (4, 4), RAS millimetres."""
    matrix = np.eye(4)
    for axis, angle in enumerate(degrees):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        one, two = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(4)
        rotation[one, one] = rotation[two, two] = c
        rotation[one, two], rotation[two, one] = -s, s
        matrix = rotation @ matrix
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre
    return matrix


def degrees_of(rotation: np.ndarray) -> float:
    """Angle of a (3, 3) rotation matrix."""
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation closest to a (3, 3) matrix that does not mirror (polar decomposition)."""
    left, _, right = np.linalg.svd(matrix)
    result: np.ndarray = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
    return result


def largest_motion(transform: Affine, places: np.ndarray) -> float:
    """How far the transform moves any of the places; mm.

    Args:
        transform: (4, 4), RAS millimetres.
        places: (3, N) RAS millimetres.
    """
    return float(np.linalg.norm(transform[:3, :3] @ places + transform[:3, 3:] - places, axis=0).max())
