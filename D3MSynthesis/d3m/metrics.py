"""The metrics, defined once for panel, card and tables. Does not import torch.

Conventions: images are (X, Y, Z) on T1's grid, of which the first two axes are the slice's plane ("axial" below);
`real` is T1c scaled by its own 0.5 and 99.5 percentiles in the brain and clipped to [0, 1]. A value that is not
defined (no enhancing voxel, say) is NaN, and whoever averages says over how many patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from d3m.arrays import values_in

Image = NDArray[np.floating]
Mask = NDArray[np.bool_]

MIN_DICE_VOXELS = 50
"""Dice is defined for patients with at least this many enhancing voxels."""
PERCENTILES = (0.5, 99.5)
SSIM_REACH = 6
"""Voxels: SSIM at a point depends on nothing farther away (the Gaussian ends at 5)."""
LEAST_SHOWN = 1000
"""Voxels of the brain that a real T1c must show, or it does not overlap it."""
SURFACE_MM, VESSEL_MM, SMALLEST_ML = 5.0, 2.0, 0.5
"""Of `enhancing_in`: what it leaves out at the brain's surface, half the width of a vessel, the smallest tumour."""


@dataclass(frozen=True)
class Regions:
    """Where things are measured; all (X, Y, Z) bool."""

    brain: Mask
    tumour: Mask
    """Any label."""
    enhancing: Mask
    ring: Mask
    """Enhancing tumour dilated by 4 voxels without its dilation by 1, inside the brain."""
    normal: Mask
    """Brain without the tumour dilated by 2."""


def regions(brain: Mask, tumour: Mask, enhancing: Mask) -> Regions:
    """The regions of a patient.

    Args:
        brain: (X, Y, Z).
        tumour: Any tumour label.
        enhancing: The enhancing label.
    """
    ring = _dilate(enhancing, 4) & ~_dilate(enhancing, 1) & brain
    return Regions(brain, tumour & brain, enhancing & brain, ring, brain & ~_dilate(tumour, 2))


def _dilate(mask: Mask, voxels: int) -> Mask:
    dilated: Mask = ndimage.binary_dilation(mask, iterations=voxels) if mask.any() else mask.copy()
    return dilated


def scale_by_percentiles(image: Image, brain: Mask) -> Image:
    """Own 0.5 and 99.5 percentiles in the brain become 0 and 1; clipped."""
    low, high = np.percentile(values_in(image, brain), PERCENTILES)
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def fit(image: Image, real: Image, brain: Mask) -> Image:
    """The image after the affine map closest to `real` over the brain (least squares), clipped to [0, 1]."""
    x, y = (values_in(one, brain).astype(np.float64) for one in (image, real))
    spread = x.var()
    gain = ((x - x.mean()) * (y - y.mean())).mean() / spread if spread > 0 else 0.0
    return np.clip(gain * (image - x.mean()) + y.mean(), 0, 1)


def psnr(image: Image, real: Image, region: Mask) -> float:
    """Peak signal-to-noise ratio in dB over a region, data range 1; NaN for an empty region."""
    if not region.any():
        return float("nan")
    error = np.mean((values_in(image, region).astype(np.float64) - values_in(real, region)) ** 2)
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim_map(image: Image, real: Image) -> Image:
    """Wang's SSIM of every axial slice (Gaussian 1.5, data range 1), the map over the whole slice.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861, eq. 13.

    Args:
        image: (X, Y, Z) in [0, 1].
        real: (X, Y, Z) in [0, 1].

    Returns:
        (X, Y, Z) float32.
    """
    # slices are turned, which changes nothing, since volumes that were read lie so in memory
    first, second = (np.ascontiguousarray(one.T, np.float64) for one in (image, real))
    result: Image = np.stack([_ssim_of_slice(x, y) for x, y in zip(first, second, strict=True)]).T
    return result


def _ssim_of_slice(x: Image, y: Image) -> Image:
    """(Y, X) float32; slice by slice all stays in the processor's cache."""
    c1, c2 = 0.01**2, 0.03**2
    both = np.stack([x, y, x * y, x**2 + y**2])
    mean_x, mean_y, mean_product, mean_squares = ndimage.gaussian_filter(both, (0, 1.5, 1.5), truncate=3.5)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance, variances = mean_product - product, mean_squares - squares
    similarity: Image = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity.astype(np.float32)


