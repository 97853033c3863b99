"""Geometry between the engine's arrays and MRML."""

from __future__ import annotations

from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Results import Image


def gridTransform(image: Image) -> Any:
    """A field of RAS millimetres, (K, J, I, 3), on its own oriented grid, as a VTK transform."""
    import numpy as np
    from vtk.util.numpy_support import numpy_to_vtk

    affine = np.asarray(image.ijkToRAS, float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    directions = np.eye(4)
    directions[:3, :3] = affine[:3, :3] / spacing
    grid = vtk.vtkImageData()
    grid.SetDimensions(image.array.shape[2::-1])
    grid.SetSpacing(spacing)
    grid.SetOrigin(affine[:3, 3])
    vectors = numpy_to_vtk(np.ascontiguousarray(image.array, np.float32).reshape(-1, 3), deep=True)
    vectors.SetName("displacement")
    grid.GetPointData().SetScalars(vectors)
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(grid)
    transform.SetGridDirectionMatrix(slicer.util.vtkMatrixFromArray(directions))
    transform.SetInterpolationModeToLinear()
    return transform


def thresholdOf(probability: Any, mask: Any) -> float:
    """The threshold that made this mask, as nearly as it can be told; 0.5 if nothing is in it."""
    if not mask.any() or mask.all():
        return 0.5
    inside, outside = float(probability[mask].min()), float(probability[~mask].max())
    for digits in (1, 2, 3):  # a model's threshold is a round number
        value = round(inside - 0.5 * 10**-digits + 1e-9, digits)
        for candidate in (value, round(value + 10**-digits, digits)):
            if outside < candidate <= inside:
                return candidate
    return inside


def voxelMl(node: Any) -> float:
    """Volume of a voxel in ml as shown in the world: a transform with scale counts."""
    import numpy as np

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    size = abs(np.linalg.det(slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]))
    parent = node.GetParentTransformNode()
    toWorld = vtk.vtkMatrix4x4()
    if parent is not None and parent.IsTransformToWorldLinear():
        parent.GetMatrixTransformToWorld(toWorld)
        size *= abs(np.linalg.det(slicer.util.arrayFromVTKMatrix(toWorld)[:3, :3]))
    return float(size) / 1000


def writeMask(segmentation: Any, identifier: str, mask: Any, ijkToRAS: Any) -> None:
    """Make a mask, (K, J, I) bool, the contents of a segment.

    `slicer.util` has a function for it that leaves a display node in the scene at every call; a slider would make many.
    """
    import numpy as np
    from vtk.util.numpy_support import numpy_to_vtk

    image = slicer.vtkOrientedImageData()
    image.SetDimensions(mask.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(mask, np.uint8).reshape(-1), deep=True))
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijkToRAS))
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not logic.SetBinaryLabelmapToSegment(image, segmentation, identifier, logic.MODE_REPLACE):
        raise ValueError("The mask cannot be stored in the segmentation.")
