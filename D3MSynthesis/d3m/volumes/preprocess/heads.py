"""Whole heads: what is scalp, and about where the brain lies."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from d3m.volumes.preprocess.matching import Picture
from d3m.volumes.types import Mask

SCALP_MM = 14.0
"""From the top of a head to that of its brain."""
PEEL_MM = 10.0
"""Thickness of the scalp and a part of the skull; a brain lies deeper."""
SLAB_MM = 130.0
"""From the top of a head downwards: the part in which the brain's middle is looked for, without jaw and neck."""


def not_air(head: Picture) -> Mask:
    """What is brighter than the air around a head."""
    low, high = np.percentile(head.data, (2, 98))
    return np.asarray(head.data > low + 0.15 * (high - low))


def peeled(head: Picture) -> Picture:
    """The head without its scalp: what is left has a dark rim, as an extracted brain has."""
    n = round(2 * PEEL_MM / head.spacing)
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(not_air(head), n), iterations=n // 2))
    depth = ndimage.distance_transform_edt(filled, sampling=head.spacing)[(slice(n, -n),) * 3]
    return Picture(np.where(depth > PEEL_MM, head.data, head.data.min()), head.mask, head.affine)


def middle_of_brain(head: Picture) -> np.ndarray | None:
    """(3,) RAS millimetres: somewhere in the middle of the brain, below the top of what is brighter than air.

    None if nothing is.
    """
    shown = ndimage.binary_opening(not_air(head))
    if not shown.any():
        return None
    places = head.affine[:3, :3] @ np.array(np.nonzero(shown)) + head.affine[:3, 3:]
    top = places[2].max()
    slab = places[:, places[2] > top - SLAB_MM]
    middle: np.ndarray = slab.mean(axis=1)
    middle[2] = top - SCALP_MM - SLAB_MM / 2
    return middle
