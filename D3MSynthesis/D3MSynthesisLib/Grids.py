"""Geometry between the engine's arrays and MRML."""

from __future__ import annotations

from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Results import Image

SAME_VOXEL = 1e-3
"""Grids whose voxels are nearer to each other, in voxels, are the same: files keep numbers of limited precision."""

SAME_PLACE = 1e-4
"""Of two matrices, mm: what is moved by less has not been moved."""


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


def matrixOf(node: Any) -> Any:
    """Voxel index to RAS in the node's local frame, as numpy (4, 4)."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def matrixIn(node: Any, volume: Any) -> Any:
    """Voxel index of a volume to RAS in another node's local frame, as both are shown, as numpy (4, 4).

    Through a warp between them there is no such matrix: then it is that of `matrixOf`.
    """
    between = _between(volume, node)
    return matrixOf(volume) if between is None else between @ matrixOf(volume)


def _between(node: Any, other: Any) -> Any:
    """From a node's local frame to another one's, as numpy (4, 4); None where a warp lies between them."""
    between, parents = vtk.vtkMatrix4x4(), (node.GetParentTransformNode(), other.GetParentTransformNode())
    linear = slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(*parents, between)
    return slicer.util.arrayFromVTKMatrix(between) if linear else None


def fieldOf(node: Any) -> Image | None:
    """The field of a transform node that was made by `gridTransform`, in the node's own frame: RAS millimetres.

    Linear transforms that were hardened onto the node have moved its grid and turned its vectors, as they have moved
    the images. None where it is anything else by now.
    """
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    found = _fieldOf(node)
    if found is None:
        return None
    transform, matrix, moved = found
    grid = transform.GetDisplacementGrid()
    vectors = vtk_to_numpy(grid.GetPointData().GetScalars()).reshape(*grid.GetDimensions()[::-1], 3)
    vectors = vectors * transform.GetDisplacementScale() + transform.GetDisplacementShift()
    field = Image(vectors.astype(np.float32), matrix)
    return field if moved is None else movedField(field, moved)


def fieldGrid(node: Any) -> tuple[tuple[int, int, int], Any] | None:
    """Voxels along i, j and k of the field of `fieldOf`, and its voxel index to RAS; None where there is none."""
    found = _fieldOf(node)
    if found is None:
        return None
    transform, matrix, moved = found
    return transform.GetDisplacementGrid().GetDimensions(), matrix if moved is None else moved @ matrix


def _fieldOf(node: Any) -> tuple[Any, Any, Any] | None:
    """A node's grid transform, its voxel index to RAS, and the matrix that was hardened onto it or None."""
    import numpy as np

    parts = vtk.vtkCollection()
    slicer.vtkMRMLTransformNode.FlattenGeneralTransform(parts, node.GetTransformFromParent())
    *before, transform = [parts.GetItemAsObject(index) for index in range(parts.GetNumberOfItems())] or [None]
    whole = transform is not None and transform.IsA("vtkOrientedGridTransform") and not transform.GetInverseFlag()
    if not whole or not all(part.IsA("vtkLinearTransform") for part in before):
        return None
    toGrid = np.eye(4)
    for part in before:
        toGrid = slicer.util.arrayFromVTKMatrix(part.GetMatrix()) @ toGrid
    grid = transform.GetDisplacementGrid()
    matrix = np.eye(4)
    if transform.GetGridDirectionMatrix() is not None:
        matrix = slicer.util.arrayFromVTKMatrix(transform.GetGridDirectionMatrix()).copy()
    matrix[:3, :3] *= grid.GetSpacing()
    matrix[:3, 3] = grid.GetOrigin()
    return transform, matrix, np.linalg.inv(toGrid) if before else None


def movedField(field: Image, matrix: Any) -> Image:
    """A field with the images that it belongs to brought elsewhere by a matrix: its vectors turn with them."""
    import numpy as np

    return Image((field.array @ matrix[:3, :3].T).astype(np.float32), np.asarray(matrix @ field.ijkToRAS))


