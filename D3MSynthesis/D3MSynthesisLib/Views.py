"""The slice views: how they are arranged, what lies in them, and where they look. MRML alone.

Views are reached through their composite and slice nodes, so this works in the application and without a window.
"""

from __future__ import annotations

import json
from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Grids import matrixOf, rasBounds, transformed, worldFrom
from D3MSynthesisLib.Runs import Nodes, alive, differenceOf
from D3MSynthesisLib.Seen import composites, named, sliceNodes

BEFORE = "D3M.Before"
"""Attribute of a slice node that `link` has changed: its group, its axes, whether it was linked."""
MARGIN = 1.35
"""Views that are fitted are so much larger than the brain: the legend is beside it."""
TWO = ("Red", "Yellow")
"""Slice views of Slicer's layout "side by side" (vtkMRMLLayoutLogic.cxx)."""
FOUR = ("Red", "Slice4", "Green", "Yellow")
"""Slice views of Slicer's layout "two over two", row by row (vtkMRMLLayoutLogic.cxx)."""
SIX = ("Red", "Green", "Yellow", "Red+", "Green+", "Yellow+")
"""Slice views of Slicer's layout "three over three", row by row (vtkMRMLLayoutLogic.cxx)."""


def identifier(node: Any) -> str | None:
    """A node's identifier, None for one that is gone."""
    return node.GetID() if alive(node) else None


def setImages(scene: Any, background: dict[str, Any], default: Any, foreground: Any, opacity: float) -> None:
    """Put images into the slice views.

    Args:
        scene: The scene.
        background: By view: its own image, without anything over it.
        default: The image of all other views.
        foreground: What lies over it.
        opacity: Of the foreground, 0 to 1.
    """
    for composite in composites(scene):
        own = composite.GetLayoutName() in background
        over = None if own or opacity == 0 else foreground
        composite.SetBackgroundVolumeID(identifier(background[composite.GetLayoutName()] if own else default))
        composite.SetForegroundVolumeID(identifier(over))
        composite.SetForegroundOpacity(opacity if alive(over) else 0.0)
        if alive(over):
            composite.SetCompositing(composite.Alpha)  # a person may have subtracted two images in this view before


def opacityOf(image: Any) -> float:
    """How much of an image lies over others in the slice views, 0 to 1."""
    shown = [one for one in composites(image.GetScene()) if one.GetForegroundVolumeID() == image.GetID()]
    return max((one.GetForegroundOpacity() for one in shown), default=0.0)


def layoutNode(scene: Any) -> Any:
    """The node that says how views are arranged; None in an application without views."""
    return scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def arrange(scene: Any, arrangement: int) -> None:
    """Choose one of Slicer's layouts."""
    layout = layoutNode(scene)
    if layout is not None:
        layout.SetViewArrangement(arrangement)


def orient(scene: Any, orientations: dict[str, str]) -> None:
    """Turn views: "Axial", "Sagittal" or "Coronal" by view."""
    for node in sliceNodes(scene):
        if node.GetLayoutName() in orientations and node.GetOrientation() != orientations[node.GetLayoutName()]:
            node.SetOrientation(orientations[node.GetLayoutName()])


def link(scene: Any, views: tuple[str, ...]) -> None:
    """Let views follow each other, the first one turned axial; `copyPosition` has the others look where it does.

    Views follow each other within one group (vtkMRMLSliceLinkLogic.cxx, BroadcastSliceNodeEvent); the lower row of
    Slicer's layout "three over three" is a group of its own. `release` undoes it.
    """
    for view in views:
        node, composite = named(sliceNodes(scene), view), named(composites(scene), view)
        if node is None or composite is None:
            continue
        if node.GetAttribute(BEFORE) is None:
            turned = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, :3]
            before = [node.GetViewGroup(), turned.tolist(), bool(composite.GetLinkedControl())]
            node.SetAttribute(BEFORE, json.dumps(before))
        composite.SetLinkedControl(True)
    orient(scene, {views[0]: "Axial"})


def release(scene: Any) -> None:
    """Turn, group and link views as they were before `link`; they stay where they look."""
    for node in sliceNodes(scene):
        if node.GetAttribute(BEFORE) is None:
            continue
        group, turned, linked = json.loads(node.GetAttribute(BEFORE))
        node.SetAttribute(BEFORE, None)
        composite = named(composites(scene), node.GetLayoutName())
        if composite is not None:
            composite.SetLinkedControl(linked)
        node.SetViewGroup(group)
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).copy()
        matrix[:3, :3] = turned
        node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
        node.UpdateMatrices()


def copyPosition(scene: Any, source: str, targets: tuple[str, ...]) -> None:
    """Let views look at the same place as another one, as large, in its group."""
    master = named(sliceNodes(scene), source)
    if master is None:
        return
    perPixel = [master.GetFieldOfView()[axis] / max(master.GetDimensions()[axis], 1) for axis in (0, 1)]
    for name in targets:
        node = named(sliceNodes(scene), name)
        if node is None or node is master:
            continue
        node.SetViewGroup(master.GetViewGroup())
        node.GetSliceToRAS().DeepCopy(master.GetSliceToRAS())
        node.SetXYZOrigin(*master.GetXYZOrigin())
        size = node.GetDimensions()
        node.SetFieldOfView(size[0] * perPixel[0], size[1] * perPixel[1], master.GetFieldOfView()[2])
        node.UpdateMatrices()


