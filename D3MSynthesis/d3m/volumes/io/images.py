"""Images in memory, of the libraries that people use, into volumes."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk

from d3m.errors import D3MError
from d3m.volumes.io.files import content_hash, label
from d3m.volumes.io.headers import check_affine
from d3m.volumes.types import Volume

KNOWN_IMAGES = "Give a path, an image of SimpleITK or nibabel, or a pair of array (X, Y, Z) and affine (4, 4) in RAS."
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume_of(image: Any, contrast: str) -> Volume:
    """A volume from an image in memory.

    Args:
        image: SimpleITK's (its origin and directions are LPS millimetres), nibabel's, or a pair of an array (X, Y, Z)
            and an affine (4, 4), voxel index to RAS millimetres.
        contrast: What messages call it.

    Raises:
        D3MError: it is none of these, not three-dimensional, not of real numbers, or lies nowhere in space.
    """
    if isinstance(image, sitk.Image):
        if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
            raise _unusable(contrast, "is not a volume with one number per voxel")
        data, affine = sitk.GetArrayViewFromImage(image).T, _affine_of(image)
    elif isinstance(image, nibabel.spatialimages.SpatialImage):
        data, affine = np.asanyarray(image.dataobj), image.affine
    elif isinstance(image, tuple) and len(image) == 2:
        data, affine = (np.asarray(part) for part in image)
    else:
        raise _unusable(contrast, f"is of the type {type(image).__name__}, not an image")
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3 or data.dtype.kind not in "buif":
        raise _unusable(contrast, f"has the shape {data.shape} and the type {data.dtype}")
    if affine is None or np.shape(affine) != (4, 4):
        raise _unusable(contrast, "has no affine of 4 by 4 numbers")
    placed, notices = check_affine(np.asarray(affine), data.shape, 1.0, contrast)
    values = np.asarray(data, np.float32)
    return Volume(values, placed, content_hash(values, placed), notices=notices)


def _affine_of(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


def _unusable(contrast: str, why: str) -> D3MError:
    return D3MError(f"{label(contrast)} {why}.", KNOWN_IMAGES)
