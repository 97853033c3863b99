"""Training patients whose T1c, with its labels, is not where the other scans are: what a deformation must forgive.

The setting of RegGAN (Kong et al. 2021): a translation learns from pairs that do not fit, and is measured on pairs that
do. A method that is trained to move what it paints should lose less by it than one that only paints.
"""

from __future__ import annotations

import hashlib

import numpy as np
from scipy import ndimage

from d3m_training.data.cache import Entry, Prepared

LEAST_MM = 1.0


def shift_of(identifier: str, most_mm: float) -> np.ndarray:
    """(2,) millimetres along rows and columns: any direction, `LEAST_MM` to `most_mm` long, the same for a patient
    always."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:8], "big"))
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(min(LEAST_MM, most_mm), most_mm)
    return length * np.array([np.cos(angle), np.sin(angle)])


def misaligned(entry: Entry, most_mm: float, pixel_mm: float) -> Prepared:
    """A patient whose T1c and labels lie beside the other scans.

    Where T1c has nothing after it was moved, at one side of the brain, it stays as it was.

    Args:
        entry: Of a cache.
        most_mm: Longest shift in the plane.
        pixel_mm: Size of a pixel.
    """
    shift = (0, *(shift_of(entry.id, most_mm) / pixel_mm))
    scans, regions = np.asarray(entry.scans).copy(), np.asarray(entry.regions).copy()
    brain = regions[:, 0] > 0
    there = (ndimage.shift(brain.astype(np.float32), shift, order=1) > 0.99) & brain
    moved = ndimage.shift(scans[:, 3].astype(np.float32), shift, order=3)
    scans[:, 3] = np.where(there, np.maximum(moved, 0), scans[:, 3])
    regions[:, 1] = np.where(brain, ndimage.shift(regions[:, 1], shift, order=0), 0)
    return Prepared(entry.id, scans, regions, entry.labelled)
