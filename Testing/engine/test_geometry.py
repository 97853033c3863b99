"""Sizes from affines, of oblique and mirrored grids."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from d3m.volumes.geometry import box_of, middle_of_largest_slice, spacing_mm, volume_ml, voxel_mm3
from d3m.volumes.io.images import volume_of


def test_sizes_are_itks_own() -> None:
    """Of an oblique, left-handed grid with three spacings, as SimpleITK knows it."""
    image = sitk.Image(3, 4, 5, sitk.sitkFloat32)
    turned = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.5, 1.1)
    direction = np.reshape(turned.GetMatrix(), (3, 3)) @ np.diag([1.0, -1.0, 1.0])
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing((0.5, 2.0, 3.0))
    affine = volume_of(image, "t1").affine
    np.testing.assert_allclose(spacing_mm(affine), image.GetSpacing())
    assert voxel_mm3(affine) == pytest.approx(np.prod(image.GetSpacing()))
    mask = np.zeros((3, 4, 5), bool)
    mask[:2, :, 0] = True
    assert volume_ml(mask, affine) == pytest.approx(8 * 3.0 / 1000)


def test_where_a_mask_lies() -> None:
    """Box and middle as SimpleITK's label statistics have them; a margin ends where the volume does."""
    mask = np.zeros((9, 10, 11), bool)
    mask[2:5, 3:8, 4:6] = True
    mask[3, 0:10, 5] = True  # the slice with most of it
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.GetImageFromArray(mask.astype(np.uint8).T))
    first, size = np.split(np.array(statistics.GetBoundingBox(1)), 2)
    assert box_of(mask) == tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
    assert box_of(mask, np.array([1, 2, 30])) == (slice(1, 6), slice(0, 10), slice(0, 11))
    assert middle_of_largest_slice(mask) == (3, 5, 5)
    assert box_of(np.zeros((3, 4, 5), bool)) is None
