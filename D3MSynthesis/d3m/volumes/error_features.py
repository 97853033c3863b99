"""What the error of a synthetic image is expected from, voxel by voxel; see `d3m.models.expected_error`."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from d3m.volumes.types import CONTRASTS, Floats, Mask

NEAR, AROUND, WIDE = 3, 7, 15
"""Voxels of 1 mm along the edges of the boxes in which unevenness, FLAIR and the share of brain are taken."""


def error_features(slices: Floats, difference: Floats, spread: Floats, brain: Mask) -> Floats:
    """What the error is expected from.

    Args:
        slices: (S, C, H, W) in [0, 1] on the model's grid, as the network sees them; a missing contrast is 0.
        difference: (S, H, W) synthetic image minus T1, on T1's scale.
        spread: (S, H, W) standard deviation over the samples, on the same scale.
        brain: (S, H, W).

    Returns:
        (7, S, H, W) float32: `d3m.models.expected_error.FEATURES`, NaN for FLAIR's where it is missing.
    """
    t1, flair = slices[:, 0], slices[:, CONTRASTS.index("flair")]
    if flair.any():
        mean, unevenness = _box(flair, AROUND)
    else:
        mean = unevenness = np.full_like(flair, np.nan)
    brain_around = ndimage.uniform_filter(brain.astype(np.float32), WIDE, mode="constant")
    return np.stack([difference, np.abs(difference), spread, mean, unevenness, _box(t1, NEAR)[1], brain_around]).astype(
        np.float32, copy=False
    )


def _box(values: Floats, edge: int) -> tuple[Floats, Floats]:
    """Mean and standard deviation in a box around each voxel."""
    mean = ndimage.uniform_filter(values, edge, mode="constant")
    square = ndimage.uniform_filter(values**2, edge, mode="constant")
    return mean, np.sqrt(np.maximum(square - mean**2, 0))