def gridPoints(shape: Any, ijkToRAS: Any) -> Any:
    """RAS of every voxel of a grid, (K, J, I, 3)."""
    import numpy as np

    k, j, i = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    return np.stack([i, j, k], -1) @ ijkToRAS[:3, :3].T + ijkToRAS[:3, 3]


def transformed(points: Any, transform: Any) -> Any:
    """Points, (..., 3), through a VTK transform."""
    import numpy as np
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    before, after = vtk.vtkPoints(), vtk.vtkPoints()
    before.SetData(numpy_to_vtk(np.ascontiguousarray(points, np.float64).reshape(-1, 3), deep=True))
    after.SetDataTypeToDouble()
    transform.TransformPoints(before, after)
    return vtk_to_numpy(after.GetData()).reshape(points.shape).copy()


def outermost(size: Any, ijkToRAS: Any) -> Any:
    """The middles of the outermost voxels of a grid, (2, 2, 2, 3) RAS; `size` is along i, j and k."""
    import numpy as np

    return gridPoints((2, 2, 2), ijkToRAS * (np.array([*size, 2]) - 1))


def worldFrom(node: Any) -> Any:
    """From a node's own frame to the world, as a VTK transform."""
    toWorld = vtk.vtkGeneralTransform()
    parent = node.GetParentTransformNode()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, toWorld)
    return toWorld


def rasBounds(points: Any) -> Any:
    """Lowest and highest corner of points, (2, 3)."""
    import numpy as np

    flat = points.reshape(-1, 3)
    return np.stack([flat.min(0), flat.max(0)])


def resampledOn(node: Any, target: Any, nearest: bool = False) -> Any:
    """The voxels of a volume node on another one's grid, as both are shown, 0 outside: (K, J, I) float32."""
    import numpy as np

    rasToIjk = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(rasToIjk)
    return _arrayOn(node.GetImageData(), rasToIjk, node, target, nearest).astype(np.float32)


def resliced(node: Any, target: Any, nearest: bool = False) -> Any:
    """The voxels of a volume on another one's grid, through whatever transforms both are under, as VTK image."""
    rasToIjk = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(rasToIjk)
    return _resliced(node.GetImageData(), rasToIjk, node, target, nearest)


def segmentOn(segmentation: Any, identifier: str, target: Any) -> Any:
    """A segment on a volume's grid, as both are shown: (K, J, I) bool.

    Segments may share an image, each with a value of its own: those of a label map do, and saving merges others. What
    Slicer gives is the whole shared image.

    `slicer.util` has a function for it that adds a volume to the scene, which selectors list for a moment, and leaves
    its display node there (util.py, arrayFromSegmentBinaryLabelmap).
    """
    import numpy as np

    shape = target.GetImageData().GetDimensions()[::-1]
    image, rasToIjk = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not logic.GetSegmentBinaryLabelmapRepresentation(segmentation, identifier, image, False):
        return np.zeros(shape, bool)
    if image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:  # an empty segment
        return np.zeros(shape, bool)
    image.GetWorldToImageMatrix(rasToIjk)
    array = _arrayOn(image, rasToIjk, segmentation, target, nearest=True)
    segments = segmentation.GetSegmentation()
    if not segments.ContainsRepresentation("Binary labelmap"):  # a surface, say: it was converted alone
        return array > 0
    return array == segments.GetSegment(identifier).GetLabelValue()


def liesBy(segmentation: Any, volume: Any) -> bool:
    """Whether a segmentation that was drawn by a volume lies by it still.

    Both are under the same transform, or it was hardened onto one of them: then its voxels are the volume's.
    """
    import numpy as np

    between = _between(segmentation, volume)
    if between is not None and np.allclose(between, np.eye(4), rtol=0, atol=SAME_PLACE):
        return True
    segments = segmentation.GetSegmentation()
    for index in range(segments.GetNumberOfSegments()):
        image, rasToIjk = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
        get = slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentBinaryLabelmapRepresentation
        if get(segmentation, segments.GetNthSegmentID(index), image, False) and image.GetNumberOfPoints():
            image.GetWorldToImageMatrix(rasToIjk)
            shift = _shiftTo(rasToIjk, segmentation, volume)
            return shift is not None and not shift.any()
    return True  # there is nothing to be seen of it


