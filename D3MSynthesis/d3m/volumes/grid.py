"""Scans onto the model's grid and back onto T1's: geometry first, then intensities.

Every step is decided as numbers (`plan_grid`, `intensity_scale`), applied, and recorded in `ModelInput`,
so that `to_t1_grid` and `restore_cemri` undo it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nibabel import orientations
from scipy import ndimage

from d3m.arrays import values_in
from d3m.errors import D3MError, Notice
from d3m.volumes.geometry import spacing_mm
from d3m.volumes.types import CONTRASTS, Affine, Case, Floats, GridRecipe, Mask, ModelGrid, ModelInput, Volume

SPACING_MM = 1.0
"""The models' voxel size: that of the BraTS data they are trained on."""
NATIVE_TOLERANCE = 0.06
"""T1 within this share of `SPACING_MM` keeps its own lattice: no interpolation; a brain 6 % larger is still a brain."""
LATTICE_TOLERANCE_VOXELS = 0.05
"""Two lattices that stay this close everywhere are one: headers are rounded, scans are not moved by it."""
MARGIN = 2
"""Voxels kept around the brain's box."""


def plan_grid(t1: Volume, brain: Mask, recipe: GridRecipe, stride: int, pose: Affine | None = None) -> ModelGrid:
    """The axial lattice around the brain, along T1's own axes or those of a tilted head.

    Args:
        t1: Any orientation; its axes may be oblique.
        brain: (X, Y, Z) on T1's grid, not empty.
        recipe: `size` decides between a square and the brain's box.
        stride: Rows and columns are padded to a multiple of it.
        pose: (4, 4), RAS to RAS millimetres, rigid: sets the head upright. None or the identity: T1's own axes.

    Raises:
        D3MError: the brain does not fit into the recipe's fixed size.
    """
    to_lps = orientations.ornt_transform(
        orientations.io_orientation(t1.affine), orientations.axcodes2ornt(("L", "P", "S"))
    )
    affine: Affine = t1.affine @ orientations.inv_ornt_aff(to_lps, t1.data.shape)
    step = np.ones(3)
    if pose is None or np.array_equal(pose, np.eye(4)):
        spacing = spacing_mm(affine)
        if np.abs(spacing / SPACING_MM - 1).max() > NATIVE_TOLERANCE:
            step = SPACING_MM / spacing
        low, high = _box(orientations.apply_orientation(brain, to_lps))
    else:
        upright = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])  # LPS where the head is upright
        affine = np.asarray(np.linalg.inv(pose) @ upright, np.float64)
        low, high = _bounds(brain, np.linalg.inv(affine) @ t1.affine)
    count = np.ceil((high - low) / step).astype(int) + 1 + 2 * MARGIN
    start = low - MARGIN * step
    rounded = count.copy()
    if recipe.size is None:
        rounded[:2] = -(-count[:2] // stride) * stride
    else:
        rounded[:2] = recipe.size
        if (count[:2] > recipe.size).any():
            raise D3MError(
                f"The brain measures {count[0]} x {count[1]} mm in its slices; this model takes {recipe.size}.",
                "Check the brain mask and the voxel size in the header of T1.",
            )
    start = start - ((rounded - count) // 2) * step
    offset = np.eye(4)
    offset[:3, :3] = np.diag(step)
    offset[:3, 3] = start
    w, h, s = (int(n) for n in rounded)
    x, y, z = t1.data.shape
    return ModelGrid((w, h, s), affine @ offset, (x, y, z), t1.affine)


def _box(mask: Mask) -> tuple[np.ndarray, np.ndarray]:
    """First and last index of `mask` along each axis."""
    bounds = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[[0, -1]] for axis in range(3)]
    return np.array([b[0] for b in bounds], float), np.array([b[1] for b in bounds], float)


def _bounds(mask: Mask, mapping: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest place of the voxels of `mask` under an affine mapping of their indices."""
    # only the surface counts, and of it the first and last voxel along each column
    columns = np.nonzero(mask.any(axis=2))
    along = mask[columns]
    ends = [along.argmax(axis=1), mask.shape[2] - 1 - along[:, ::-1].argmax(axis=1)]
    places = [mapping[:3, :3] @ np.stack([*columns, end]) + mapping[:3, 3:] for end in ends]
    return np.min([p.min(axis=1) for p in places], axis=0), np.max([p.max(axis=1) for p in places], axis=0)


def resample(
    data: np.ndarray, source: Affine, target: Affine, shape: tuple[int, int, int], *, order: int = 1, fill: float = 0.0
) -> np.ndarray:
    """`data` on another lattice of the same world space.

    Lattices that differ by whole voxels and axis flips alone are copied, never interpolated. A source finer than
    the target is smoothed first, so that nothing aliases (not for `order` 0).

    Args:
        data: (X, Y, Z), float or bool.
        source: (4, 4), index of `data` to RAS millimetres.
        target: (4, 4), index of the result to RAS millimetres.
        shape: Shape of the result.
        order: 1 linear, 0 nearest.
        fill: Value outside `data`.

    Returns:
        Array of `shape`; dtype of `data`.
    """
    mapping = np.linalg.inv(source) @ target
    exact = _whole_voxels(mapping, shape)
    if exact is not None:
        return _copy(data, *exact, shape, fill)
    values = data.astype(np.float32)
    if order == 1:
        ratio = spacing_mm(target).min() / spacing_mm(source)
        sigma = np.where(ratio > 1.2, 0.5 * np.sqrt(np.maximum(ratio**2 - 1, 0)), 0.0)
        if sigma.any():
            values = ndimage.gaussian_filter(values, sigma, mode="nearest")
    # "nearest" continues the outermost half voxel; what lies farther out is filled, not invented
    result = ndimage.affine_transform(
        values, mapping[:3, :3], mapping[:3, 3], output_shape=shape, order=order, mode="nearest"
    )
    outside = ~_inside(mapping, data.shape, shape)
    result[outside] = fill
    final: np.ndarray = result > 0.5 if data.dtype == bool else result.astype(data.dtype, copy=False)
    return final


def _whole_voxels(mapping: Affine, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """(signed permutation, integer offset) if `mapping` is that to within the tolerance over all of `shape`."""
    linear, offset = np.rint(mapping[:3, :3]), np.rint(mapping[:3, 3])
    if not (np.abs(linear).sum(axis=0) == 1).all() or not (np.abs(linear).sum(axis=1) == 1).all():
        return None
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
    drift = (mapping[:3, :3] - linear) @ corners + (mapping[:3, 3] - offset)[:, None]
    if np.abs(drift).max() > LATTICE_TOLERANCE_VOXELS:
        return None
    return linear.astype(int), offset.astype(int)


def _copy(
    data: np.ndarray, linear: np.ndarray, offset: np.ndarray, shape: tuple[int, int, int], fill: float
) -> np.ndarray:
    """`result[p] = data[linear @ p + offset]`, `fill` outside."""
    axes = np.abs(linear).argmax(axis=0)  # source axis that each target axis runs along
    moved = data.transpose(axes)
    result = np.full_like(moved, fill, shape=shape)  # with the memory order of what is copied: several times faster
    into: list[slice] = []
    taken: list[slice] = []
    for axis, source_axis in enumerate(axes):
        sign, start, size = linear[source_axis, axis], offset[source_axis], data.shape[source_axis]
        index = start + sign * np.arange(shape[axis])
        valid = np.flatnonzero((index >= 0) & (index < size))
        if not valid.size:
            return result
        into.append(slice(valid[0], valid[-1] + 1))
        first, beyond = index[valid[0]], index[valid[-1]] + sign
        taken.append(slice(first, None if beyond < 0 else beyond, sign))
    result[tuple(into)] = moved[tuple(taken)]  # slices copy many times faster than lists of indices
    return result


def _inside(mapping: Affine, source_shape: tuple[int, ...], shape: tuple[int, int, int]) -> Mask:
    """Target voxels whose centre lies in the box of source voxels (their outer faces included)."""
    inside = np.ones(shape, bool)
    index = np.ogrid[tuple(slice(0, n) for n in shape)]
    for axis in range(3):
        position = sum(mapping[axis, k] * index[k] for k in range(3)) + mapping[axis, 3]
        inside &= (position >= -0.5 - 1e-6) & (position <= source_shape[axis] - 0.5 + 1e-6)
    return inside


def intensity_scale(values: Floats, brain: Mask, recipe: GridRecipe) -> tuple[float, float]:
    """Intensities that become 0 and 1: the recipe's percentiles.

    Args:
        values: Any shape.
        brain: Same shape; used by `percentiles_over="brain"`.
        recipe: Which percentiles, over which voxels.

    Returns:
        (low, high); for `percentiles_over="volume"` low is at least 0, as published.
    """
    over = values_in(values, brain) if recipe.percentiles_over == "brain" else values
    low, high = np.percentile(over, recipe.percentiles)
    if recipe.percentiles_over == "volume":
        low = max(low, 0.0)
    return float(low), float(high)


def to_model_input(case: Case, recipe: GridRecipe, stride: int, contrasts: Sequence[str] = CONTRASTS) -> ModelInput:
    """Put a case on the model's grid.

    Args:
        case: Scans of one frame of reference, and the brain.
        recipe: The model's; from its card.
        stride: Multiple that rows and columns must have.
        contrasts: The model's, in the order of its channels.

    Raises:
        D3MError: a contrast does not vary inside the brain; a brain larger than the model's slices.
    """
    grid = plan_grid(case.t1, case.brain, recipe, stride, case.pose)
    brain = _slices_first(resample(case.brain, case.t1.affine, grid.affine, grid.shape, order=0))
    slices = np.zeros((len(brain), len(contrasts), *brain.shape[1:]), np.float32)
    scales = []
    notices: list[Notice] = list(case.notices)
    scans = case.given()
    for name, scaled in zip(contrasts, slices.swapaxes(0, 1), strict=True):
        if name not in scans:
            scales.append((0.0, 1.0))
            continue
        volume, values = scans[name], scans[name].data
        if name == "t1" and recipe.percentiles_over == "brain":
            # whatever surrounds the brain (-1024, a skull) would bleed into its border where T1 is interpolated
            floor = np.float32(np.percentile(values_in(values, case.brain), recipe.percentiles[0] / 2))
            values = np.where(case.brain, values, floor)
        fill = float(values.min())
        data = _slices_first(resample(values, volume.affine, grid.affine, grid.shape, fill=fill))
        low, high = intensity_scale(data, brain, recipe)
        if not high > low:
            raise D3MError(
                f"{name.upper()} has the same value all over the brain.",
                "Choose another file: this one holds no picture, or the brain mask does not fit it.",
            )
        np.clip((data - low) / (high - low), 0.0, 1.0, out=scaled)
        scaled[~brain] = 0.0
        scales.append((low, high))
    given = None
    if case.given_mask is not None:
        given = _slices_first(
            resample(case.given_mask.astype(np.float32), case.t1.affine, grid.affine, grid.shape)
        ).clip(0, 1)
    return ModelInput(slices, brain, grid, tuple(scales), recipe, tuple(notices), given)


def _slices_first(data: np.ndarray) -> np.ndarray:
    """(W, H, S) to (S, H, W)."""
    return np.ascontiguousarray(data.transpose(2, 1, 0))


def mean_over_slices(values: Floats, brain: Mask, sigma: float) -> Floats:
    """A Gaussian mean over each slice and its neighbours; what is not brain does not count.

    Args:
        values: (S, H, W).
        brain: (S, H, W).
        sigma: Standard deviation in slices; 0 leaves the values as they are.

    Returns:
        (S, H, W) float32; 0 outside the brain.
    """
    inside = np.where(brain, values, 0).astype(np.float32)
    if sigma == 0:
        return inside
    total, share = (
        ndimage.gaussian_filter1d(part, sigma, axis=0, mode="constant") for part in (inside, brain.astype(np.float32))
    )
    mean: Floats = np.divide(total, share, out=np.zeros_like(total), where=brain)
    return mean


def volume_from_slices(slices: np.ndarray) -> np.ndarray:
    """(S, H, W) to (W, H, S), the order that `ModelGrid.affine` indexes."""
    return slices.transpose(2, 1, 0)


def to_t1_grid(slices: np.ndarray, grid: ModelGrid, *, order: int = 1, fill: float = 0.0) -> np.ndarray:
    """An image on the model's grid, back on T1's.

    Args:
        slices: (S, H, W).
        grid: Where it lies.
        order: 1 linear, 0 nearest.
        fill: Value outside the model's grid.

    Returns:
        (X, Y, Z), dtype of `slices`; copied without interpolation where the lattices coincide.
    """
    return resample(volume_from_slices(slices), grid.affine, grid.t1_affine, grid.t1_shape, order=order, fill=fill)


def restore_cemri(synthetic: Floats, model_input: ModelInput, t1: Volume, brain: Mask) -> Floats:
    """The CEMRI on T1's grid and intensity scale; outside the brain it is T1.

    With the target on T1's scale the model's *difference* to T1 is carried back and added to T1 itself, so that
    T1's detail and its intensities beyond the percentiles are kept on any grid.

    Args:
        synthetic: (S, H, W) on the model's grid; 0 and 1 are T1's own scale.
        model_input: The case as the model saw it.
        t1: The T1 scan as read.
        brain: (X, Y, Z) on T1's grid.

    Returns:
        (X, Y, Z) float32 in T1's units.
    """
    low, high = model_input.scales[0]
    if model_input.recipe.target == "t1_scale":
        change = to_t1_grid(synthetic - model_input.slices[:, 0], model_input.grid) * (high - low)
        return np.add(t1.data, change, out=t1.data.astype(np.float32), where=brain)
    image = low + (high - low) * to_t1_grid(synthetic, model_input.grid)
    return np.where(brain, image, t1.data).astype(np.float32, copy=False)


def displacement_mm(pixels: Floats, grid: ModelGrid) -> Floats:
    """A displacement in pixels of the slices as vectors in world space.

    Args:
        pixels: (S, 2, H, W); channel 0 along columns (x), channel 1 along rows (y).
        grid: Where the slices lie.

    Returns:
        (W, H, S, 3) RAS millimetres.
    """
    along = grid.affine[:3, :2].astype(np.float32)
    field: Floats = np.tensordot(along, pixels, axes=(1, 1))  # (3, S, H, W): as it lies in a file
    return field.transpose(3, 2, 1, 0)