def _box(mask: Mask, margin: int) -> tuple[slice, ...]:
    """Where a mask is, and some voxels around."""
    found = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(max(int(f[0]) - margin, 0), int(f[-1]) + margin + 1) if len(f) else slice(None) for f in found)


def mean_in(values: Image, region: Mask) -> float:
    """Mean over a region; NaN where it is empty."""
    return float(values_in(values, region).mean()) if region.any() else float("nan")


@dataclass(frozen=True)
class Similarity:
    """PSNR in dB and SSIM over the regions; `enhancing` without SSIM, which means little in so few voxels."""

    psnr_brain: float
    psnr_tumour: float
    psnr_enhancing: float
    ssim_brain: float
    ssim_tumour: float


def similarity(image: Image, real: Image, where: Regions) -> Similarity:
    """PSNR and SSIM of an image that is already on `real`'s scale.

    Args:
        image: (X, Y, Z) in [0, 1], from `fit` ("fitted" rows) or `scale_by_percentiles` ("own" rows).
        real: (X, Y, Z) in [0, 1].
        where: The regions.
    """
    image, real = np.where(where.brain, image, 0), np.where(where.brain, real, 0)
    inside = _box(where.brain, SSIM_REACH)
    ssim = np.ones(image.shape, np.float32)
    ssim[inside] = ssim_map(image[inside], real[inside])
    return Similarity(
        psnr(image, real, where.brain),
        psnr(image, real, where.tumour),
        psnr(image, real, where.enhancing),
        mean_in(ssim, where.brain),
        mean_in(ssim, where.tumour),
    )


def auc(score: Image, positive: Mask, brain: Mask) -> float:
    """Area under the ROC curve over the brain: how well `score` ranks `positive` above all others; NaN without any."""
    inside, wanted = score[brain], positive[brain]
    count = int(wanted.sum())
    if count == 0 or count == len(wanted):
        return float("nan")
    from scipy import stats  # slow to import, and an ordinary synthesis does not need it

    ranks = stats.rankdata(inside)
    return float((ranks[wanted].sum() - count * (count + 1) / 2) / (count * (len(wanted) - count)))


@dataclass(frozen=True)
class Enhancement:
    """How the difference to T1 compares with the real one."""

    auc: float
    """`auc` of the difference for enhancing tumour."""
    auc_real: float
    contrast: float
    """Mean difference in the enhancing tumour minus in its ring, over the quartile range of normal tissue."""
    contrast_real: float
    correlation: float
    """With the real difference, inside the tumour."""


def enhancement(difference: Image, real_difference: Image, where: Regions) -> Enhancement:
    """Compare synthetic minus T1 with real minus T1.

    Args:
        difference: (X, Y, Z), synthetic minus T1, any scale.
        real_difference: (X, Y, Z), real T1c minus T1, both on one scale.
        where: The regions.
    """

    def contrast(values: Image) -> float:
        low, high = np.percentile(values[where.normal], (25, 75)) if where.normal.any() else (np.nan, np.nan)
        return (mean_in(values, where.enhancing) - mean_in(values, where.ring)) / max(high - low, 1e-12)

    correlation = float("nan")
    if where.tumour.sum() > 1:
        a, b = difference[where.tumour], real_difference[where.tumour]
        if a.std() > 0 and b.std() > 0:
            correlation = float(np.corrcoef(a, b)[0, 1])
    return Enhancement(
        auc(difference, where.enhancing, where.brain),
        auc(real_difference, where.enhancing, where.brain),
        contrast(difference),
        contrast(real_difference),
        correlation,
    )


@dataclass(frozen=True)
class Overlap:
    """A predicted enhancing-tumour mask against the true one."""

    dice: float
    """NaN where the true mask has fewer than `MIN_DICE_VOXELS`."""
    false_positive_ml: float
    false_negative_ml: float
    predicted_ml: float
    true_ml: float
    false_slices: float
    """Share of the brain's slices without true enhancement that have predicted one; NaN if there is no such slice."""


