"""Voxels picked out of a volume."""

from __future__ import annotations

import numpy as np
import pytest

from d3m.arrays import values_in


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("mask_order", ["C", "F"])
def test_every_voxel_of_the_mask_is_picked_once_and_two_images_in_one_order(order, mask_order):
    first = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    mask = np.asarray(first % 7 < 3, order=mask_order)
    picked = values_in(np.asarray(first, order=order), mask)
    assert sorted(picked) == [n for n in range(60) if n % 7 < 3]
    np.testing.assert_array_equal(values_in(np.asfortranarray(first + 100), mask), picked + 100)
    np.testing.assert_array_equal(values_in(first[:, 1:3], mask[:, 1:3]).sum(), first[:, 1:3][mask[:, 1:3]].sum())
