"""Volumes and segments on another volume's grid: by copying where the voxels are the same, else resampled."""

from __future__ import annotations

import numpy as np
import pytest
from slicer_helpers import affine

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost  # noqa: E402
from panel_helpers import moved  # noqa: E402

SHAPE = (9, 11, 7)
"""Of the target, along i, j, k."""


@pytest.fixture
def scene() -> object:
    """A fresh scene."""
    return MRMLHost((60, 60)).scene


def volume(array: np.ndarray, matrix: np.ndarray, kind: str = "vtkMRMLScalarVolumeNode") -> object:
    """A volume of (X, Y, Z) voxels."""
    node = slicer.mrmlScene.AddNewNodeByClass(kind)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(array.T))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return node


def shifted(array: np.ndarray, start: tuple[int, int, int]) -> np.ndarray:
    """What `SHAPE` sees of an array whose first voxel lies at `start` of it: one voxel after the other."""
    found = np.zeros(SHAPE, array.dtype)
    for index in np.ndindex(SHAPE):
        inside = tuple(np.subtract(index, start))
        if all(0 <= one < size for one, size in zip(inside, array.shape, strict=True)):
            found[index] = array[inside]
    return found


@pytest.mark.parametrize("start", [(0, 0, 0), (2, -3, 1), (-4, 6, -2), (20, 0, 0)])
@pytest.mark.parametrize("how", ["matrix", "transform", "segment"])
def test_voxels_of_one_grid_are_copied(
    scene: object, monkeypatch: pytest.MonkeyPatch, start: tuple[int, int, int], how: str
) -> None:
    """A part of the grid, or a larger one, wherever it begins, by its own matrix or a transform; none is resampled."""
    from D3MSynthesisLib import Grids

    matrix = affine("oblique", SHAPE)
    array = np.random.default_rng(1).integers(0, 2, (6, 13, 5)).astype(np.uint8)
    target = volume(np.zeros(SHAPE), matrix)
    here = matrix.copy()
    here[:3, 3] += matrix[:3, :3] @ start
    monkeypatch.setattr(Grids, "_resliced", lambda *_arguments: pytest.fail("resampled"))
    if how == "segment":
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")  # type: ignore[attr-defined]
        node.GetSegmentation().AddEmptySegment("a", "a")
        Grids.writeMask(node, "a", array.T > 0, here)
        found = Grids.segmentOn(node, "a", target)
    else:
        node = volume(array, matrix if how == "transform" else here)
        if how == "transform":
            parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")  # type: ignore[attr-defined]
            move = np.eye(4)
            move[:3, 3] = here[:3, 3] - matrix[:3, 3]
            parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(move))
            node.SetAndObserveTransformNodeID(parent.GetID())
        found = Grids.resampledOn(node, target, nearest=True)
        assert found.dtype == np.float32
    np.testing.assert_array_equal(found.T, shifted(array, start))


@pytest.mark.parametrize("off", [0.3, 0.01])
def test_other_grids_are_resampled(scene: object, off: float) -> None:
    """A volume that lies beside the grid's voxels, by however little, or is turned the other way, is interpolated."""
    from D3MSynthesisLib import Grids

    del scene
    matrix = affine("LPS", SHAPE)
    array = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    target = volume(np.zeros(SHAPE), matrix)
    here = matrix.copy()
    here[:3, 3] += matrix[:3, 0] * off
    found = Grids.resampledOn(volume(array, here), target).T
    expected = off * array[:-1] + (1 - off) * array[1:]
    np.testing.assert_allclose(found[1:], expected, atol=1e-4)
    turned = matrix @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(Grids.resampledOn(volume(array, turned), target).T, array[::-1], atol=1e-5)


def test_a_scan_that_is_dragged_is_not_read_again_at_every_step(scene: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells its voxels from others is worked out after they have changed alone; a change is always seen."""
    from D3MSynthesisLib import Comparison

    del scene
    scan = volume(np.random.default_rng(3).normal(size=SHAPE), affine("LPS", SHAPE))
    target = volume(np.zeros(SHAPE), affine("LPS", SHAPE))
    read = []
    original = Comparison.hashlib.blake2b
    monkeypatch.setattr(
        Comparison.hashlib, "blake2b", lambda data, **named: (read.append(1), original(data, **named))[1]
    )
    marks = []
    for how in ("transform", "origin", "origin"):
        moved(scan, how)
        marks.append(Comparison.imprint(scan, target))
    assert len(read) == 1
    assert len(set(marks)) == 3, "every place is another one"
    moved(scan, "voxels")
    assert Comparison.imprint(scan, target) != marks[-1]
    assert len(read) == 2