def _arrayOn(image: Any, rasToIjk: Any, node: Any, target: Any, nearest: bool) -> Any:
    """An image's voxels on a volume's grid, 0 outside: (K, J, I); where its voxels lie on that grid they are copied."""
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    shift = _shiftTo(rasToIjk, node, target)
    if shift is None:
        image = _resliced(image, rasToIjk, node, target, nearest)
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    found = np.zeros(target.GetImageData().GetDimensions()[::-1], voxels.dtype)
    into, out = [], []
    for size, length, start in zip(found.shape, voxels.shape, (shift - image.GetExtent()[::2])[::-1], strict=True):
        low, high = max(0, -start), min(size, length - start)
        if low >= high:
            return found
        into.append(slice(low, high))
        out.append(slice(low + start, high + start))
    found[tuple(into)] = voxels[tuple(out)]
    return found


def _shiftTo(rasToIjk: Any, node: Any, target: Any) -> Any:
    """By how many whole voxels a grid's indices differ from a volume's, (3,) of i, j, k; None if it is another grid."""
    import numpy as np

    matrix = vtk.vtkMatrix4x4()
    between = slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes
    if not between(target.GetParentTransformNode(), node.GetParentTransformNode(), matrix):
        return None
    whole = slicer.util.arrayFromVTKMatrix(rasToIjk) @ slicer.util.arrayFromVTKMatrix(matrix) @ matrixOf(target)
    shift = np.rint(whole[:3, 3]).astype(int)
    last = np.array([*target.GetImageData().GetDimensions(), 1]) - [1, 1, 1, 0]  # where the error is largest
    grid = np.eye(4)
    grid[:3, 3] = shift
    return shift if abs((whole - grid) * last).max() <= SAME_VOXEL else None


def _resliced(image: Any, rasToIjk: Any, node: Any, target: Any, nearest: bool) -> Any:
    toNode = vtk.vtkGeneralTransform()  # the target's local frame to the node's
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        target.GetParentTransformNode(), node.GetParentTransformNode(), toNode
    )
    ijkToRas = vtk.vtkMatrix4x4()
    target.GetIJKToRASMatrix(ijkToRas)
    whole = vtk.vtkGeneralTransform()
    whole.PostMultiply()
    whole.Concatenate(ijkToRas)
    whole.Concatenate(toNode)
    whole.Concatenate(rasToIjk)
    plain = vtk.vtkImageData()  # voxel indices are the coordinates
    plain.ShallowCopy(image)
    plain.SetSpacing(1, 1, 1)
    plain.SetOrigin(0, 0, 0)
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(plain)
    reslice.SetResliceTransform(whole)
    if nearest:
        reslice.SetInterpolationModeToNearestNeighbor()
    else:
        reslice.SetInterpolationModeToLinear()
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputExtent(*(bound for size in target.GetImageData().GetDimensions() for bound in (0, size - 1)))
    reslice.Update()
    return reslice.GetOutput()


def thresholdOf(probability: Any, mask: Any) -> float:
    """The threshold that made this mask, as nearly as it can be told; of an empty one 0.5, or more if it must be."""
    if not mask.any():
        return max(0.5, float(int(1000 * probability.max()) + 1) / 1000)
    if mask.all():
        return 0.5
    inside, outside = float(probability[mask].min()), float(probability[~mask].max())
    for digits in (1, 2, 3):  # a model's threshold is a round number
        value = round(inside - 0.5 * 10**-digits + 1e-9, digits)
        for candidate in (value, round(value + 10**-digits, digits)):
            if outside < candidate <= inside:
                return candidate
    return inside


def voxelMl(node: Any, world: bool = True) -> float:
    """Volume of a voxel in ml as shown in the world: a transform with scale counts; else in the node's own frame."""
    import numpy as np

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    size = abs(np.linalg.det(slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]))
    parent = node.GetParentTransformNode() if world else None
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
