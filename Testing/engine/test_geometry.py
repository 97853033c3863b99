"""Sizes from affines, of oblique and mirrored grids."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from d3m.volumes.geometry import spacing_mm, volume_ml, voxel_mm3
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