def brainBounds(nodes: Nodes) -> Any:
    """Lowest and highest corner, (2, 3), of what was synthesised, in the world: RAS millimetres."""
    import numpy as np

    brain = differenceOf(nodes)
    if not brain.any():
        brain = np.ones_like(brain)
    found = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    ends = np.array([[index[0], index[-1]] for index in found])  # of k, j, i
    corners = np.array([[ends[2, a], ends[1, b], ends[0, c]] for a in (0, 1) for b in (0, 1) for c in (0, 1)], float)
    matrix = vtk.vtkMatrix4x4()
    nodes.cemri.GetIJKToRASMatrix(matrix)
    affine = slicer.util.arrayFromVTKMatrix(matrix)
    return rasBounds(transformed(corners @ affine[:3, :3].T + affine[:3, 3], worldFrom(nodes.cemri)))


def lesion(nodes: Nodes) -> Any:
    """A point of the predicted mask of a run: see `largestPart`."""
    from D3MSynthesisLib.Masks import maskOf

    return largestPart(maskOf(nodes), nodes.cemri)


def largestPart(mask: Any, volume: Any) -> Any:
    """A point, RAS millimetres in the world, in the middle of the largest connected part of a mask.

    It lies in the part's largest axial slice of the volume, on the voxel nearest to that slice's centre; None without
    a mask.

    Args:
        mask: (K, J, I) bool.
        volume: The volume whose grid it is on.
    """
    import numpy as np
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    if not mask.any():
        return None
    image = vtk.vtkImageData()
    image.SetDimensions(mask.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).reshape(-1), deep=True))
    parts = vtk.vtkImageConnectivityFilter()
    parts.SetInputData(image)
    parts.SetScalarRange(1, 1)
    parts.SetExtractionModeToLargestRegion()
    parts.Update()
    largest = vtk_to_numpy(parts.GetOutput().GetPointData().GetScalars()).reshape(mask.shape) > 0
    k = int(largest.sum(axis=(1, 2)).argmax())
    inside = np.argwhere(largest[k])
    j, i = inside[np.abs(inside - inside.mean(0)).sum(1).argmin()]
    point = matrixOf(volume) @ np.array([i, j, k, 1.0])
    return transformed(point[None, :3], worldFrom(volume))[0]


def lookAt(nodes: Nodes, fit: bool = False, jump: bool = True) -> None:
    """Cut every view at the largest predicted enhancement; fit those that do not show the whole brain.

    Args:
        nodes: The run. Without enhancement the slices stay, unless they miss the brain.
        fit: Fit all views.
        jump: Cut all views there; else only those that are fitted.
    """
    bounds = brainBounds(nodes)
    point = lesion(nodes)
    for node in sliceNodes(nodes.cemri.GetScene()):
        fitted = fit or not _shows(node, bounds)
        if fitted:
            _fit(node, bounds)
        if point is not None and (jump or fitted):
            node.JumpSliceByOffsetting(*point)
        elif fitted:
            node.JumpSliceByOffsetting(*bounds.mean(0))


def _shows(node: Any, bounds: Any) -> bool:
    """Whether a view has the whole brain in its frame, larger than a fifth of it, and cuts it."""
    import numpy as np

    matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    low, high = _inPlane(matrix, bounds)
    half = np.array(node.GetFieldOfView()[:2]) / 2 + 1
    origin = np.array(node.GetXYZOrigin()[:2])
    seen = (low[:2] >= origin - half).all() and (high[:2] <= origin + half).all()
    large = ((high - low)[:2] > 0.2 * 2 * half).any()
    return bool(seen and large and low[2] <= 0 <= high[2])


def _inPlane(sliceToRAS: Any, bounds: Any) -> tuple[Any, Any]:
    """The brain's box in a view's coordinates: lowest and highest corner, right, up, through the plane; mm."""
    import numpy as np

    corners = np.array([[bounds[a, 0], bounds[b, 1], bounds[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    local = (corners - sliceToRAS[:3, 3]) @ sliceToRAS[:3, :3]
    return local.min(0), local.max(0)


def _fit(node: Any, bounds: Any) -> None:
    """Show the whole brain with a margin, its middle in the middle."""
    matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).copy()
    low, high = _inPlane(matrix, bounds)
    size = node.GetDimensions()
    perPixel = MARGIN * max((high[axis] - low[axis]) / max(size[axis], 1) for axis in (0, 1))
    middle = (low + high) / 2
    middle[2] = 0.0  # the slice stays
    matrix[:3, 3] += matrix[:3, :3] @ middle
    node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
    node.SetXYZOrigin(0, 0, 0)
    node.SetFieldOfView(size[0] * perPixel, size[1] * perPixel, node.GetFieldOfView()[2])
    node.UpdateMatrices()
