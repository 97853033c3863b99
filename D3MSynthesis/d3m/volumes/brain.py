"""Where the brain is."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from d3m.volumes.types import Floats, Mask


def foreground(data: Floats) -> Mask:
    """Voxels of a skull-stripped scan that are not its constant background; holes filled, largest piece kept.

    Args:
        data: (X, Y, Z); the background is the most frequent value on the volume's faces.
    """
    faces = np.concatenate([data[index].ravel() for index in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1])])
    values, counts = np.unique(faces, return_counts=True)
    return solid(data != values[counts.argmax()])


def solid(mask: Mask) -> Mask:
    """The largest connected piece of `mask` without holes."""
    labels, count = ndimage.label(mask)
    if count > 1:
        mask = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return ndimage.binary_fill_holes(mask)
