"""What enhances where labels show the whole tumour alone: T1c minus T1 inside the tumour tells, at 2 mm."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from d3m.diffusion.networks.whole_brain import POOLING, pool
from d3m.volumes.types import Floats, Mask
from d3m_training.data.cache import ENHANCING, OEDEMA

ENHANCES, MAY_ENHANCE = 0.30, 0.18
"""T1c minus T1 on T1's scale inside a tumour: from the first on it enhances, below the second it does not, between them
nobody knows. Of the enhancing voxels of 55 labelled patients 75 % lie above 0.26, of their other tumour voxels 99 %
below 0.21."""
LEAST_ENHANCING_ML = 0.5
"""A connected enhancing part smaller than this is taken for a vessel: nobody knows."""
COARSE_VOXEL_ML = 0.008
MOST_UNKNOWN_ML = 2.5
"""A patient with more of which nobody knows, and more than what surely enhances, counts as unlabelled."""


def enhancing_from_difference(tumour: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
    """Where a tumour enhances, and where nobody knows.

    Args:
        tumour: (s, h, w) bool at 2 mm.
        difference: (s, h, w) T1c minus T1 on T1's scale.

    Returns:
        Both (s, h, w) bool; the second holds nothing of the first.
    """
    may = (difference > MAY_ENHANCE) & tumour
    parts, count = ndimage.label(((difference > ENHANCES) & tumour).numpy())
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * COARSE_VOXEL_ML
    sizes[0] = 0
    enhancing = torch.from_numpy((sizes >= LEAST_ENHANCING_ML)[parts])
    return enhancing, may & ~enhancing


def labels_from_difference(t1: Floats, target: Floats, brain: Mask, tumour: Mask) -> np.ndarray | None:
    """Labels in the cache's coding from the whole tumour and the real T1c.

    Args:
        t1: (S, H, W) scaled T1 on the model's grid.
        target: (S, H, W) T1c on T1's scale.
        brain: (S, H, W).
        tumour: (S, H, W) the whole tumour.

    Returns:
        (S, H, W) uint8, `ENHANCING` or `OEDEMA` in the tumour; None where too much of it is not known.
    """
    inside = torch.from_numpy(brain)
    (difference, share), _ = pool(torch.from_numpy(np.stack([target - t1, tumour.astype(np.float32)])), inside)
    enhancing, unknown = enhancing_from_difference(share > 0.5, difference)
    unknown_ml, enhancing_ml = (float(part.sum()) * COARSE_VOXEL_ML for part in (unknown, enhancing))
    if unknown_ml > max(MOST_UNKNOWN_ML, enhancing_ml):
        return None
    fine = enhancing.numpy().repeat(POOLING, 0).repeat(POOLING, 1).repeat(POOLING, 2)
    fine = fine[tuple(slice(n) for n in brain.shape)]
    return np.where(tumour & brain, np.where(fine, ENHANCING, OEDEMA), 0).astype(np.uint8)