def dice(a: Mask, b: Mask) -> float:
    """2 |a and b| / (|a| + |b|); 1 for two empty masks."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def overlap(predicted: Mask, true: Mask, brain: Mask, voxel_ml: float) -> Overlap:
    """Compare two masks.

    Args:
        predicted: (X, Y, Z).
        true: (X, Y, Z).
        brain: (X, Y, Z); decides which slices count.
        voxel_ml: Volume of a voxel in millilitres.
    """
    empty = np.asarray(brain.any(axis=(0, 1)) & ~true.any(axis=(0, 1)))
    return Overlap(
        dice(predicted, true) if true.sum() >= MIN_DICE_VOXELS else float("nan"),
        float((predicted & ~true).sum() * voxel_ml),
        float((true & ~predicted).sum() * voxel_ml),
        float(predicted.sum() * voxel_ml),
        float(true.sum() * voxel_ml),
        float(np.asarray(predicted.any(axis=(0, 1)))[empty].mean()) if empty.any() else float("nan"),
    )


@dataclass(frozen=True)
class FieldMeasures:
    """Length of a displacement field in millimetres."""

    inside: float
    """Mean inside the tumour."""
    border: float
    """Mean within 3 voxels of the tumour's border."""
    outside: float
    """Mean in the brain away from the tumour."""


def field_measures(displacement: Image, tumour: Mask, brain: Mask) -> FieldMeasures:
    """Where a field moves things.

    Args:
        displacement: (X, Y, Z, 3) millimetres.
        tumour: (X, Y, Z); the border is taken of it.
        brain: (X, Y, Z).
    """
    length = np.linalg.norm(displacement, axis=-1)
    core = ndimage.binary_erosion(tumour, iterations=3) if tumour.any() else tumour
    border = _dilate(tumour, 3) & ~core & brain
    return FieldMeasures(mean_in(length, tumour), mean_in(length, border), mean_in(length, brain & ~_dilate(tumour, 3)))


def slice_difference(image: Image, brain: Mask) -> float:
    """Mean absolute difference of neighbouring slices where both are brain; NaN if there are none."""
    both = brain[:, :, 1:] & brain[:, :, :-1]
    return mean_in(np.abs(np.diff(image.astype(np.float32), axis=2)), both)


def shown(real: Image, where: Mask) -> Mask:
    """Where a real scan that was resampled says something: not outside of it, and not in a background that was cut off.

    Both are exactly 0 (or NaN); a 0 amid other values, such as dark fluid, is a value.

    Args:
        real: (X, Y, Z), 0 outside the scan.
        where: (X, Y, Z); only in there it is looked for such values.
    """
    finite = np.isfinite(real)
    found: Mask = finite & (real != 0)
    if not found[where].all():
        box = _box(where, 1)
        found[box] = ndimage.binary_fill_holes(found[box]) & finite[box]
    return found


def enhancing_in(t1: Image, t1c: Image, brain: Mask, voxel_ml: float, seen: Mask | None = None) -> Mask:
    """Where a real T1c seems to enhance, without labels: an estimate from brightness, for a first look.

    The difference to the fitted T1 must stand out by three robust standard deviations; vessels are opened away,
    the brain's surface with its veins is left out. Against labels of 14 patients the Dice was 0.51 on average.

    Args:
        t1: (X, Y, Z).
        t1c: (X, Y, Z), the real one, any units, on the same grid.
        brain: (X, Y, Z); its surface is left out.
        voxel_ml: Volume of a voxel in millilitres.
        seen: (X, Y, Z), what T1c shows: nothing is looked for elsewhere. None: all of the brain.
    """
    whole = brain
    if seen is not None:
        brain = brain & seen
    voxels = [max(1, round(mm / (1000 * voxel_ml) ** (1 / 3))) for mm in (SURFACE_MM, VESSEL_MM)]
    real = scale_by_percentiles(t1c, brain)
    difference = ndimage.gaussian_filter(np.where(brain, real - fit(t1, real, brain), 0), 0.5)
    inside = values_in(difference, brain)
    middle = np.median(inside)
    spread = 1.4826 * np.median(np.abs(inside - middle))
    inner = ndimage.binary_erosion(whole, iterations=voxels[0])  # where T1c ends there is no surface
    bright = inner & brain & (difference > middle + 3 * spread)
    opened = ndimage.binary_opening(bright, ndimage.generate_binary_structure(3, 1), iterations=voxels[1])
    labels, count = ndimage.label(opened)
    sizes = ndimage.sum_labels(opened, labels, range(1, count + 1))
    kept: Mask = np.isin(labels, 1 + np.flatnonzero(np.asarray(sizes) * voxel_ml >= SMALLEST_ML))
    return kept


@dataclass(frozen=True)
class Comparison:
    """A synthetic CEMRI beside the real one of the same patient, without labels: what the panel shows."""

    psnr_brain: float
    """Fitted, dB."""
    ssim_brain: float
    """Fitted."""
    psnr_brain_t1: float
    """The copied T1's, for comparison."""
    ssim_brain_t1: float
    correlation: float
    """Of synthetic minus T1 with real minus T1, over the brain."""
    slice_flicker: float
    """Difference of neighbouring slices, over the real one's."""


def compare(cemri: Image, t1: Image, t1c: Image, brain: Mask) -> Comparison:
    """Compare without labels.

    Args:
        cemri: (X, Y, Z), the synthetic image, T1's units.
        t1: (X, Y, Z).
        t1c: (X, Y, Z), the real one, any units, on the same grid.
        brain: (X, Y, Z).
    """
    inside = _box(brain, SSIM_REACH)  # nothing outside counts, and SSIM takes half the time
    cemri, t1, t1c, brain = cemri[inside], t1[inside], t1c[inside], brain[inside]
    real = np.where(brain, scale_by_percentiles(t1c, brain), 0)
    synthetic, copied = (np.where(brain, fit(image, real, brain), 0) for image in (cemri, t1))
    difference, real_difference = values_in(cemri - t1, brain), values_in(real - copied, brain)
    correlation = float("nan")
    if difference.std() > 0 and real_difference.std() > 0:
        correlation = float(np.corrcoef(difference, real_difference)[0, 1])
    return Comparison(
        psnr(synthetic, real, brain),
        mean_in(ssim_map(synthetic, real), brain),
        psnr(copied, real, brain),
        mean_in(ssim_map(copied, real), brain),
        correlation,
        slice_difference(synthetic, brain) / max(slice_difference(real, brain), 1e-12),
    )


def beside(
    cemri: Image,
    t1: Image,
    t1c: Image,
    brain: Mask,
    predicted: Mask,
    true: Mask | None,
    voxel_ml: float,
    axial: Callable[[NDArray[Any]], NDArray[Any]],
) -> dict[str, float | str | None] | None:
    """The numbers of `comparison.json`, which Slicer's panel tells, too: a synthetic CEMRI beside the real one.

    They are of what the real T1c shows: of tumour that it does not cover nobody knows whether it is there.

    Args:
        cemri: The synthetic image, T1's units; all arrays are on one grid, with axes in any order.
        t1: T1.
        t1c: The real one, any units; 0 outside of it.
        brain: What was synthesised.
        predicted: The enhancing tumour of the result.
        true: The real one, as a person drew it, for all that T1c shows; None: it is estimated from brightness.
        voxel_ml: Volume of a voxel in millilitres.
        axial: Puts an array's axes in the order of this module.

    Returns:
        None if T1c hardly shows anything of the brain.
    """
    seen = shown(t1c, brain | predicted if true is None else brain | predicted | true)
    covered = brain & seen
    if covered.sum() < LEAST_SHOWN:
        return None
    measured = compare(axial(cemri), axial(t1), axial(t1c), axial(covered))
    drawn = true is not None
    if true is None:
        true = enhancing_in(t1, t1c, brain, voxel_ml, seen)
    masks = overlap(predicted & seen, true & seen, covered, voxel_ml)
    numbers = asdict(measured) | {
        "predicted_enhancing_volume_ml": masks.predicted_ml,
        "real_enhancing_volume_ml": masks.true_ml,
        "false_positive_ml": masks.false_positive_ml,
        "false_negative_ml": masks.false_negative_ml,
        "dice": masks.dice,
        "covered_share": covered.sum() / brain.sum(),
    }
    values: dict[str, float | str | None] = {
        name: round(float(v), 4) if np.isfinite(v) else None for name, v in numbers.items()
    }
    return values | {"real_enhancement": "labels" if drawn else "estimated"}
